//! The static files of a node, embedded at compile time.
//!
//! They are kept in `units/files/`, a tree that mirrors the node's root, and
//! hold no placeholders: what differs between machines is in drop-ins and
//! configuration files that kgen generates, and in NodeConfig.

use crate::node_config::{RuntimeSource, Service};
use crate::types::{FileMode, Role};

/// A static file and where it lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticFile {
    /// The absolute path on the node.
    pub path: &'static str,
    /// The permission bits.
    pub mode: FileMode,
    /// The text.
    pub content: &'static str,
}

/// Embeds `files/PATH` as the node's `/PATH`.
macro_rules! embed {
    ($path:literal, $mode:expr) => {
        StaticFile {
            path: concat!("/", $path),
            mode: $mode,
            content: include_str!(concat!("../files/", $path)),
        }
    };
    ($path:literal) => {
        embed!($path, FileMode::PUBLIC)
    };
}

/// What every machine gets: the agent's own units and its bootstrap.
pub const COMMON: &[StaticFile] = &[
    embed!("etc/knode/bootstrap.sh", FileMode::EXECUTABLE),
    embed!("etc/systemd/system/knode-bootstrap.service"),
    embed!("etc/systemd/system/knode.service"),
];

/// What machines with pods get besides.
pub const WITH_PODS: &[StaticFile] = &[
    embed!("etc/modules-load.d/knode.conf"),
    embed!("etc/sysctl.d/90-knode.conf"),
    embed!("etc/systemd/network/05-knode-unmanaged.network"),
    embed!("etc/systemd/networkd.conf.d/10-knode.conf"),
];

/// What machines with an API server get besides.
pub const WITH_APISERVER: &[StaticFile] = &[
    embed!("etc/kubernetes/audit-policy.yaml"),
    embed!("etc/kubernetes/authentication.yaml"),
];

/// What masters may keep in the cluster: whole objects, in which kgen replaces
/// values that differ between clusters.
pub mod addons {
    use super::StaticFile;
    use crate::types::FileMode;

    /// CoreDNS, the cluster's DNS.
    pub const COREDNS: StaticFile = embed!("etc/knode/objects/coredns.yaml", FileMode::SECRET);
    /// metrics-server.
    pub const METRICS_SERVER: StaticFile =
        embed!("etc/knode/objects/metrics-server.yaml", FileMode::SECRET);
    /// Headlamp, a dashboard.
    pub const HEADLAMP: StaticFile = embed!("etc/knode/objects/headlamp.yaml", FileMode::SECRET);
}

/// The unit of a service; none where the distribution's own unit runs it.
pub fn unit(service: Service, runtime: RuntimeSource) -> Option<StaticFile> {
    let file = match service {
        Service::Containerd if runtime == RuntimeSource::Distribution => return None,
        Service::Docker => return None,
        Service::Containerd => embed!("etc/systemd/system/containerd.service"),
        Service::Etcd => embed!("etc/systemd/system/etcd.service"),
        Service::KubeApiserver => embed!("etc/systemd/system/kube-apiserver.service"),
        Service::KubeControllerManager => {
            embed!("etc/systemd/system/kube-controller-manager.service")
        }
        Service::KubeScheduler => embed!("etc/systemd/system/kube-scheduler.service"),
        Service::Kubelet => embed!("etc/systemd/system/kubelet.service"),
        Service::KubeProxy => embed!("etc/systemd/system/kube-proxy.service"),
    };
    Some(file)
}

/// The target of a role: enabled and started by the user-data; starting it
/// returns at once.
pub fn target(role: Role) -> StaticFile {
    match role {
        Role::Master => embed!("etc/systemd/system/kubernetes-master.target"),
        Role::Node => embed!("etc/systemd/system/kubernetes-node.target"),
        Role::Etcd => embed!("etc/systemd/system/kubernetes-etcd.target"),
    }
}

/// The unit name of a role's target.
pub fn target_name(role: Role) -> &'static str {
    match role {
        Role::Master => "kubernetes-master.target",
        Role::Node => "kubernetes-node.target",
        Role::Etcd => "kubernetes-etcd.target",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_files_have_no_placeholders() {
        let services = [
            Service::Containerd,
            Service::Etcd,
            Service::KubeApiserver,
            Service::KubeControllerManager,
            Service::KubeScheduler,
            Service::Kubelet,
            Service::KubeProxy,
        ];
        let units = services
            .into_iter()
            .filter_map(|s| unit(s, RuntimeSource::Artifact));
        let all = [COMMON, WITH_PODS, WITH_APISERVER]
            .concat()
            .into_iter()
            .chain(units)
            .chain(Role::ALL.map(target))
            .chain([addons::COREDNS, addons::METRICS_SERVER, addons::HEADLAMP]);
        for file in all {
            assert!(file.content.ends_with('\n'), "{}", file.path);
            assert!(!file.content.contains("{{"), "{}", file.path);
            assert!(!file.content.contains("_ipv4"), "{}", file.path);
        }
    }

    #[test]
    fn targets_are_named_after_roles() {
        for role in Role::ALL {
            assert_eq!(
                target(role).path,
                format!("/etc/systemd/system/{}", target_name(role))
            );
        }
    }
}
