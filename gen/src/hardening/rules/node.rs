//! Section 4: kubelet and kube-proxy.

use serde_json::Value;
use units::paths;

use super::{Rule, given, kept_if, no_wider, stands, strong, with_pods};
use crate::hardening::Verdict::{Kept, Otherwise};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "4.1.1",
        title: "the kubelet's unit is for root alone",
        concerns: with_pods,
        judge: |_| {
            Otherwise(
                "there are no secrets in it, systemd shows units to everybody, and warns of one \
                 that not everybody may read",
            )
        },
    },
    Rule {
        id: "4.1.3",
        title: "kube-proxy's kubeconfig is for root alone",
        concerns: with_pods,
        judge: |f| no_wider(f, paths::KUBE_PROXY_KUBECONFIG, 0o600),
    },
    Rule {
        id: "4.1.5",
        title: "the kubelet's kubeconfig is for root alone",
        concerns: with_pods,
        judge: |f| no_wider(f, paths::KUBELET_KUBECONFIG, 0o600),
    },
    Rule {
        id: "4.1.7",
        title: "authorities are written by root alone",
        concerns: with_pods,
        judge: |f| no_wider(f, paths::CA_CERT, 0o644),
    },
    Rule {
        id: "4.1.9",
        title: "the kubelet's configuration is for root alone",
        concerns: with_pods,
        judge: |f| no_wider(f, paths::KUBELET_CONFIG, 0o600),
    },
    Rule {
        id: "4.2.1",
        title: "the kubelet answers nobody without an identity",
        concerns: with_pods,
        judge: |f| stands(f, KUBELET, "authentication.anonymous.enabled", false),
    },
    Rule {
        id: "4.2.2",
        title: "and asks the API server who may",
        concerns: with_pods,
        judge: |f| stands(f, KUBELET, "authorization.mode", "Webhook"),
    },
    Rule {
        id: "4.2.3",
        title: "and knows clients by their certificates",
        concerns: with_pods,
        judge: |f| given(f, KUBELET, &["authentication.x509.clientCAFile"]),
    },
    Rule {
        id: "4.2.4",
        title: "and has no port without identity",
        concerns: with_pods,
        judge: |f| stands(f, KUBELET, "readOnlyPort", 0),
    },
    Rule {
        id: "4.2.5",
        title: "idle streams end",
        concerns: with_pods,
        judge: |f| {
            let found = f.at(KUBELET, "streamingConnectionIdleTimeout");
            kept_if(!matches!(found.as_str(), Some("0" | "0s")), || {
                "streamingConnectionIdleTimeout is 0".to_owned()
            })
        },
    },
    Rule {
        id: "4.2.6",
        title: "the kubelet keeps its own firewall rules",
        concerns: with_pods,
        judge: |f| {
            let found = f.at(KUBELET, "makeIPTablesUtilChains");
            kept_if(*found != false, || {
                "makeIPTablesUtilChains is false".to_owned()
            })
        },
    },
    Rule {
        id: "4.2.7",
        title: "the Node is called by the host name",
        concerns: with_pods,
        judge: |_| {
            Otherwise(
                "knode hands the kubelet the very name that stands in its certificate, so that a \
                 machine renamed by its cloud does not become another Node",
            )
        },
    },
    Rule {
        id: "4.2.8",
        title: "events are not swallowed",
        concerns: with_pods,
        judge: |f| {
            let found = f.at(KUBELET, "eventRecordQPS");
            kept_if(found.is_null() || found.as_i64() >= Some(5), || {
                format!("eventRecordQPS is {found}")
            })
        },
    },
    Rule {
        id: "4.2.9",
        title: "the kubelet serves with a certificate of the cluster",
        concerns: with_pods,
        judge: |f| match stands(f, KUBELET, "serverTLSBootstrap", true) {
            Kept => Kept,
            _ => given(f, KUBELET, &["tlsCertFile", "tlsPrivateKeyFile"]),
        },
    },
    Rule {
        id: "4.2.10",
        title: "the kubelet's client certificate rotates",
        concerns: with_pods,
        judge: |f| stands(f, KUBELET, "rotateCertificates", true),
    },
    Rule {
        id: "4.2.11",
        title: "its serving certificate may rotate too",
        concerns: with_pods,
        judge: |f| {
            let found = f.at(KUBELET, "featureGates.RotateKubeletServerCertificate");
            kept_if(*found != false, || "the gate is turned off".to_owned())
        },
    },
    Rule {
        id: "4.2.12",
        title: "the kubelet's ciphers are strong",
        concerns: with_pods,
        judge: |f| {
            let suites = f.at(KUBELET, "tlsCipherSuites").as_array();
            strong(suites.into_iter().flatten().filter_map(Value::as_str))
        },
    },
    Rule {
        id: "4.2.13",
        title: "a pod's processes are limited",
        concerns: with_pods,
        judge: |f| {
            let found = f.at(KUBELET, "podPidsLimit");
            kept_if(found.as_i64() > Some(0), || {
                format!("podPidsLimit is {found}")
            })
        },
    },
    Rule {
        id: "4.2.14",
        title: "pods have seccomp's default profile",
        concerns: with_pods,
        judge: |f| stands(f, KUBELET, "seccompDefault", true),
    },
    Rule {
        id: "4.3.1",
        title: "kube-proxy tells its metrics to its own machine",
        concerns: with_pods,
        judge: |f| {
            let found = f.at(paths::KUBE_PROXY_CONFIG, "metricsBindAddress");
            let local = found
                .as_str()
                .is_none_or(|a| a.starts_with("127.") || a.starts_with("[::1]"));
            kept_if(local, || format!("metricsBindAddress is {found}"))
        },
    },
];

const KUBELET: &str = paths::KUBELET_CONFIG;
