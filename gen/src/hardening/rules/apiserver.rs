//! Section 1.2: the API server.

use units::node_config::Service;

use super::{
    AUTHENTICATION, ENCRYPTION, Rule, admits_by, at_least, flag_is, flags_set, kept_if, lists,
    master, not_disabled, strong,
};
use crate::hardening::Verdict::{self, Broken, Kept, Otherwise};
use crate::hardening::facts::Facts;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "1.2.1",
        title: "requests without an identity reach health checks at most",
        concerns: master,
        judge: anonymous,
    },
    Rule {
        id: "1.2.2",
        title: "no tokens in a file",
        concerns: master,
        judge: |f| {
            let found = f.flag(Service::KubeApiserver, "token-auth-file");
            kept_if(found.is_none(), || "--token-auth-file is set".to_owned())
        },
    },
    Rule {
        id: "1.2.3",
        title: "nobody claims addresses by externalIPs",
        concerns: master,
        judge: |f| admits_by(f, "DenyServiceExternalIPs"),
    },
    Rule {
        id: "1.2.4",
        title: "kubelets know the API server by its certificate",
        concerns: master,
        judge: |f| {
            let flags = ["kubelet-client-certificate", "kubelet-client-key"];
            flags_set(f, Service::KubeApiserver, &flags)
        },
    },
    Rule {
        id: "1.2.5",
        title: "the API server knows kubelets by theirs",
        concerns: master,
        judge: |f| {
            flags_set(
                f,
                Service::KubeApiserver,
                &["kubelet-certificate-authority"],
            )
        },
    },
    Rule {
        id: "1.2.6",
        title: "not everything is allowed",
        concerns: master,
        judge: |f| {
            let open = lists(f, "authorization-mode", "AlwaysAllow");
            let some = flags_set(f, Service::KubeApiserver, &["authorization-mode"]);
            if open {
                Broken("AlwaysAllow is among --authorization-mode".to_owned())
            } else {
                some
            }
        },
    },
    Rule {
        id: "1.2.7",
        title: "kubelets reach what is theirs (Node)",
        concerns: master,
        judge: |f| authorizes_by(f, "Node"),
    },
    Rule {
        id: "1.2.8",
        title: "rights come from roles (RBAC)",
        concerns: master,
        judge: |f| authorizes_by(f, "RBAC"),
    },
    Rule {
        id: "1.2.9",
        title: "events are limited (EventRateLimit)",
        concerns: master,
        judge: |f| match admits_by(f, "EventRateLimit") {
            Kept => Kept,
            _ => Otherwise(
                "API priority and fairness limits every kind of request; the plugin is alpha \
                 since 2016",
            ),
        },
    },
    Rule {
        id: "1.2.10",
        title: "not everything is admitted",
        concerns: master,
        judge: |f| {
            kept_if(!lists(f, "enable-admission-plugins", "AlwaysAdmit"), || {
                "AlwaysAdmit is among --enable-admission-plugins".to_owned()
            })
        },
    },
    Rule {
        id: "1.2.11",
        title: "images are pulled each time (AlwaysPullImages)",
        concerns: master,
        judge: |f| match admits_by(f, "AlwaysPullImages") {
            Kept => Kept,
            _ => Otherwise(
                "a registry that is away would stop every pod; since 1.35 kubelets check a pod's \
                 right to an image that is there (KubeletEnsureSecretPulledImages)",
            ),
        },
    },
    Rule {
        id: "1.2.12",
        title: "service accounts are admitted as such",
        concerns: master,
        judge: |f| not_disabled(f, "ServiceAccount"),
    },
    Rule {
        id: "1.2.13",
        title: "nothing is made in namespaces that go",
        concerns: master,
        judge: |f| not_disabled(f, "NamespaceLifecycle"),
    },
    Rule {
        id: "1.2.14",
        title: "kubelets change their own Node alone (NodeRestriction)",
        concerns: master,
        judge: |f| admits_by(f, "NodeRestriction"),
    },
    Rule {
        id: "1.2.15",
        title: "the API server is not to be profiled",
        concerns: master,
        judge: |f| flag_is(f, Service::KubeApiserver, "profiling", "false"),
    },
    Rule {
        id: "1.2.16",
        title: "who did what is written down",
        concerns: master,
        judge: |f| flags_set(f, Service::KubeApiserver, &["audit-log-path"]),
    },
    Rule {
        id: "1.2.17",
        title: "and kept for 30 days",
        concerns: master,
        judge: |f| at_least(f, "audit-log-maxage", 30),
    },
    Rule {
        id: "1.2.18",
        title: "in 10 files",
        concerns: master,
        judge: |f| at_least(f, "audit-log-maxbackup", 10),
    },
    Rule {
        id: "1.2.19",
        title: "of 100 MB",
        concerns: master,
        judge: |f| at_least(f, "audit-log-maxsize", 100),
    },
    Rule {
        id: "1.2.20",
        title: "requests end in time",
        concerns: master,
        // A minute is its own default.
        judge: |f| {
            let found = f.flag(Service::KubeApiserver, "request-timeout");
            kept_if(found.is_none_or(|t| t != "0" && t != "0s"), || {
                "--request-timeout is 0".to_owned()
            })
        },
    },
    Rule {
        id: "1.2.21",
        title: "tokens of deleted service accounts are refused",
        concerns: master,
        judge: |f| {
            let found = f.flag(Service::KubeApiserver, "service-account-lookup");
            kept_if(found.is_none_or(|v| v == "true"), || {
                "--service-account-lookup is false".to_owned()
            })
        },
    },
    Rule {
        id: "1.2.22",
        title: "service accounts have a key of their own",
        concerns: master,
        judge: |f| {
            let key = f.flag(Service::KubeApiserver, "service-account-key-file");
            let tls = f.flag(Service::KubeApiserver, "tls-private-key-file");
            kept_if(key.is_some() && key != tls, || {
                "--service-account-key-file is missing or the server's own key".to_owned()
            })
        },
    },
    Rule {
        id: "1.2.23",
        title: "etcd knows the API server by its certificate",
        concerns: master,
        judge: |f| {
            flags_set(
                f,
                Service::KubeApiserver,
                &["etcd-certfile", "etcd-keyfile"],
            )
        },
    },
    Rule {
        id: "1.2.24",
        title: "the API server speaks TLS",
        concerns: master,
        judge: |f| {
            let flags = ["tls-cert-file", "tls-private-key-file"];
            flags_set(f, Service::KubeApiserver, &flags)
        },
    },
    Rule {
        id: "1.2.25",
        title: "clients are known by their certificates",
        concerns: master,
        judge: |f| flags_set(f, Service::KubeApiserver, &["client-ca-file"]),
    },
    Rule {
        id: "1.2.26",
        title: "the API server knows etcd by its certificate",
        concerns: master,
        judge: |f| flags_set(f, Service::KubeApiserver, &["etcd-cafile"]),
    },
    Rule {
        id: "1.2.27",
        title: "secrets are encrypted at rest",
        concerns: master,
        judge: |f| flags_set(f, Service::KubeApiserver, &["encryption-provider-config"]),
    },
    Rule {
        id: "1.2.28",
        title: "with a cipher that holds",
        concerns: master,
        judge: |f| {
            let first = &f.at(ENCRYPTION, "resources")[0]["providers"][0];
            let holds = ["secretbox", "aesgcm", "aescbc", "kms"];
            kept_if(holds.iter().any(|c| !first[*c].is_null()), || {
                "what is written first is not encrypted".to_owned()
            })
        },
    },
    Rule {
        id: "1.2.29",
        title: "the API server's ciphers are strong",
        concerns: master,
        judge: |f| {
            let suites = f.flag(Service::KubeApiserver, "tls-cipher-suites");
            strong(
                suites
                    .unwrap_or_default()
                    .split(',')
                    .filter(|s| !s.is_empty()),
            )
        },
    },
    Rule {
        id: "1.2.30",
        title: "tokens of service accounts do not live longer than asked for",
        concerns: master,
        judge: |f| {
            let flag = "service-account-extend-token-expiration";
            flag_is(f, Service::KubeApiserver, flag, "false")
        },
    },
];

fn authorizes_by(facts: &Facts, mode: &str) -> Verdict {
    kept_if(lists(facts, "authorization-mode", mode), || {
        format!("{mode} is not among --authorization-mode")
    })
}

/// Either nobody without identity is answered, or only on paths of health.
fn anonymous(facts: &Facts) -> Verdict {
    if facts.flag(Service::KubeApiserver, "anonymous-auth") == Some("false") {
        return Kept;
    }
    let config = facts.flag(Service::KubeApiserver, "authentication-config");
    let conditions = facts.at(AUTHENTICATION, "anonymous.conditions");
    let conditions = conditions.as_array().map_or(&[][..], Vec::as_slice);
    let health = conditions
        .iter()
        .all(|c| matches!(c["path"].as_str(), Some("/livez" | "/readyz" | "/healthz")));
    kept_if(
        config == Some(AUTHENTICATION) && !conditions.is_empty() && health,
        || "anonymous requests are not limited to health checks".to_owned(),
    )
}
