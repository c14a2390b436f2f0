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
    let roles = roles(machine);
    let mut labels = Vec::new();
    api.list_metadata("/api/v1/nodes", None, |node| {
        labels.extend(missing_role_label(node, &roles))
    })
    .await?;
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

/// The label of its role that a Node lacks.
fn missing_role_label(
    node: &Value,
    roles: &BTreeMap<NodeName, Role>,
) -> Option<(NodeName, &'static str)> {
    let name: NodeName = node["metadata"]["name"].as_str()?.parse().ok()?;
    let label = match roles.get(&name)? {
        Role::Master => "node-role.kubernetes.io/control-plane",
        Role::Node | Role::Etcd => "node-role.kubernetes.io/node",
    };
    let lacks = node["metadata"]["labels"].get(label).is_none();
    lacks.then_some((name, label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_nodes_without_their_label_are_labelled() {
        let name = |text: &str| text.parse::<NodeName>().unwrap();
        let roles = BTreeMap::from([(name("m"), Role::Master), (name("n"), Role::Node)]);
        let labelled = json!({"node-role.kubernetes.io/control-plane": ""});
        for (node, labels, missing) in [
            ("m", labelled, None),
            ("n", json!({}), Some("node-role.kubernetes.io/node")),
            ("stranger", Value::Null, None),
        ] {
            let object = json!({"metadata": {"name": node, "labels": labels}});
            assert_eq!(
                missing_role_label(&object, &roles),
                missing.map(|label| (name(node), label))
            );
        }
    }
}
