//! The other machines with pods, found by watching Nodes (P27).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::name;
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use units::node_config::Peer;
use units::types::{NodeName, Role};

const NODES: &str = "/api/v1/nodes";

pub struct Peers {
    after: &'static [&'static str],
    known: Mutex<Known>,
}

/// The Nodes as of a resource version.
#[derive(Default)]
struct Known {
    version: String,
    peers: BTreeMap<NodeName, Peer>,
}

impl Step<Machine> for Peers {
    fn name(&self) -> &'static str {
        name::PEERS
    }

    fn after(&self) -> &[&'static str] {
        self.after
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let mut peers = BTreeMap::new();
            let api = machine.proxy_api()?;
            let version = api
                .list(NODES, |node| {
                    peers.extend(peer(node).map(|peer| (peer.name.clone(), peer)));
                })
                .await?;
            let count = peers.len();
            let mut known = self.known();
            known.version = version;
            known.peers = peers;
            publish(machine, &known);
            Ok(format!("{count} Nodes with pod ranges"))
        })
    }

    /// Watches until the server ends the watch, then lists anew.
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let version = self.known().version.clone();
            let watch = async {
                let api = machine.proxy_api()?;
                api.watch(NODES, &version, |event| {
                    let mut known = self.known();
                    if apply(&mut known, &event.kind, &event.object) {
                        publish(machine, &known);
                    }
                })
                .await
            };
            if let Err(error) = watch.await {
                tracing::debug!(code = %error.code(), "watching Nodes: {}", error.story());
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        })
    }
}

impl Peers {
    /// A step after those by which the machine has an identity.
    pub fn new(after: &'static [&'static str]) -> Self {
        Self {
            after,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn publish(machine: &Machine, known: &Known) {
    let peers: Vec<Peer> = known.peers.values().cloned().collect();
    machine.peers.send_if_modified(|now| {
        let news = now.as_ref() != Some(&peers);
        *now = Some(peers);
        news
    });
}

/// Whether the event changed what is known.
fn apply(known: &mut Known, kind: &str, object: &Value) -> bool {
    known.version = text(&object["metadata"]["resourceVersion"]);
    let Ok(name) = text(&object["metadata"]["name"]).parse::<NodeName>() else {
        return false;
    };
    match (kind, peer(object)) {
        ("ADDED" | "MODIFIED", Some(peer)) => known.peers.insert(name, peer.clone()) != Some(peer),
        ("ADDED" | "MODIFIED" | "DELETED", _) => known.peers.remove(&name).is_some(),
        _ => false,
    }
}

/// A Node as a peer, once it has addresses and pod ranges.
fn peer(node: &Value) -> Option<Peer> {
    let addresses: Vec<IpAddr> = node["status"]["addresses"]
        .as_array()?
        .iter()
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| address["address"].as_str()?.parse().ok())
        .collect();
    let pod_cidrs: Vec<ipnet::IpNet> = node["spec"]["podCIDRs"]
        .as_array()?
        .iter()
        .filter_map(|net| net.as_str()?.parse().ok())
        .collect();
    let master = node["metadata"]["labels"]
        .get("node-role.kubernetes.io/control-plane")
        .is_some();
    (!addresses.is_empty() && !pod_cidrs.is_empty()).then_some(Peer {
        name: text(&node["metadata"]["name"]).parse().ok()?,
        role: if master { Role::Master } else { Role::Node },
        addresses,
        pod_cidrs,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(address: &str) -> Value {
        json!({
            "metadata": {"name": "n", "resourceVersion": "7"},
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n"},
                {"type": "InternalIP", "address": address},
            ]},
        })
    }

    #[test]
    fn events_change_what_is_known() {
        let mut known = Known::default();
        assert!(apply(&mut known, "ADDED", &node("10.0.0.1")));
        assert!(
            !apply(&mut known, "MODIFIED", &node("10.0.0.1")),
            "a heartbeat is no news"
        );
        assert!(apply(&mut known, "MODIFIED", &node("10.0.0.2")));
        assert!(!apply(
            &mut known,
            "BOOKMARK",
            &json!({"metadata": {"resourceVersion": "9"}})
        ));
        assert_eq!(known.version, "9");
        assert!(apply(&mut known, "DELETED", &node("10.0.0.2")));
        assert!(known.peers.is_empty());
    }
}
