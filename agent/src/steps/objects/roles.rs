//! The role labels that no kubelet may give itself: masters set them, from the
//! settings alone. What other machines say of themselves is not believed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::Result;
use crate::machine::Machine;
use crate::sys::api::Api;
use units::types::{NodeName, Role};

/// Labels every Node that lacks the label of its role; says how many did.
///
/// # Errors
///
/// As every request; see [`Api::get`].
pub async fn label(api: &Api, machine: &Machine) -> Result<usize> {
    let nodes = api.get("/api/v1/nodes").await?.unwrap_or_default();
    let labels = missing_role_labels(&nodes, &roles(machine));
    for (node, label) in &labels {
        let patch = json!({"metadata": {"labels": {(*label): ""}}});
        api.merge(&format!("/api/v1/nodes/{node}"), &patch).await?;
    }
    Ok(labels.len())
}

/// The roles that the settings give: only these are believed.
pub fn roles(machine: &Machine) -> BTreeMap<NodeName, Role> {
    let peers = machine
        .config
        .network
        .iter()
        .flat_map(|network| &network.peers);
    peers
        .map(|peer| (peer.name.clone(), peer.role))
        .chain([(machine.name.clone(), machine.config.node.role)])
        .collect()
}

/// Which Nodes lack the label of their role.
fn missing_role_labels(
    nodes: &Value,
    roles: &BTreeMap<NodeName, Role>,
) -> Vec<(NodeName, &'static str)> {
    let mut missing = Vec::new();
    for node in nodes["items"].as_array().into_iter().flatten() {
        let name = node["metadata"]["name"]
            .as_str()
            .and_then(|n| n.parse().ok());
        let Some((name, role)) = name
            .and_then(|name| Some((roles.get(&name)?, name)))
            .map(|(r, n)| (n, *r))
        else {
            continue;
        };
        let label = match role {
            Role::Master => "node-role.kubernetes.io/control-plane",
            Role::Node | Role::Etcd => "node-role.kubernetes.io/node",
        };
        if node["metadata"]["labels"].get(label).is_none() {
            missing.push((name, label));
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_nodes_without_their_label_are_labelled() {
        let name = |text: &str| text.parse::<NodeName>().unwrap();
        let roles = BTreeMap::from([(name("m"), Role::Master), (name("n"), Role::Node)]);
        let nodes = json!({"items": [
            {"metadata": {"name": "m", "labels": {"node-role.kubernetes.io/control-plane": ""}}},
            {"metadata": {"name": "n", "labels": {}}},
            {"metadata": {"name": "stranger"}},
        ]});
        assert_eq!(
            missing_role_labels(&nodes, &roles),
            [(name("n"), "node-role.kubernetes.io/node")]
        );
    }
}
