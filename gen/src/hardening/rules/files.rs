//! Section 1.1: who may read what the control plane runs from.

use units::node_config::Service;
use units::paths;

use super::{Rule, any, kept_if, manifest, master, no_wider, stands, with_etcd};
use crate::hardening::Verdict::{self, Broken, Kept, Otherwise};
use crate::hardening::facts::Facts;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "1.1.1",
        title: "the API server's manifest is for root alone",
        concerns: |f| f.in_pod(Service::KubeApiserver),
        judge: |f| manifest(f, Service::KubeApiserver),
    },
    Rule {
        id: "1.1.3",
        title: "the controller manager's manifest is for root alone",
        concerns: |f| f.in_pod(Service::KubeControllerManager),
        judge: |f| manifest(f, Service::KubeControllerManager),
    },
    Rule {
        id: "1.1.5",
        title: "the scheduler's manifest is for root alone",
        concerns: |f| f.in_pod(Service::KubeScheduler),
        judge: |f| manifest(f, Service::KubeScheduler),
    },
    Rule {
        id: "1.1.7",
        title: "etcd's manifest is for root alone",
        concerns: |f| f.in_pod(Service::Etcd),
        judge: |f| manifest(f, Service::Etcd),
    },
    Rule {
        id: "1.1.11",
        title: "etcd's data are for their owner alone",
        concerns: with_etcd,
        judge: |f| {
            if f.in_pod(Service::Etcd) {
                // knode makes this folder, and the kubelet any other.
                return stands(f, paths::ETCD_CONFIG, "data-dir", paths::ETCD_DATA);
            }
            let unit = "/etc/systemd/system/etcd.service";
            let line = "StateDirectoryMode=0700";
            kept_if(f.says(unit, line), || format!("{line} is not in {unit}"))
        },
    },
    Rule {
        id: "1.1.12",
        title: "etcd's data belong to a user of its own",
        concerns: with_etcd,
        judge: |_| {
            Otherwise(
                "etcd runs as root in its own unit: images without package manager have no user \
                 for it, and who is root on a member reads its keys anyway",
            )
        },
    },
    Rule {
        id: "1.1.15",
        title: "the scheduler's kubeconfig is for root alone",
        concerns: master,
        judge: |f| no_wider(f, "/etc/kubernetes/scheduler.conf", 0o600),
    },
    Rule {
        id: "1.1.17",
        title: "the controller manager's kubeconfig is for root alone",
        concerns: master,
        judge: |f| no_wider(f, "/etc/kubernetes/controller-manager.conf", 0o600),
    },
    Rule {
        id: "1.1.20",
        title: "certificates are written by root alone",
        concerns: any,
        judge: |f| widest(f, ".crt", 0o644),
    },
    Rule {
        id: "1.1.21",
        title: "keys are for root alone",
        concerns: any,
        judge: |f| widest(f, ".key", 0o600),
    },
];

/// No file below the PKI's folder with this ending is more open than `mode`.
fn widest(facts: &Facts, ending: &str, mode: u32) -> Verdict {
    let mut files = facts.files();
    let open = files.find(|(path, found, _)| {
        path.starts_with(paths::PKI) && path.ends_with(ending) && found & !mode != 0
    });
    match open {
        None => Kept,
        Some((path, found, _)) => Broken(format!("{path} has mode {found:04o}")),
    }
}
