//! Machines that share a document: those of a pool, and named ones that act
//! by their host names.

use std::collections::BTreeMap;
use std::time::Duration;

use units::node_config::OfHost;
use units::types::{NodeName, Role};

use super::{Machine, derive};
use crate::settings::{Pool as Typed, Settings, TOKEN_TTL};

/// What is the same in all documents that are for several machines.
#[derive(Debug, Clone)]
pub struct Shared {
    /// How long their bootstrap token is good.
    pub token_ttl: Duration,
    /// What each is besides, by host name; empty where a machine may have any
    /// name.
    pub hosts: BTreeMap<NodeName, OfHost>,
}

impl Shared {
    /// Where their token is kept in `pki/`, without the ending, by the name of
    /// what they have in common.
    pub fn token(&self, name: &NodeName) -> String {
        let folder = if self.hosts.is_empty() {
            "pools"
        } else {
            "by-hostname"
        };
        format!("{folder}/{name}")
    }
}

/// Every document that is for several machines, `machines` being the named
/// ones.
pub fn shared(s: &Settings, machines: &[Machine]) -> Vec<Machine> {
    let mut shared: Vec<Machine> = s.pools.iter().map(|typed| pool(s, typed)).collect();
    if s.by_hostname() {
        shared.extend(by_hostname(s, machines));
    }
    shared
}

fn pool(s: &Settings, typed: &Typed) -> Machine {
    let layers = [&s.roles.node, &typed.layer];
    Machine {
        name: typed.name.value.clone(),
        role: Role::Node,
        arch: typed.arch,
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        labels: derive::labels(layers),
        taints: derive::taints(layers).unwrap_or_default(),
        kubelet: derive::kubelet(layers),
        registration: derive::registration(layers),
        provider_id: None,
        mac: None,
        shared: Some(Shared {
            token_ttl: typed.token_ttl.unwrap_or_else(|| token_ttl(s)),
            hosts: BTreeMap::new(),
        }),
    }
}

fn token_ttl(s: &Settings) -> Duration {
    s.roles
        .token_ttl
        .as_ref()
        .map_or(TOKEN_TTL, |ttl| ttl.value)
}

/// The document of all machines with the role node, which is called after
/// the role; none without any.
fn by_hostname(s: &Settings, machines: &[Machine]) -> Option<Machine> {
    let nodes: Vec<&Machine> = machines.iter().filter(|m| m.role == Role::Node).collect();
    let first = *nodes.first()?;
    // What all of them are is said once.
    let mut labels = first.labels.clone();
    labels.retain(|key, value| nodes.iter().all(|n| n.labels.get(key) == Some(value)));
    let mut taints = first.taints.clone();
    taints.retain(|taint| nodes.iter().all(|n| n.taints.contains(taint)));
    let of_host = |node: &Machine| OfHost {
        addresses: node.addresses.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
        labels: node
            .labels
            .iter()
            .filter(|(key, _)| !labels.contains_key(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        taints: node
            .taints
            .iter()
            .filter(|taint| !taints.contains(taint))
            .cloned()
            .collect(),
    };
    let hosts = nodes
        .iter()
        .map(|node| (node.name.clone(), of_host(node)))
        .collect();
    Some(Machine {
        // A role's name is a DNS label.
        name: Role::Node.as_str().parse().ok()?,
        role: Role::Node,
        arch: first.arch,
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        labels,
        taints,
        kubelet: first.kubelet.clone(),
        registration: first.registration,
        provider_id: None,
        mac: None,
        shared: Some(Shared {
            token_ttl: token_ttl(s),
            hosts,
        }),
    })
}

impl Machine {
    /// Whether this stands for any number of machines, of any names.
    pub fn is_pool(&self) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|shared| shared.hosts.is_empty())
    }

    /// Whether this is one of the machines of a document by host name.
    pub fn has_host(&self, name: &NodeName) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| shared.hosts.contains_key(name))
    }

    /// Where its token is kept, if machines with this document come by one.
    pub fn token(&self) -> Option<String> {
        self.shared.as_ref().map(|shared| shared.token(&self.name))
    }
}
