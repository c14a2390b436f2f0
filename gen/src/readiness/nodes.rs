//! The machines, as their Nodes tell.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Phase::{Daemons, Network, Nodes};
use super::{Criterion, Seen, items, name};
use crate::cluster::{Cluster, Machine};

/// knode's own condition of a Node.
const KNODE: &str = "KnodeHealthy";

pub fn judge(cluster: &Cluster, least: Option<usize>, seen: &Seen) -> Vec<Criterion> {
    let there: BTreeMap<&str, &Value> = items(&seen.nodes).map(|node| (name(node), node)).collect();
    let known: BTreeMap<&str, &Machine> = cluster
        .machines
        .iter()
        .filter(|machine| machine.role.runs_kubelet())
        .map(|machine| (machine.name.as_str(), machine))
        .collect();
    let mut all = Vec::new();
    let names: BTreeSet<&str> = known.keys().chain(there.keys()).copied().collect();
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for name in names {
        let Some(node) = there.get(name) else {
            all.push(Criterion::unmet(Nodes, name, "is not registered"));
            continue;
        };
        all.push(is_ready(name, node));
        let known = known.get(name).copied();
        all.push(has_network(name, node, known, &mut taken));
        all.push(is_healthy(cluster, name, node));
    }
    if let Some(least) = least {
        let found = format!("{} of {least}", there.len());
        all.push(if there.len() < least {
            Criterion::unmet(Nodes, "all", found)
        } else {
            Criterion::met(Nodes, "all", found)
        });
    }
    all
}

fn condition<'n>(node: &'n Value, kind: &str) -> Option<&'n Value> {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind)
}

/// What a condition says that is not as it should be.
fn complaint(condition: &Value) -> String {
    let text = |key: &str| condition[key].as_str().unwrap_or_default();
    format!("{}: {}", text("reason"), text("message"))
}

fn is_ready(name: &str, node: &Value) -> Criterion {
    match condition(node, "Ready") {
        Some(ready) if ready["status"] == "True" => Criterion::met(Nodes, name, "Ready"),
        Some(ready) => Criterion::unmet(Nodes, name, complaint(ready)),
        None => Criterion::unmet(Nodes, name, "its kubelet has told nothing yet"),
    }
}

fn has_network<'n>(
    name: &'n str,
    node: &'n Value,
    known: Option<&Machine>,
    taken: &mut BTreeMap<&'n str, &'n str>,
) -> Criterion {
    let ranges = node["spec"]["podCIDRs"].as_array();
    let ranges: Vec<&str> = ranges
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if ranges.is_empty() {
        return Criterion::unmet(Network, name, "has no range for pods");
    }
    let found = ranges.join(", ");
    for range in ranges {
        if let Some(other) = taken.insert(range, name) {
            return Criterion::unmet(Network, name, format!("{range} is {other}'s too"));
        }
    }
    let wanted = known.map(|machine| machine.pod_cidrs.iter().map(ToString::to_string));
    let wanted = wanted.map(|ranges| ranges.collect::<Vec<_>>().join(", "));
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty() && *wanted != found) {
        let found = format!("its pods have {found}, by the settings {wanted}");
        return Criterion::unmet(Network, name, found);
    }
    match condition(node, "NetworkUnavailable") {
        Some(away) if away["status"] == "True" => Criterion::unmet(Network, name, complaint(away)),
        _ => Criterion::met(Network, name, found),
    }
}

fn is_healthy(cluster: &Cluster, name: &str, node: &Value) -> Criterion {
    let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str();
    let version = version.unwrap_or("an unknown version");
    let wanted = format!("v{}", cluster.version);
    match condition(node, KNODE) {
        None => Criterion::unmet(Daemons, name, "its knode has told nothing yet"),
        Some(healthy) if healthy["status"] != "True" => {
            Criterion::unmet(Daemons, name, complaint(healthy))
        }
        // A version may have a build's name behind it: v1.36.2+k1.
        Some(_) if version.split('+').next() != Some(&wanted) => {
            let found = format!("its kubelet is {version}, by the settings {wanted}");
            Criterion::unmet(Daemons, name, found)
        }
        Some(_) => Criterion::met(Daemons, name, version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;
    use crate::settings;
    use serde_json::json;
    use time::macros::datetime;

    const SETTINGS: &str = "kubernetesVersion: 1.36.2\nnodes:\n\
        - {name: master, role: master, address: 10.0.0.1}\n\
        - {name: node-1, role: node, address: 10.0.0.2}\n\
        - {name: etcd-1, role: etcd, address: 10.0.0.3}\n";

    fn node(name: &str, range: &str, ready: &str, healthy: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {"podCIDRs": [range]},
            "status": {
                "nodeInfo": {"kubeletVersion": "v1.36.2"},
                "conditions": [
                    {"type": "Ready", "status": ready, "reason": "KubeletNotReady",
                     "message": "network plugin is not ready"},
                    {"type": "KnodeHealthy", "status": healthy, "reason": "E-DISK",
                     "message": "fetch: no room"},
                ],
            },
        })
    }

    fn unmet(nodes: &[Value], least: Option<usize>) -> Vec<String> {
        let source = Source::new("cluster.yaml", SETTINGS);
        let cluster = Cluster::new(&settings::load(&source).unwrap());
        let seen = Seen {
            health: String::new(),
            leases: json!({}),
            requests: json!({}),
            deployments: json!({}),
            daemon_sets: json!({}),
            nodes: json!({"items": nodes}),
            now: datetime!(2026-11-21 12:00:00 UTC),
        };
        let judged = judge(&cluster, least, &seen).into_iter();
        judged
            .filter(|c| !c.met)
            .map(|c| format!("{} {}: {}", c.phase, c.subject, c.found))
            .collect()
    }

    #[test]
    fn every_machine_with_a_kubelet_has_to_be_there() {
        let master = node("master", "10.244.0.0/24", "True", "True");
        let there = [
            master.clone(),
            node("node-1", "10.244.1.0/24", "True", "True"),
        ];
        assert_eq!(unmet(&there, None), [""; 0]);
        assert_eq!(unmet(&[master], None), ["nodes node-1: is not registered"]);
        // Those of pools are not known by name.
        assert_eq!(unmet(&there, Some(3)), ["nodes all: 2 of 3"]);
        let pooled = node("pool-7", "10.244.9.0/24", "True", "True");
        let there = [&there[..], &[pooled]].concat();
        assert_eq!(unmet(&there, Some(3)), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_told_in_its_phase() {
        let mut other = node("node-1", "10.244.7.0/24", "False", "False");
        let master = node("master", "10.244.0.0/24", "True", "True");
        let found = unmet(&[master.clone(), other.clone()], None);
        let expected = [
            "nodes node-1: KubeletNotReady: network plugin is not ready",
            "network node-1: its pods have 10.244.7.0/24, by the settings 10.244.1.0/24",
            "daemons node-1: E-DISK: fetch: no room",
        ];
        assert_eq!(found, expected);
        other["spec"] = json!({});
        other["status"] = json!({});
        let found = unmet(&[master.clone(), other], None);
        let expected = [
            "nodes node-1: its kubelet has told nothing yet",
            "network node-1: has no range for pods",
            "daemons node-1: its knode has told nothing yet",
        ];
        assert_eq!(found, expected);
        let mut twin = node("node-1", "10.244.0.0/24", "True", "True");
        twin["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.35.9");
        let expected = [
            "network node-1: 10.244.0.0/24 is master's too",
            "daemons node-1: its kubelet is v1.35.9, by the settings v1.36.2",
        ];
        assert_eq!(unmet(&[master, twin], None), expected);
    }
}
