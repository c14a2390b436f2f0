//! What the cluster itself needs, made and kept by its masters: the binding
//! of administrators, and the role labels that no kubelet may give itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::name;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::api::{Api, Kubeconfig};
use crate::sys::pki;
use units::paths;
use units::types::{NodeName, Role};

/// How long the agent's own administrator certificate lives; it is made anew
/// for each round and never stored.
const LIFE: Duration = Duration::from_secs(600);

pub struct Objects;

impl Step<Machine> for Objects {
    fn name(&self) -> &'static str {
        name::OBJECTS
    }

    fn after(&self) -> &[&'static str] {
        &[name::APISERVER]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let api = administrator(machine)?;
            let binding = cluster_admins();
            api.apply(CLUSTER_ADMINS_PATH, &binding).await?;
            let roles = roles(machine);
            let nodes = api.get("/api/v1/nodes").await?.unwrap_or_default();
            let labels = missing_role_labels(&nodes, &roles);
            for (node, label) in &labels {
                let patch = json!({"metadata": {"labels": {(*label): ""}}});
                api.merge(&format!("/api/v1/nodes/{node}"), &patch).await?;
            }
            Ok(format!(
                "administrators bound, {} role labels set",
                labels.len()
            ))
        })
    }

    /// A Node that comes wants its label; so look when the Nodes change.
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        let mut peers = machine.peers.subscribe();
        Box::pin(async move {
            let minute = tokio::time::sleep(Duration::from_secs(60));
            tokio::select! {
                _ = peers.changed() => {}
                () = minute => {}
            }
        })
    }
}

/// The API as system:masters, by a certificate that this master's CA key
/// signs for ten minutes.
fn administrator(machine: &Machine) -> Result<Api> {
    let root = &machine.root;
    let authority = root.read_to_string(paths::CA_CERT)?;
    let identity = pki::short_lived_identity(
        &authority,
        &root.read_to_string(paths::CA_KEY)?,
        &format!("knode:{}", machine.config.node.name),
        "system:masters",
        LIFE,
    )?;
    let server = Kubeconfig::parse(&root.read_to_string(paths::KUBELET_KUBECONFIG)?)
        .map_err(|error| Error::new(Code::IdentityCert, error.story()))?
        .server;
    Api::new(&server, authority.as_bytes(), Some(identity))
}

const CLUSTER_ADMINS_PATH: &str =
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:cluster-admins";

/// The group of the operator's admin.conf and of the API server's own
/// requests to kubelets, as kubeadm has it.
fn cluster_admins() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "kubeadm:cluster-admins"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "cluster-admin"
        },
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Group",
            "name": "kubeadm:cluster-admins"
        }]
    })
}

/// The roles that the settings give: only these are believed.
fn roles(machine: &Machine) -> BTreeMap<NodeName, Role> {
    let peers = machine
        .config
        .network
        .iter()
        .flat_map(|network| &network.peers);
    peers
        .map(|peer| (peer.name.clone(), peer.role))
        .chain([(machine.config.node.name.clone(), machine.config.node.role)])
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
