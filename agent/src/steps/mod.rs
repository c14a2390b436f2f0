//! The steps of a machine: one file each, and one line in [`of`].
//!
//! ```text
//! identity ─┬─ certificates ─ etcd ─ apiserver ─┬─ controllers, objects, approve
//!           │   (masters, etcd)                 │
//!           └───────────────────────────────────┴─ wait ─ bootstrap ─┬─ peers
//! address ─┬─────────────────────────────────────────────(pools)─────┴─ register ─┬─ certificates
//!          ├─ network ────────────────────────────────────────────────────────────┼─ start ─ ready
//! kernel ──┴─ runtime ────────────────────────────────────────────────────────────┤
//! fetch ──────────────────────────────────────────────────────────────────────────┤
//! balancer ─ (wait)
//! hosts, preflight, (identity) removals ──────────────────────────────────────────┴ (ready)
//! address ─ neighbours
//! etcd ─ etcd-upkeep
//! runtime ─ docker
//! ```
//!
//! Where the control plane runs as static pods, the kubelet comes first:
//!
//! ```text
//! certificates, address, runtime ─ kubelet ─ etcd ─ apiserver ─ wait ─ register ─ start ─ ready
//! ```
//!
//! A step that needs one program waits for that program alone
//! ([`Machine::until_installed`]), not for all that `fetch` brings.

mod address;
mod again;
mod apiserver;
mod approve;
mod balancer;
mod bootstrap;
mod certificates;
mod controllers;
mod docker;
pub(crate) mod etcd;
mod etcd_upkeep;
mod fetch;
pub(crate) mod hosts;
mod identity;
mod kernel;
mod kubelet;
mod neighbours;
pub(crate) mod network;
mod objects;
mod peers;
mod preflight;
mod ready;
mod register;
pub(crate) mod removals;
mod runtime;
pub(crate) mod services;
mod start;
mod static_pods;
mod wait_api;

use std::sync::Arc;

use crate::graph::Step;
use crate::machine::Machine;
use units::NodeConfig;
use units::node_config::{Registration, Service};

/// The steps' names, as in the status and in `after`.
pub(crate) mod name {
    pub const ADDRESS: &str = "address";
    pub const APISERVER: &str = "apiserver";
    pub const APPROVE: &str = "approve";
    pub const BALANCER: &str = "balancer";
    pub const BOOTSTRAP: &str = "bootstrap";
    pub const CERTIFICATES: &str = "certificates";
    pub const CONTROLLERS: &str = "controllers";
    pub const DOCKER: &str = "docker";
    pub const ETCD: &str = "etcd";
    pub const ETCD_UPKEEP: &str = "etcd-upkeep";
    pub const FETCH: &str = "fetch";
    pub const HOSTS: &str = "hosts";
    pub const IDENTITY: &str = "identity";
    pub const KERNEL: &str = "kernel";
    pub const KUBELET: &str = "kubelet";
    pub const NEIGHBOURS: &str = "neighbours";
    pub const NETWORK: &str = "network";
    pub const OBJECTS: &str = "objects";
    pub const PEERS: &str = "peers";
    pub const PREFLIGHT: &str = "preflight";
    pub const READY: &str = "ready";
    pub const REGISTER: &str = "register";
    pub const REMOVALS: &str = "removals";
    pub const RUNTIME: &str = "runtime";
    pub const START: &str = "start";
    pub const WAIT: &str = "wait";
}

/// What goes on from the steps of one node.yaml to those of the next.
#[derive(Debug, Clone, Default)]
pub struct Lasting {
    balancer: balancer::Lasting,
}

/// The steps of a machine with these services.
pub fn of(config: &NodeConfig) -> Vec<Arc<dyn Step<Machine>>> {
    lasting(config, &Lasting::default())
}

