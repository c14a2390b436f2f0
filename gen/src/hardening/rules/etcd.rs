//! Section 2: etcd; section 3.2: the audit policy.

use units::node_config::Service;
use units::paths;

use super::{AUDIT, Rule, flags_set, given, kept_if, master, stands, with_etcd};
use crate::hardening::Verdict::{self, Kept};
use crate::hardening::facts::Facts;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "2.1",
        title: "etcd speaks TLS to clients",
        concerns: with_etcd,
        judge: |f| {
            etcd(
                f,
                &[
                    "client-transport-security.cert-file",
                    "client-transport-security.key-file",
                ],
            )
        },
    },
    Rule {
        id: "2.2",
        title: "and knows them by their certificates",
        concerns: with_etcd,
        judge: |f| {
            stands(
                f,
                paths::ETCD_CONFIG,
                "client-transport-security.client-cert-auth",
                true,
            )
        },
    },
    Rule {
        id: "2.3",
        title: "which it does not make itself",
        concerns: with_etcd,
        judge: |f| not_true(f, "client-transport-security.auto-tls"),
    },
    Rule {
        id: "2.4",
        title: "etcd speaks TLS to its members",
        concerns: with_etcd,
        judge: |f| {
            etcd(
                f,
                &[
                    "peer-transport-security.cert-file",
                    "peer-transport-security.key-file",
                ],
            )
        },
    },
    Rule {
        id: "2.5",
        title: "and knows them by their certificates",
        concerns: with_etcd,
        judge: |f| {
            stands(
                f,
                paths::ETCD_CONFIG,
                "peer-transport-security.client-cert-auth",
                true,
            )
        },
    },
    Rule {
        id: "2.6",
        title: "which it does not make itself",
        concerns: with_etcd,
        judge: |f| not_true(f, "peer-transport-security.auto-tls"),
    },
    Rule {
        id: "2.7",
        title: "etcd has an authority of its own",
        concerns: with_etcd,
        judge: |f| {
            let found = f.at(
                paths::ETCD_CONFIG,
                "client-transport-security.trusted-ca-file",
            );
            kept_if(found.is_string() && *found != paths::CA_CERT, || {
                format!("trusted-ca-file is {found}")
            })
        },
    },
    Rule {
        id: "3.2.1",
        title: "there is an audit policy",
        concerns: master,
        judge: |f| match flags_set(f, Service::KubeApiserver, &["audit-policy-file"]) {
            Kept => given(f, AUDIT, &["rules"]),
            broken => broken,
        },
    },
    Rule {
        id: "3.2.2",
        title: "which covers secrets and leaves nothing out by its last rule",
        concerns: master,
        judge: |f| {
            let rules = f.at(AUDIT, "rules").as_array();
            let last = rules.and_then(|rules| rules.last());
            let level = last.and_then(|rule| rule["level"].as_str());
            kept_if(level.is_some_and(|l| l != "None"), || {
                "the last rule of the audit policy leaves the rest out".to_owned()
            })
        },
    },
];

fn etcd(facts: &Facts, paths: &[&str]) -> Verdict {
    given(facts, paths::ETCD_CONFIG, paths)
}

fn not_true(facts: &Facts, path: &str) -> Verdict {
    let found = facts.at(paths::ETCD_CONFIG, path);
    kept_if(*found != true, || format!("{path} is true"))
}
