//! What can only be seen in the settings as a whole.

use std::collections::BTreeMap;
use std::ops::Range;

use ipnet::IpNet;
use units::types::Role;

use super::schema::Settings;
use super::{azure, openstack, ports, pxe, shared};
use crate::ranges::{nth_address, overlap, same_family, subnet_count};
use crate::yaml::{At, Reader};

/// Adds everything that does not fit together.
pub fn check(r: &mut Reader, s: &Settings) {
    names(r, s);
    roles(r, s);
    one_a_family(r, &s.network.pod_cidrs);
    one_a_family(r, &s.network.service_cidrs);
    for machine in &s.machines {
        one_a_family(r, &machine.pod_cidrs);
    }
    families(r, s);
    sizes(r, s);
    cluster_ranges(r, s);
    machine_ranges(r, s);
    addresses(r, s);
    shared::check(r, s);
    ports::check(r, s);
    azure::check(r, s);
    openstack::check(r, s);
    pxe::check(r, s);
}

fn names(r: &mut Reader, s: &Settings) {
    let mut seen = BTreeMap::new();
    for machine in &s.machines {
        let name = &machine.name;
        if let Some(first) = seen.insert(&name.value, &name.path) {
            let message = format!("{}: {} is the name of {first} too", name.path, name.value);
            r.find(&name.span, message, None);
        }
    }
}

fn roles(r: &mut Reader, s: &Settings) {
    let masters: Vec<_> = s.of_role(Role::Master).collect();
    let dedicated: Vec<_> = s.of_role(Role::Etcd).collect();
    if masters.is_empty() {
        let help = "add one: nodes: [{name: master, role: master}]";
        r.find(
            &s.machines_span,
            "nodes: no machine has the role master",
            Some(help.to_owned()),
        );
        return;
    }
    let (members, which) = if dedicated.is_empty() {
        (masters, "masters, each with a member of etcd")
    } else {
        (dedicated, "machines with the role etcd")
    };
    if members.len() % 2 == 0
        && let Some(last) = members.last()
    {
        let count = members.len();
        let message = format!(
            "{}: {count} {which}: etcd needs an odd number",
            last.role.path
        );
        let help = format!(
            "{count} members survive the loss of no more of them than {} do, and fail more often; \
             use {} or {}",
            count - 1,
            count - 1,
            count + 1
        );
        r.find(&last.role.span, message, Some(help));
    }
}

fn one_a_family(r: &mut Reader, nets: &[At<IpNet>]) {
    for (i, net) in nets.iter().enumerate() {
        if nets[..i]
            .iter()
            .any(|other| same_family(&other.value, &net.value))
        {
            let message = format!("{}: a second range of the same address family", net.path);
            r.find(&net.span, message, None);
        }
    }
}

/// Pods and services speak the same protocols.
fn families(r: &mut Reader, s: &Settings) {
    let (pods, services) = (&s.network.pod_cidrs, &s.network.service_cidrs);
    let lacks = |nets: &[At<IpNet>], net: &IpNet| !nets.iter().any(|n| same_family(&n.value, net));
    for (these, those, what) in [(pods, services, "service"), (services, pods, "pod")] {
        for net in these {
            if lacks(those, &net.value) {
                let message = format!(
                    "{}: there is no {what} range of the family of {}",
                    net.path, net.value
                );
                r.find(&net.span, message, None);
            }
        }
    }
}

/// Ranges are large enough for what has to fit, and no larger than Kubernetes
/// takes them.
fn sizes(r: &mut Reader, s: &Settings) {
    for net in &s.network.service_cidrs {
        let host_bits = net.value.max_prefix_len() - net.value.prefix_len();
        if host_bits > 20 {
            let message = format!(
                "{}: {} is too large for the API server: at most 20 bits, /{}",
                net.path,
                net.value,
                net.value.max_prefix_len() - 20
            );
            r.find(&net.span, message, None);
        }
        if nth_address(&net.value, 15).is_none() {
            let message = format!(
                "{}: {} is too small: the cluster's DNS is its tenth address",
                net.path, net.value
            );
            r.find(&net.span, message, None);
        }
    }
    let with_pods = s.machines.iter().filter(|m| m.role.value.runs_kubelet());
    let needed = with_pods.count() as u64;
    for net in &s.network.pod_cidrs {
        let mask = match net.value {
            IpNet::V4(_) => &s.network.node_mask,
            IpNet::V6(_) => &s.network.node_mask_ipv6,
        };
        match subnet_count(&net.value, mask.value) {
            None => {
                let message = format!(
                    "{}: a node's /{} does not fit into {}",
                    mask.path, mask.value, net.value
                );
                r.find(place(mask, net), message, None);
            }
            Some(count) if count > 1 << 16 => {
                let message = format!(
                    "{}: /{} ranges in {} are more than the 65536 that Kubernetes takes",
                    mask.path, mask.value, net.value
                );
                r.find(place(mask, net), message, None);
            }
            Some(count) if count < needed => {
                let message = format!(
                    "{}: {} has {count} ranges of /{}, and {needed} machines need one",
                    net.path, net.value, mask.value
                );
                r.find(place(net, mask), message, None);
            }
            Some(_) => {}
        }
    }
}