/// The same after those of another node.yaml, or before them.
pub fn lasting(config: &NodeConfig, lasting: &Lasting) -> Vec<Arc<dyn Step<Machine>>> {
    let in_pods = !config.static_pods.is_empty();
    let runs =
        |service| config.services.contains(&service) || config.static_pods.contains(&service);
    let mut steps: Vec<Arc<dyn Step<Machine>>> = vec![
        Arc::new(preflight::Preflight),
        Arc::new(identity::Identity),
        Arc::new(hosts::Hosts),
        Arc::new(fetch::Fetch::default()),
        Arc::new(removals::Removals::new(lasting.clone())),
    ];
    if let Some(settings) = &config.balancer {
        let running = lasting.balancer.clone();
        steps.push(Arc::new(balancer::Balancer::new(settings.clone(), running)));
    }
    let signs = runs(Service::Etcd) || runs(Service::KubeApiserver);
    steps.push(Arc::new(certificates::Certificates { signs }));
    if runs(Service::Etcd) {
        let in_pod = config.static_pods.contains(&Service::Etcd);
        steps.push(Arc::new(etcd::Etcd { in_pod }));
    }
    let apiserver = runs(Service::KubeApiserver);
    if apiserver {
        steps.push(Arc::new(apiserver::Apiserver {
            after: match (runs(Service::Etcd), in_pods) {
                (true, _) => &[name::CERTIFICATES, name::ETCD],
                (false, true) => &[name::CERTIFICATES, name::KUBELET],
                (false, false) => &[name::CERTIFICATES],
            },
        }));
        steps.push(Arc::new(controllers::Controllers));
        steps.push(Arc::new(objects::Objects::default()));
        steps.push(Arc::new(approve::Approve::default()));
    }
    if runs(Service::Kubelet) {
        steps.push(Arc::new(kernel::Kernel));
        steps.push(Arc::new(address::Address::default()));
        if in_pods {
            steps.push(Arc::new(kubelet::Kubelet));
        }
        steps.push(Arc::new(runtime::Runtime::default()));
        steps.push(Arc::new(network::Network::default()));
        let mut before = vec![name::IDENTITY];
        if apiserver {
            before.push(name::APISERVER);
        }
        if config.balancer.is_some() {
            before.push(name::BALANCER);
        }
        steps.push(Arc::new(wait_api::Wait { after: before }));
        let identified: &[&str] = if config.bootstrap.is_some() {
            steps.push(Arc::new(bootstrap::Bootstrap));
            &[name::BOOTSTRAP, name::ADDRESS]
        } else {
            &[name::WAIT, name::ADDRESS]
        };
        let (register, start): (_, &[&str]) = match config.node.registration {
            Registration::Agent => (
                identified,
                &[name::REGISTER, name::RUNTIME, name::NETWORK, name::FETCH],
            ),
            // The network may need the Node's pod range, so it comes later.
            Registration::Kubelet if config.bootstrap.is_some() => (
                &[name::START],
                &[name::BOOTSTRAP, name::ADDRESS, name::RUNTIME, name::FETCH],
            ),
            Registration::Kubelet => (
                &[name::START],
                &[name::WAIT, name::ADDRESS, name::RUNTIME, name::FETCH],
            ),
        };
        steps.push(Arc::new(register::Register { after: register }));
        steps.push(Arc::new(peers::Peers::new(&identified[..1])));
        steps.push(Arc::new(start::Start { after: start }));
    }
    if let Some(settings) = config
        .neighbours
        .as_ref()
        .filter(|_| runs(Service::Kubelet))
    {
        steps.push(Arc::new(neighbours::Neighbours::new(settings.clone())));
    }
    let after = steps.iter().map(|step| step.name()).collect();
    steps.push(Arc::new(ready::Ready { after }));
    // The machine is ready without these.
    if runs(Service::Etcd) {
        steps.push(Arc::new(etcd_upkeep::EtcdUpkeep));
    }
    if runs(Service::Docker) && runs(Service::Kubelet) {
        steps.push(Arc::new(docker::Docker));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use units::node_config::Bootstrap;

    #[test]
    fn every_set_of_services_is_a_graph() {
        let sample = include_str!("../../../units/testdata/node-v1.yaml");
        let mut config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        let pods = [Service::Containerd, Service::Kubelet, Service::KubeProxy];
        let control = [
            Service::KubeApiserver,
            Service::KubeControllerManager,
            Service::KubeScheduler,
        ];
        let etcd = [Service::Etcd];
        let balancer = units::node_config::Balancer {
            listen: "127.0.0.1:7443".parse().unwrap(),
            servers: vec!["10.0.0.11:6443".to_owned()],
        };
        let token = Bootstrap {
            pool: "workers".to_owned(),
            expires: "2026-12-01T00:00:00Z".to_owned(),
        };
        for services in [
            pods.to_vec(),
            etcd.to_vec(),
            [&pods[..], &control].concat(),
            [&pods[..], &control, &etcd].concat(),
        ] {
            // The same with the control plane in static pods (P36).
            let (inside, outside): (Vec<_>, Vec<_>) = services
                .iter()
                .copied()
                .partition(|s| control.contains(s) || etcd.contains(s));
            let pods_too = services.contains(&Service::Kubelet) && !inside.is_empty();
            let ways = [(services, Vec::new()), (outside, inside)];
            let ways = ways.into_iter().take(if pods_too { 2 } else { 1 });
            for (services, static_pods) in ways {
                config.services = services;
                config.static_pods = static_pods;
                for bootstrap in [None, Some(&token)] {
                    for registration in [Registration::Agent, Registration::Kubelet] {
                        config.bootstrap = bootstrap.cloned();
                        config.node.registration = registration;
                        for balancer in [None, Some(&balancer)] {
                            config.balancer = balancer.cloned();
                            let graph = Graph::new(of(&config)).unwrap();
                            let names: Vec<_> = graph.names().collect();
                            let beside = |n: &&&str| **n != name::ETCD_UPKEEP;
                            assert_eq!(names.iter().rfind(beside), Some(&name::READY));
                            let place = |name| names.iter().position(|n| *n == name);
                            if !config.static_pods.is_empty() {
                                assert!(place(name::KUBELET) < place(name::APISERVER));
                                assert!(place(name::WAIT) < place(name::REGISTER));
                            }
                        }
                    }
                }
            }
        }
    }
}
