//! The Node object, with labels, taints and addresses before the kubelet
//! starts, so that no pod ever lands on a machine that is not yet described
//! (P33).

mod record;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::name;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::{Machine, known};
use crate::sys::api::Api;
use units::node_config::{self, Registration};
use units::paths;
use units::types::NodeName;

/// How long a kubelet that registers itself may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Register {
    /// The steps before it: the kubelet's start, if that makes the Node.
    pub after: &'static [&'static str],
}

impl Step<Machine> for Register {
    fn name(&self) -> &'static str {
        name::REGISTER
    }

    fn after(&self) -> &[&'static str] {
        self.after
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let api = machine.kubelet_api()?;
            let addresses = known(&machine.addresses).await;
            let node = &machine.config.node;
            let path = format!("/api/v1/nodes/{}", machine.name);
            let found = api.get(&path).await?;
            let found = match (found, node.registration) {
                (None, Registration::Kubelet) => Some(by_kubelet(machine, &api, &path).await?),
                (found, _) => found,
            };
            let (found, told) = match plan(&machine.name, node, &addresses, found)? {
                Plan::Create(body) => match api.create("/api/v1/nodes", &body).await? {
                    Some(created) => (created, "registered"),
                    // The kubelet was quicker; look again.
                    None => {
                        return Err(Error::new(
                            Code::ApiRefused,
                            "the Node was just created by another",
                        ));
                    }
                },
                Plan::Merge(patch) => (api.merge(&path, &patch).await?, "labels changed"),
                Plan::Keep(found) => (found, "was registered"),
            };
            let mut told = told.to_owned();
            if let Some(taints) = taints(machine, &path, &found).await? {
                told = format!("{told}, {taints}");
            }
            let told = if machine.pod_cidrs.borrow().is_none() {
                let ranges = pod_range(machine, &api, &path, found).await?;
                machine.pod_cidrs.send_replace(Some(ranges));
                format!("{told}, pod range given by the controller manager")
            } else {
                told
            };
            Ok(told)
        })
    }
}

/// The Node, once the kubelet has made it.
async fn by_kubelet(machine: &Machine, api: &Api, path: &str) -> Result<Value> {
    let waiting = "waiting for the kubelet to register";
    machine.status.detail(name::REGISTER, waiting);
    let made = async {
        loop {
            if let Some(found) = api.get(path).await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                Code::NotReady,
                "the kubelet has not registered its Node: see its journal",
            ))
        })
}

/// What to do about the Node object.
#[derive(Debug, PartialEq)]
enum Plan {
    Create(Value),
    Merge(Value),
    Keep(Value),
}

fn plan(
    name: &NodeName,
    node: &node_config::Node,
    addresses: &[IpAddr],
    found: Option<Value>,
) -> Result<Plan> {
    let Some(found) = found else {
        return Ok(Plan::Create(new_node(name, node, addresses)));
    };
    let ranges = ranges_of(&found);
    if !node.pod_cidrs.is_empty() && !ranges.is_empty() && ranges != node.pod_cidrs {
        return Err(Error::new(
            Code::PodRange,
            format!(
                "the Node has pod range {ranges:?}, the settings say {:?}",
                node.pod_cidrs
            ),
        ));
    }
    let metadata = record::metadata(node, &found);
    Ok(if metadata.is_empty() {
        Plan::Keep(found)
    } else {
        Plan::Merge(json!({"metadata": metadata}))
    })
}

/// Taints that the settings add or drop while the Node is there. No kubelet may
/// change its own (NodeRestriction): on masters their authority does, elsewhere
/// it is told who has to. What is to be told.
async fn taints(machine: &Machine, path: &str, found: &Value) -> Result<Option<String>> {
    let node = &machine.config.node;
    let Some(patch) = record::taint_changes(node, found) else {
        return Ok(None);
    };
    if patch.get("spec").is_none() {
        // Only noted.
        machine.kubelet_api()?.merge(path, &patch).await?;
        return Ok(None);
    }
    if machine.root.exists(paths::CA_KEY)? {
        machine.administrator_api()?.merge(path, &patch).await?;
        return Ok(Some("taints changed".to_owned()));
    }
    let names = record::differing_taints(node, found).join(", ");
    let told = format!("an administrator has to change the taints {names} (kubectl taint)");
    tracing::warn!(step = name::REGISTER, "{told}");
    Ok(Some(told))
}

