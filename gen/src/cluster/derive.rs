//! What settings leave open and follows from the rest of them.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use units::types::{Role, Taint, TaintEffect};

use super::Machine;
use crate::ranges::{FreeSubnets, same_family};
use crate::settings::{Endpoint, Host, Machine as Typed, Settings};

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

/// The endpoint's port where the endpoint is a master itself, not a balancer.
pub fn api_port(s: &Settings, endpoint: &Endpoint) -> u16 {
    let is_master = s.of_role(Role::Master).any(|m| match &endpoint.host {
        Host::Address(address) => m.addresses.iter().any(|a| a.value == *address),
        Host::Name(name) => *name == m.name.value.as_str(),
    });
    if is_master {
        endpoint.port
    } else {
        Endpoint::PORT
    }
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
    let masters_only = s.assign_pod_cidrs && s.of_role(Role::Node).next().is_none();
    s.machines
        .iter()
        .map(|typed| Machine {
            name: typed.name.value.clone(),
            role: typed.role.value,
            arch: typed.arch,
            addresses: typed.addresses.iter().map(|a| a.value).collect(),
            pod_cidrs: pod_ranges(typed, s.assign_pod_cidrs, &mut free),
            labels: typed.labels.clone(),
            taints: taints(typed, masters_only),
        })
        .collect()
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

fn taints(typed: &Typed, masters_only: bool) -> Vec<Taint> {
    match &typed.taints {
        Some(taints) => taints.clone(),
        None if typed.role.value == Role::Master && !masters_only => vec![Taint {
            key: CONTROL_PLANE.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
        }],
        None => Vec::new(),
    }
}
