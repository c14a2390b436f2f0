//! What settings leave open and follows from the rest of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use serde_json::Value;
use units::node_config::Registration;
use units::types::{Role, Taint, TaintEffect};

use super::Machine;
use crate::ranges::{FreeSubnets, same_family};
use crate::settings::{Endpoint, Host, Layer, Machine as Typed, Settings};

/// The taint of machines with the control plane.
/// Source: Kubernetes documentation, "Well-Known Labels, Annotations and Taints".
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// The endpoint that was typed, else the first master.
pub fn endpoint(s: &Settings) -> Endpoint {
    if let Some(endpoint) = &s.endpoint {
        return endpoint.value.clone();
    }
    let master = s.of_role(Role::Master).next();
    let host = match master {
        Some(master) => match master.addresses.first() {
            Some(address) => Host::Address(address.value),
            None => Host::Name(master.name.value.to_string()),
        },
        None => Host::Address(Ipv4Addr::LOCALHOST.into()),
    };
    Endpoint {
        host,
        port: Endpoint::PORT,
    }
}

/// The names in the API server's certificate besides the endpoint: those that
/// were typed, and those by which the API servers are reached on Azure and OpenStack.
pub fn cert_sans(s: &Settings) -> Vec<Host> {
    let mut names = s.cert_sans.clone();
    if let Some(azure) = &s.azure {
        let address = azure.api_address.as_ref();
        names.extend(address.map(|a| Host::Address(a.value.into())));
        names.extend(azure.public_name().map(Host::Name));
    }
    if let Some(openstack) = &s.openstack {
        let addresses = [&openstack.api_address, &openstack.api_floating_ip];
        names.extend(
            addresses
                .into_iter()
                .flatten()
                .map(|a| Host::Address(a.value.into())),
        );
    }
    names
}

/// The machines, each with its pod ranges.
pub fn machines(s: &Settings, pod_cidrs: &[IpNet]) -> Vec<Machine> {
    let taken: Vec<IpNet> = s
        .machines
        .iter()
        .flat_map(|m| m.pod_cidrs.iter().map(|n| n.value))
        .collect();
    let mut free: Vec<(IpNet, FreeSubnets<'_>)> = pod_cidrs
        .iter()
        .map(|net| {
            let mask = match net {
                IpNet::V4(_) => s.network.node_mask.value,
                IpNet::V6(_) => s.network.node_mask_ipv6.value,
            };
            (*net, FreeSubnets::new(net, mask, &taken))
        })
        .collect();
    // A cluster of masters alone has to run its pods on them.
    let nodes = s.of_role(Role::Node).count() + s.pools.len();
    let masters_only = s.assign_pod_cidrs && nodes == 0;
    // With pools the controller manager gives ranges to all Nodes, since only
    // it knows which are taken.
    let assign = s.assign_pod_cidrs && s.pools.is_empty();
    s.machines
        .iter()
        .map(|typed| {
            let layers = [role_layer(s, typed.role.value), &typed.layer];
            Machine {
                name: typed.name.value.clone(),
                role: typed.role.value,
                arch: typed.arch,
                addresses: typed.addresses.iter().map(|a| a.value).collect(),
                pod_cidrs: pod_ranges(typed, assign, &mut free),
                labels: labels(layers),
                taints: taints(layers).unwrap_or_else(|| default_taints(typed, masters_only)),
                kubelet: kubelet(layers),
                registration: registration(layers),
                provider_id: typed.provider_id.clone(),
                mac: typed.mac.as_ref().map(|mac| mac.value),
                shared: None,
            }
        })
        .collect()
}

/// What is said of a role; nothing is of machines that are no Nodes.
fn role_layer(s: &Settings, role: Role) -> &Layer {
    const NOTHING: &Layer = &Layer {
        labels: BTreeMap::new(),
        taints: None,
        kubelet: None,
        registration: None,
    };
    match role {
        Role::Master => &s.roles.master,
        Role::Node => &s.roles.node,
        Role::Etcd => NOTHING,
    }
}

/// Labels of a Node, each layer's over those before.
pub fn labels(layers: [&Layer; 2]) -> BTreeMap<String, String> {
    let all = layers.into_iter().flat_map(|layer| layer.labels.clone());
    all.collect()
}

/// The taints of the last layer that says any.
pub fn taints(layers: [&Layer; 2]) -> Option<Vec<Taint>> {
    let mut typed = layers.into_iter().rev();
    typed.find_map(|layer| layer.taints.clone())
}

/// What is laid over the cluster's KubeletConfiguration.
pub fn kubelet(layers: [&Layer; 2]) -> Vec<Value> {
    let typed = layers.into_iter().filter_map(|l| l.kubelet.as_ref());
    typed.map(|config| config.value.clone()).collect()
}

/// Who makes a Node: as the last layer says that does.
pub fn registration(layers: [&Layer; 2]) -> Registration {
    let mut typed = layers.into_iter().rev();
    let typed = typed.find_map(|layer| layer.registration.as_ref());
    typed.map(|at| at.value).unwrap_or_default()
}

/// The ranges that were typed, and for each other family the next free one.
fn pod_ranges(typed: &Typed, assign: bool, free: &mut [(IpNet, FreeSubnets<'_>)]) -> Vec<IpNet> {
    if !typed.role.value.runs_kubelet() || !assign {
        return Vec::new();
    }
    free.iter_mut()
        .filter_map(|(range, free)| {
            let typed = typed.pod_cidrs.iter().map(|n| n.value);
            typed
                .into_iter()
                .find(|net| same_family(net, range))
                .or_else(|| free.next())
        })
        .collect()
}

fn default_taints(typed: &Typed, masters_only: bool) -> Vec<Taint> {
    if typed.role.value != Role::Master || masters_only {
        return Vec::new();
    }
    vec![Taint {
        key: CONTROL_PLANE.to_owned(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    }]
}