/// The first of two places that was typed.
fn place<'a, A, B>(first: &'a At<A>, second: &'a At<B>) -> &'a Range<usize> {
    if first.span.is_empty() {
        &second.span
    } else {
        &first.span
    }
}

fn cluster_ranges(r: &mut Reader, s: &Settings) {
    for pods in &s.network.pod_cidrs {
        for services in &s.network.service_cidrs {
            if overlap(&pods.value, &services.value) {
                let message = format!(
                    "{}: services {} and pods {} overlap",
                    services.path, services.value, pods.value
                );
                r.find(place(services, pods), message, None);
            }
        }
    }
}

fn machine_ranges(r: &mut Reader, s: &Settings) {
    let mut seen: Vec<&At<IpNet>> = Vec::new();
    for net in s.machines.iter().flat_map(|m| &m.pod_cidrs) {
        let inside = s
            .network
            .pod_cidrs
            .iter()
            .any(|p| p.value.contains(&net.value));
        if !inside {
            let message = format!(
                "{}: {} is not within the range of pods",
                net.path, net.value
            );
            let ranges: Vec<_> = s
                .network
                .pod_cidrs
                .iter()
                .map(|p| p.value.to_string())
                .collect();
            let help = format!("network.podCIDR is {}", ranges.join(" and "));
            r.find(&net.span, message, Some(help));
        }
        if let Some(other) = seen.iter().find(|o| overlap(&o.value, &net.value)) {
            let message = format!(
                "{}: overlaps with {} ({})",
                net.path, other.path, other.value
            );
            r.find(&net.span, message, None);
        }
        seen.push(net);
    }
    for machine in s.of_role(Role::Etcd) {
        if let Some(net) = machine.pod_cidrs.first() {
            let message = format!("{}: a machine with the role etcd has no pods", net.path);
            r.find(&net.span, message, None);
        }
    }
}

fn addresses(r: &mut Reader, s: &Settings) {
    let mut seen = BTreeMap::new();
    // The API server is told to others by the family of services.
    let primary = s.network.service_cidrs.first();
    for machine in s.machines.iter().filter(|m| m.role.value.runs_kubelet()) {
        if let (Some(first), Some(net)) = (machine.addresses.first(), primary)
            && !machine
                .addresses
                .iter()
                .any(|a| a.value.is_ipv4() == net.value.addr().is_ipv4())
        {
            let message = format!(
                "{}: no address of the family of services ({})",
                first.path, net.value
            );
            r.find(&first.span, message, None);
        }
    }
    for machine in &s.machines {
        for (i, address) in machine.addresses.iter().enumerate() {
            if let Some(first) = seen.insert(address.value, &address.path) {
                let message = format!("{}: {} is {first} too", address.path, address.value);
                r.find(&address.span, message, None);
            }
            let earlier = &machine.addresses[..i];
            if earlier
                .iter()
                .any(|a| a.value.is_ipv4() == address.value.is_ipv4())
            {
                let message = format!("{}: a second address of the same family", address.path);
                r.find(&address.span, message, None);
            }
            for (nets, whose) in [
                (&s.network.pod_cidrs, "pods"),
                (&s.network.service_cidrs, "services"),
            ] {
                if let Some(net) = nets.iter().find(|n| n.value.contains(&address.value)) {
                    let message = format!(
                        "{}: {} is within the range of {whose} ({})",
                        address.path, address.value, net.value
                    );
                    r.find(&address.span, message, None);
                }
            }
        }
    }
}
