//! The steps of a machine: one file each, and one line in [`of`].
//!
//! ```text
//! identity ─┬─ etcd ─ apiserver ─┬─ controllers
//!           │                    ├─ objects
//!           └────────────────────┴─ wait ─┬─ peers
//! address ─┬──────────────────────────────┴─ register ─┐
//!          ├─ network ─────────────────────────────────┼─ start ─ ready
//! kernel ──┴─ runtime ─────────────────────────────────┤
//! fetch ───────────────────────────────────────────────┤
//! preflight ───────────────────────────────────────────┴ (ready)
//! ```
//!
//! A step that needs one program waits for that program alone
//! ([`Machine::until_installed`]), not for all that `fetch` brings.

mod address;
mod apiserver;
mod controllers;
mod etcd;
mod fetch;
mod identity;
mod kernel;
mod network;
mod objects;
mod peers;
mod preflight;
mod ready;
mod register;
mod runtime;
mod services;
mod start;
mod wait_api;

use std::sync::Arc;

use crate::graph::Step;
use crate::machine::Machine;
use units::NodeConfig;
use units::node_config::Service;

/// The steps' names, as in the status and in `after`.
mod name {
    pub const ADDRESS: &str = "address";
    pub const APISERVER: &str = "apiserver";
    pub const CONTROLLERS: &str = "controllers";
    pub const ETCD: &str = "etcd";
    pub const FETCH: &str = "fetch";
    pub const IDENTITY: &str = "identity";
    pub const KERNEL: &str = "kernel";
    pub const NETWORK: &str = "network";
    pub const OBJECTS: &str = "objects";
    pub const PEERS: &str = "peers";
    pub const PREFLIGHT: &str = "preflight";
    pub const READY: &str = "ready";
    pub const REGISTER: &str = "register";
    pub const RUNTIME: &str = "runtime";
    pub const START: &str = "start";
    pub const WAIT: &str = "wait";
}

/// The steps of a machine with these services.
pub fn of(config: &NodeConfig) -> Vec<Arc<dyn Step<Machine>>> {
    let runs = |service| config.services.contains(&service);
    let mut steps: Vec<Arc<dyn Step<Machine>>> = vec![
        Arc::new(preflight::Preflight),
        Arc::new(identity::Identity),
        Arc::new(fetch::Fetch::default()),
    ];
    if runs(Service::Etcd) {
        steps.push(Arc::new(etcd::Etcd));
    }
    let apiserver = runs(Service::KubeApiserver);
    if apiserver {
        let after_etcd = runs(Service::Etcd);
        steps.push(Arc::new(apiserver::Apiserver { after_etcd }));
        steps.push(Arc::new(controllers::Controllers));
        steps.push(Arc::new(objects::Objects));
    }
    if runs(Service::Kubelet) {
        steps.push(Arc::new(kernel::Kernel));
        steps.push(Arc::new(address::Address));
        steps.push(Arc::new(runtime::Runtime));
        steps.push(Arc::new(network::Network::default()));
        steps.push(Arc::new(wait_api::Wait {
            after_apiserver: apiserver,
        }));
        steps.push(Arc::new(register::Register));
        steps.push(Arc::new(peers::Peers::default()));
        steps.push(Arc::new(start::Start));
    }
    let after = steps.iter().map(|step| step.name()).collect();
    steps.push(Arc::new(ready::Ready { after }));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;

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
        for services in [
            pods.to_vec(),
            etcd.to_vec(),
            [&pods[..], &control].concat(),
            [&pods[..], &control, &etcd].concat(),
        ] {
            config.services = services;
            let graph = Graph::new(of(&config)).unwrap();
            assert_eq!(graph.names().last(), Some(name::READY));
        }
    }
}
