//! May this kubelet have this certificate? Pure.
//!
//! What a Node says of its own addresses is its kubelet's word, so it is
//! believed only as far as nobody else has them: a kubelet must not get a
//! certificate for the API server, a service or another machine.
//! Source: Kubernetes documentation, "kubernetes.io/kubelet-serving".

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::machine::Machine;
use crate::sys::pki::Asked;

/// What is known of the cluster's machines.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// The addresses that Nodes say they have.
    nodes: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The addresses of the settings, of machines that have some there.
    named: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Ranges and addresses that are no machine's.
    foreign: Vec<IpNet>,
}

impl Knowledge {
    /// From the settings and the list of Nodes.
    pub fn new(machine: &Machine, nodes: BTreeMap<String, BTreeSet<IpAddr>>) -> Self {
        let config = &machine.config;
        let peers = config.network.iter().flat_map(|network| &network.peers);
        let named = peers
            .map(|peer| (peer.name.to_string(), &peer.addresses))
            .chain([(machine.name.to_string(), &config.node.addresses)])
            .filter(|(_, addresses)| !addresses.is_empty())
            .map(|(name, addresses)| (name, addresses.iter().copied().collect()))
            .collect();
        let cluster = &config.cluster;
        let ranges = cluster.service_cidrs.iter().chain(&cluster.pod_cidrs);
        Self {
            nodes,
            named,
            foreign: ranges.copied().collect(),
        }
    }

    /// Why the Node may not have this address.
    fn objection(&self, node: &str, address: IpAddr) -> Option<String> {
        let is_of = |machines: &BTreeMap<String, BTreeSet<IpAddr>>, who: &str| {
            machines.get(who).is_some_and(|all| all.contains(&address))
        };
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Some(format!("{address} is no machine's"));
        }
        if let Some(range) = self.foreign.iter().find(|range| range.contains(&address)) {
            return Some(format!("{address} is in {range}"));
        }
        if let Some(own) = self.named.get(node) {
            // What the settings say is all that there is.
            return (!own.contains(&address))
                .then(|| format!("{address} is not an address of {node} in the settings"));
        }
        let others = self.named.keys().chain(self.nodes.keys());
        let owner = others
            .filter(|other| *other != node)
            .find(|other| is_of(&self.named, other) || is_of(&self.nodes, other));
        if let Some(owner) = owner {
            return Some(format!("{address} is {owner}'s"));
        }
        (!is_of(&self.nodes, node)).then(|| format!("the Node {node} does not have {address}"))
    }
}

/// A Node's name and its addresses.
pub fn addresses(node: &Value) -> Option<(String, BTreeSet<IpAddr>)> {
    let name = node["metadata"]["name"].as_str()?.to_owned();
    let addresses = node["status"]["addresses"].as_array();
    let addresses = addresses
        .into_iter()
        .flatten()
        .filter(|a| a["type"] == "InternalIP" || a["type"] == "ExternalIP")
        .filter_map(|a| a["address"].as_str()?.parse().ok())
        .collect();
    Some((name, addresses))
}

