//! Sections 1.3 and 1.4: the controller manager and the scheduler.

use units::node_config::Service;

use super::{Rule, flag_is, flags_set, kept_if, master};
use crate::hardening::Verdict::{self};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "1.3.1",
        title: "pods that ended are collected",
        concerns: master,
        judge: |f| {
            let flag = "terminated-pod-gc-threshold";
            flags_set(f, Service::KubeControllerManager, &[flag])
        },
    },
    Rule {
        id: "1.3.2",
        title: "the controller manager is not to be profiled",
        concerns: master,
        judge: |f| flag_is(f, Service::KubeControllerManager, "profiling", "false"),
    },
    Rule {
        id: "1.3.3",
        title: "each controller has an identity of its own",
        concerns: master,
        judge: |f| {
            let flag = "use-service-account-credentials";
            flag_is(f, Service::KubeControllerManager, flag, "true")
        },
    },
    Rule {
        id: "1.3.4",
        title: "tokens are signed with the service accounts' key",
        concerns: master,
        judge: |f| {
            let flag = "service-account-private-key-file";
            flags_set(f, Service::KubeControllerManager, &[flag])
        },
    },
    Rule {
        id: "1.3.5",
        title: "pods know the API server by its authority",
        concerns: master,
        judge: |f| flags_set(f, Service::KubeControllerManager, &["root-ca-file"]),
    },
    Rule {
        id: "1.3.6",
        title: "kubelets' serving certificates can be rotated",
        concerns: master,
        judge: |f| gate(f.flag(Service::KubeControllerManager, "feature-gates")),
    },
    Rule {
        id: "1.3.7",
        title: "the controller manager listens to its own machine",
        concerns: master,
        judge: |f| {
            flag_is(
                f,
                Service::KubeControllerManager,
                "bind-address",
                "127.0.0.1",
            )
        },
    },
    Rule {
        id: "1.4.1",
        title: "the scheduler is not to be profiled",
        concerns: master,
        judge: |f| flag_is(f, Service::KubeScheduler, "profiling", "false"),
    },
    Rule {
        id: "1.4.2",
        title: "the scheduler listens to its own machine",
        concerns: master,
        judge: |f| flag_is(f, Service::KubeScheduler, "bind-address", "127.0.0.1"),
    },
];

/// RotateKubeletServerCertificate is on by itself; it may not be turned off.
fn gate(gates: Option<&str>) -> Verdict {
    let off = gates.is_some_and(|g| g.contains("RotateKubeletServerCertificate=false"));
    kept_if(!off, || "the gate is turned off".to_owned())
}
