//! Which routes the settings, and where they do not know the API server, mean.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::Value;

use super::Routes;
use crate::api::{Api, Trouble};
use crate::commands::terminal;
use crate::openstack::routes::{Route, Wanted};
use crate::workspace::Workspace;

/// Routes that are wanted, and whether these are all.
#[derive(Debug)]
pub struct Target {
    /// The routes.
    pub wanted: Vec<Wanted>,
    /// Whether all ranges are known that machines have.
    pub is_known: bool,
    /// The ranges of all pods.
    pub pods: Vec<IpNet>,
}

impl Target {
    /// The routes that the settings mean; where they do not know a range, the API
    /// server does.
    pub async fn find(args: &Routes<'_>, workspace: &Workspace) -> Result<Self> {
        let cluster = &workspace.cluster;
        let mut target = Self {
            wanted: Vec::new(),
            is_known: true,
            pods: cluster.pod_cidrs.clone(),
        };
        if args.none {
            return Ok(target);
        }
        for machine in cluster.machines.iter().filter(|m| m.role.runs_kubelet()) {
            let name = machine.name.as_str();
            let whole = push(&mut target, name, &machine.pod_cidrs, &machine.addresses);
            target.is_known &= whole && !machine.pod_cidrs.is_empty();
        }
        target.is_known &= !cluster.pools.iter().any(|pool| pool.is_pool());
        if target.is_known {
            return Ok(target);
        }
        match nodes(args, workspace).await {
            Ok(nodes) => target.is_known = of_nodes(&nodes, &mut target),
            Err(why) => terminal::say(&format!(
                "kgen: not all pod ranges are in the settings, and the API server does not tell: {why:#}; \
                 what is known is done, nothing is removed"
            )),
        }
        Ok(target)
    }
}

/// A route for each range with an address of its family; whether each has one.
fn push(target: &mut Target, machine: &str, ranges: &[IpNet], addresses: &[IpAddr]) -> bool {
    let mut whole = true;
    for range in ranges {
        let same = |a: &&IpAddr| a.is_ipv4() == matches!(range, IpNet::V4(_));
        let Some(nexthop) = addresses.iter().find(same) else {
            whole = false;
            continue;
        };
        target.wanted.push(Wanted {
            machine: machine.to_owned(),
            route: Route {
                destination: *range,
                nexthop: *nexthop,
            },
        });
    }
    whole
}

async fn nodes(args: &Routes<'_>, workspace: &Workspace) -> Result<Value> {
    let there = workspace.folder.join("pki/ca.crt").try_exists();
    if !there.context("looking for pki/ca.crt")? {
        bail!("there is no pki/ca.crt to know it by");
    }
    let (authority, operator) = workspace.pki()?.operator(false)?;
    let server = args.server.unwrap_or(&workspace.cluster.endpoint);
    let api = Api::new(&server.to_string(), &authority, &operator)?;
    match api.get("/api/v1/nodes").await {
        Ok(answer) => Ok(answer.body),
        Err(Trouble::Refused(why) | Trouble::Away(why)) => bail!(why),
    }
}

/// Ranges that the controller manager gave; what the settings say stands. Whether
/// each has an address to be reached at.
fn of_nodes(nodes: &Value, target: &mut Target) -> bool {
    let mut whole = true;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        if target.wanted.iter().any(|wanted| wanted.machine == name) {
            continue;
        }
        let list = |path: &str| {
            node.pointer(path)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let ranges: Vec<IpNet> = list("/spec/podCIDRs")
            .filter_map(|range| range.as_str()?.parse().ok())
            .collect();
        let addresses: Vec<IpAddr> = list("/status/addresses")
            .filter(|address| address["type"] == "InternalIP")
            .filter_map(|address| address["address"].as_str()?.parse().ok())
            .collect();
        whole &= push(target, name, &ranges, &addresses);
    }
    whole
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_that_the_settings_do_not_know_are_those_of_nodes() {
        let mut target = Target {
            wanted: Vec::new(),
            is_known: false,
            pods: Vec::new(),
        };
        let range = |text: &str| text.parse::<IpNet>().unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let whole = push(
            &mut target,
            "m",
            &[range("10.244.0.0/24"), range("fd00::/64")],
            &[address("10.0.0.10")],
        );
        assert!(!whole, "no address is of IPv6");
        let node = |name: &str, ranges: Value, internal: &str| {
            json!({
                "metadata": {"name": name},
                "spec": {"podCIDRs": ranges},
                "status": {"addresses": [
                    {"type": "Hostname", "address": name},
                    {"type": "InternalIP", "address": internal}
                ]}
            })
        };
        let nodes = json!({"items": [
            node("m", json!(["10.244.9.0/24"]), "10.0.0.99"),
            node("workers-1", json!(["10.244.1.0/24"]), "10.0.0.130"),
            node("without", json!([]), "10.0.0.131")
        ]});
        assert!(of_nodes(&nodes, &mut target));
        let wanted: Vec<String> = target
            .wanted
            .iter()
            .map(|w| format!("{} {}", w.machine, w.route))
            .collect();
        let nowhere = json!({"items": [
            {"metadata": {"name": "w"}, "spec": {"podCIDRs": ["10.244.2.0/24"]}, "status": {}}
        ]});
        assert!(!of_nodes(&nowhere, &mut target));
        assert_eq!(
            wanted,
            [
                "m 10.244.0.0/24 via 10.0.0.10",
                "workers-1 10.244.1.0/24 via 10.0.0.130"
            ]
        );
    }
}
