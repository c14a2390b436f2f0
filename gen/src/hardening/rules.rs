//! The recommendations, by the benchmark's numbers. Those that only a running
//! cluster can answer (1.1.9, 1.1.10, 3.1.x, section 5) are not here, nor those about
//! owners: every file is root's.

mod apiserver;
mod controllers;
mod etcd;
mod files;
mod node;
mod ours;

use serde_json::Value;
use units::node_config::Service;
use units::paths;

use super::Verdict::{self, Broken, Kept};
use super::facts::Facts;

/// A recommendation.
pub struct Rule {
    pub id: &'static str,
    pub title: &'static str,
    /// Whether it is about a machine like this.
    pub concerns: fn(&Facts) -> bool,
    pub judge: fn(&Facts) -> Verdict,
}

/// All of them, in order.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [
        files::RULES,
        apiserver::RULES,
        controllers::RULES,
        etcd::RULES,
        node::RULES,
        ours::RULES,
    ]
    .into_iter()
    .flatten()
}

const ENCRYPTION: &str = "/etc/kubernetes/encryption.yaml";
const AUTHENTICATION: &str = "/etc/kubernetes/authentication.yaml";
const AUDIT: &str = "/etc/kubernetes/audit-policy.yaml";

fn master(facts: &Facts) -> bool {
    facts.runs(Service::KubeApiserver)
}

fn with_etcd(facts: &Facts) -> bool {
    facts.runs(Service::Etcd)
}

fn with_pods(facts: &Facts) -> bool {
    facts.runs(Service::Kubelet)
}

fn any(_: &Facts) -> bool {
    true
}

fn kept_if(kept: bool, found: impl FnOnce() -> String) -> Verdict {
    if kept { Kept } else { Broken(found()) }
}

fn shown(value: Option<&str>) -> String {
    value.map_or("not set".to_owned(), str::to_owned)
}

/// A flag has to have this value.
fn flag_is(facts: &Facts, service: Service, flag: &str, wanted: &str) -> Verdict {
    let found = facts.flag(service, flag);
    kept_if(found == Some(wanted), || {
        format!("--{flag} is {}", shown(found))
    })
}

/// Flags have to be given.
fn flags_set(facts: &Facts, service: Service, flags: &[&str]) -> Verdict {
    let missing = flags
        .iter()
        .find(|flag| facts.flag(service, flag).is_none_or(str::is_empty));
    match missing {
        None => Kept,
        Some(flag) => Broken(format!("--{flag} is not set")),
    }
}

/// One of a flag's values, which commas separate.
fn lists(facts: &Facts, flag: &str, wanted: &str) -> bool {
    let value = facts.flag(Service::KubeApiserver, flag).unwrap_or_default();
    value.split(',').any(|item| item == wanted)
}

/// An admission plugin has to be on.
fn admits_by(facts: &Facts, plugin: &str) -> Verdict {
    kept_if(lists(facts, "enable-admission-plugins", plugin), || {
        format!("{plugin} is not among --enable-admission-plugins")
    })
}

/// An admission plugin that is on by itself may not be turned off.
fn not_disabled(facts: &Facts, plugin: &str) -> Verdict {
    kept_if(!lists(facts, "disable-admission-plugins", plugin), || {
        format!("{plugin} is among --disable-admission-plugins")
    })
}

/// A number that has to be at least so large.
fn at_least(facts: &Facts, flag: &str, least: u32) -> Verdict {
    let found = facts.flag(Service::KubeApiserver, flag);
    let enough = found.and_then(|f| f.parse::<u32>().ok()) >= Some(least);
    kept_if(enough, || format!("--{flag} is {}", shown(found)))
}

/// A file, where there is one, is not more open than this.
fn no_wider(facts: &Facts, path: &str, mode: u32) -> Verdict {
    let found = facts.mode(path).unwrap_or(0);
    kept_if(found & !mode == 0, || {
        format!("{path} has mode {found:04o}")
    })
}

/// What stands in a file has to be this.
fn stands(facts: &Facts, file: &str, path: &str, wanted: impl Into<Value>) -> Verdict {
    let found = facts.at(file, path);
    kept_if(*found == wanted.into(), || format!("{path} is {found}"))
}

/// Something has to stand in a file.
fn given(facts: &Facts, file: &str, paths: &[&str]) -> Verdict {
    let missing = paths.iter().find(|path| {
        let value = facts.at(file, path);
        value.is_null() || *value == ""
    });
    match missing {
        None => Kept,
        Some(path) => Broken(format!("{path} is not set")),
    }
}

/// Suites with forward secrecy and authenticated encryption alone.
fn strong<'s>(suites: impl Iterator<Item = &'s str>) -> Verdict {
    let mut some = false;
    for suite in suites {
        some = true;
        let forward = suite.starts_with("TLS_ECDHE_") || !suite.contains("_WITH_");
        let sealed = suite.contains("GCM") || suite.contains("POLY1305");
        if !forward || !sealed {
            return Broken(format!("{suite} is allowed"));
        }
    }
    kept_if(some, || "every suite that Go knows is allowed".to_owned())
}

/// A static pod's manifest, where there is one, is for root alone.
fn manifest(facts: &Facts, service: Service) -> Verdict {
    no_wider(
        facts,
        &format!("{}/{service}.yaml", paths::STATIC_PODS),
        0o600,
    )
}