/// The Node as it is born. The kubelet completes its status and the labels of
/// its kind.
fn new_node(name: &NodeName, node: &node_config::Node, addresses: &[IpAddr]) -> Value {
    let mut labels = node.labels.clone();
    labels.insert("kubernetes.io/hostname".to_owned(), name.to_string());
    labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    let mut spec = json!({"taints": node.taints});
    if let Some(first) = node.pod_cidrs.first() {
        spec["podCIDR"] = json!(first);
        spec["podCIDRs"] = json!(node.pod_cidrs);
    }
    if let Some(id) = &node.provider_id {
        spec["providerID"] = json!(id);
    }
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .chain([json!({"type": "Hostname", "address": name})])
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": record::annotations(node),
        },
        "spec": spec,
        "status": {"addresses": addresses},
    })
}

/// The pod range that the controller manager gives, once it did.
async fn pod_range(
    machine: &Machine,
    api: &Api,
    path: &str,
    mut found: Value,
) -> Result<Vec<IpNet>> {
    loop {
        let ranges = ranges_of(&found);
        if !ranges.is_empty() {
            return Ok(ranges);
        }
        let waiting = "waiting for the controller manager to give this Node a pod range";
        machine.status.detail(name::REGISTER, waiting);
        tokio::time::sleep(Duration::from_millis(500)).await;
        found = api.get(path).await?.unwrap_or_default();
    }
}

fn ranges_of(node: &Value) -> Vec<IpNet> {
    node["spec"]["podCIDRs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|range| range.as_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::NodeConfig;

    fn name() -> NodeName {
        "node-1".parse().unwrap()
    }

    fn sample() -> node_config::Node {
        let text = include_str!("../../../units/testdata/node-v1.yaml");
        serde_yaml::from_str::<NodeConfig>(text).unwrap().node
    }

    #[test]
    fn a_new_node_is_born_described() {
        let Plan::Create(node) =
            plan(&name(), &sample(), &["10.0.0.11".parse().unwrap()], None).unwrap()
        else {
            panic!("not created");
        };
        assert_eq!(node["spec"]["podCIDR"], "10.244.1.0/24");
        assert_eq!(node["spec"]["taints"][0]["effect"], "NoSchedule");
        assert_eq!(node["metadata"]["labels"]["example.com/rack"], "a1");
        assert_eq!(node["status"]["addresses"][0]["address"], "10.0.0.11");
    }

    #[test]
    fn an_old_node_is_kept_mended_or_refused() {
        let found = json!({
            "metadata": {
                "labels": {"example.com/rack": "a1"},
                "annotations": {"knode/labels": "example.com/rack"},
            },
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
        });
        let kept = plan(&name(), &sample(), &[], Some(found.clone())).unwrap();
        assert_eq!(kept, Plan::Keep(found.clone()));

        let mut other_label = found.clone();
        other_label["metadata"]["labels"]["example.com/rack"] = json!("b2");
        let patch = json!({"metadata": {"labels": {"example.com/rack": "a1"}}});
        assert_eq!(
            plan(&name(), &sample(), &[], Some(other_label)).unwrap(),
            Plan::Merge(patch)
        );

        let mut other_range = found;
        other_range["spec"]["podCIDRs"] = json!(["10.244.9.0/24"]);
        let error = plan(&name(), &sample(), &[], Some(other_range)).unwrap_err();
        assert_eq!(error.code(), Code::PodRange);
    }
}