/// The Node whose kubelet may have the certificate.
///
/// # Errors
///
/// Why an administrator has to decide instead.
pub fn judge(spec: &Value, asked: &Asked, knowledge: &Knowledge) -> Result<String, String> {
    let user = spec["username"].as_str().unwrap_or_default();
    let node = user
        .strip_prefix("system:node:")
        .ok_or_else(|| format!("{user:?} is no kubelet"))?;
    let texts = |field: &str| -> BTreeSet<&str> {
        let list = spec[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).collect()
    };
    if !texts("groups").contains("system:nodes") {
        return Err(format!("{user} is not in the group system:nodes"));
    }
    let request = &asked.request;
    if request.common_name != user {
        return Err(format!("{user} asks for {:?}", request.common_name));
    }
    if request.organizations != ["system:nodes"] {
        return Err(format!("it is for the groups {:?}", request.organizations));
    }
    if !asked.besides.is_empty() {
        return Err(format!("it asks for {}", asked.besides.join(", ")));
    }
    let usages = texts("usages");
    let allowed = ["digital signature", "key encipherment", "server auth"];
    if let Some(usage) = usages.iter().find(|usage| !allowed.contains(usage)) {
        return Err(format!("it is for {usage:?}"));
    }
    if !usages.contains("server auth") {
        return Err("it is not for a server".to_owned());
    }
    if !knowledge.nodes.contains_key(node) {
        return Err(format!("there is no Node {node}"));
    }
    if request.dns.is_empty() && request.addresses.is_empty() {
        return Err("it names neither a host nor an address".to_owned());
    }
    if let Some(name) = request.dns.iter().find(|name| *name != node) {
        return Err(format!("the name {name:?} is not {node}'s"));
    }
    let objection = |address: &IpAddr| knowledge.objection(node, *address);
    match request.addresses.iter().find_map(objection) {
        Some(objection) => Err(objection),
        None => Ok(node.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pki::Request;
    use serde_json::json;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn knowledge() -> Knowledge {
        let node = |name: &str, address: &str| {
            json!({
                "metadata": {"name": name},
                "status": {"addresses": [
                    {"type": "InternalIP", "address": address},
                    {"type": "Hostname", "address": name},
                ]},
            })
        };
        let nodes = [
            node("master", "10.0.0.1"),
            node("pooled", "10.0.0.20"),
            node("thief", "10.0.0.1"),
            node("copy", "10.0.0.20"),
        ];
        Knowledge {
            nodes: nodes.iter().filter_map(addresses).collect(),
            named: BTreeMap::from([
                ("master".to_owned(), BTreeSet::from([ip("10.0.0.1")])),
                ("later".to_owned(), BTreeSet::from([ip("10.0.0.2")])),
            ]),
            foreign: vec!["10.96.0.0/12".parse().unwrap()],
        }
    }

    fn spec(node: &str) -> Value {
        json!({
            "username": format!("system:node:{node}"),
            "groups": ["system:nodes", "system:authenticated"],
            "usages": ["digital signature", "server auth"],
        })
    }

    fn asked(node: &str, addresses: &[&str]) -> Asked {
        Asked {
            request: Request {
                common_name: format!("system:node:{node}"),
                organizations: vec!["system:nodes".to_owned()],
                dns: vec![node.to_owned()],
                addresses: addresses.iter().map(|a| ip(a)).collect(),
            },
            besides: Vec::new(),
        }
    }

    fn refused(spec: &Value, asked: &Asked, why: &str) {
        let reason = judge(spec, asked, &knowledge()).unwrap_err();
        assert!(reason.contains(why), "{reason}, not {why}");
    }

    #[test]
    fn a_kubelet_gets_what_is_its_own() {
        for (node, address) in [("pooled", "10.0.0.20"), ("master", "10.0.0.1")] {
            let mut knowledge = knowledge();
            knowledge.nodes.remove("copy");
            let verdict = judge(&spec(node), &asked(node, &[address]), &knowledge);
            assert_eq!(verdict.as_deref(), Ok(node));
        }
    }

    #[test]
    fn who_asks_must_be_the_kubelet() {
        let with = |field: &str, value: Value| {
            let mut spec = spec("pooled");
            spec[field] = value;
            spec
        };
        let own = asked("pooled", &["10.0.0.20"]);
        refused(&with("username", json!("alice")), &own, "no kubelet");
        refused(
            &with("username", json!("system:node:master")),
            &own,
            "asks for",
        );
        refused(
            &with("groups", json!(["system:masters"])),
            &own,
            "system:nodes",
        );
        refused(
            &with("usages", json!(["client auth", "server auth"])),
            &own,
            "client auth",
        );
        refused(
            &with("usages", json!(["digital signature"])),
            &own,
            "not for a server",
        );
        refused(
            &spec("nobody"),
            &asked("nobody", &["10.0.0.20"]),
            "no Node nobody",
        );
    }

    #[test]
    fn what_is_asked_for_must_be_its_own() {
        let change = |change: fn(&mut Asked)| {
            let mut asked = asked("pooled", &["10.0.0.20"]);
            change(&mut asked);
            asked
        };
        let spec = spec("pooled");
        refused(
            &spec,
            &change(|a| a.request.dns.push("kubernetes".to_owned())),
            "kubernetes",
        );
        refused(
            &spec,
            &change(|a| a.request.common_name.clear()),
            "asks for",
        );
        refused(
            &spec,
            &change(|a| a.request.organizations.push("system:masters".to_owned())),
            "system:masters",
        );
        refused(
            &spec,
            &change(|a| a.besides.push("the name URI".to_owned())),
            "URI",
        );
        refused(
            &spec,
            &change(|a| {
                a.request.dns.clear();
                a.request.addresses.clear();
            }),
            "neither",
        );
    }

    /// A kubelet writes its own Node's addresses: they are not proof.
    #[test]
    fn addresses_of_others_are_refused_even_if_the_node_says_they_are_its_own() {
        let refuse = |node: &str, address: &str, why: &str| {
            refused(&spec(node), &asked(node, &[address]), why);
        };
        refuse("pooled", "10.0.0.99", "does not have");
        refuse("thief", "10.0.0.1", "master's");
        refuse("pooled", "10.0.0.2", "later's");
        refuse("copy", "10.0.0.20", "pooled's");
        refuse("pooled", "10.96.0.1", "10.96.0.0/12");
        refuse("pooled", "127.0.0.1", "no machine's");
        refuse("master", "10.0.0.20", "in the settings");
    }
}
