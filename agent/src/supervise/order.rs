//! Which component is to blame: a service is not restarted while something
//! that it needs does not work.

use std::collections::BTreeMap;
use std::fmt;

use units::node_config::Service;

/// What a service's health hangs on, on this machine or outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Another service of this machine.
    Service(Service),
    /// The API server that this machine's kubelet uses.
    Api,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => service.fmt(f),
            Self::Api => f.write_str("the API server"),
        }
    }
}

/// What a service needs, the first cause first.
pub fn needs(service: Service) -> &'static [Need] {
    match service {
        Service::Containerd | Service::Etcd => &[],
        Service::Docker => &[Need::Service(Service::Containerd)],
        Service::KubeApiserver => &[Need::Service(Service::Etcd)],
        // Without an API server they lose their lease, and say so.
        Service::KubeControllerManager | Service::KubeScheduler => &[
            Need::Service(Service::Etcd),
            Need::Service(Service::KubeApiserver),
        ],
        Service::Kubelet => &[
            Need::Service(Service::Containerd),
            Need::Service(Service::Etcd),
            Need::Service(Service::KubeApiserver),
            Need::Api,
        ],
        Service::KubeProxy => &[
            Need::Service(Service::Etcd),
            Need::Service(Service::KubeApiserver),
            Need::Api,
        ],
    }
}

/// The first of what `service` needs that is in doubt; `doubtful` has every
/// service of this machine. `api` says whether the API server answers, where
/// that was asked.
pub fn blame(
    service: Service,
    doubtful: &BTreeMap<Service, bool>,
    api: Option<bool>,
) -> Option<Need> {
    needs(service).iter().copied().find(|need| match need {
        Need::Service(other) => doubtful.get(other).copied().unwrap_or(false),
        Need::Api => api == Some(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Service::{Containerd, Etcd, KubeApiserver, KubeProxy, KubeScheduler, Kubelet};

    /// F27, F29: the runtime before the kubelet; nobody for an API that is away.
    #[test]
    fn the_first_cause_is_blamed() {
        let doubtful = |names: &[Service]| -> BTreeMap<Service, bool> {
            [Containerd, Etcd, KubeApiserver, Kubelet]
                .into_iter()
                .map(|service| (service, names.contains(&service)))
                .collect()
        };
        let blamed = |service, names: &[Service], api| blame(service, &doubtful(names), api);
        let of = |service| Some(Need::Service(service));
        assert_eq!(
            blamed(Kubelet, &[Containerd, Kubelet], Some(true)),
            of(Containerd)
        );
        assert_eq!(blamed(Containerd, &[Containerd, Kubelet], None), None);
        assert_eq!(blamed(Kubelet, &[Kubelet], Some(false)), Some(Need::Api));
        assert_eq!(blamed(Kubelet, &[Kubelet], Some(true)), None);
        assert_eq!(
            blamed(KubeApiserver, &[Etcd, KubeApiserver], None),
            of(Etcd)
        );
        assert_eq!(
            blamed(KubeScheduler, &[KubeApiserver], None),
            of(KubeApiserver)
        );
        assert_eq!(blamed(KubeProxy, &[Containerd], Some(true)), None);
    }

    /// Two that wait for each other would never be restarted.
    #[test]
    fn nobody_needs_who_needs_him() {
        for service in [Containerd, Etcd, KubeApiserver, KubeScheduler, Kubelet] {
            for need in needs(service) {
                if let Need::Service(other) = need {
                    assert!(!needs(*other).contains(&Need::Service(service)));
                }
            }
        }
    }
}
