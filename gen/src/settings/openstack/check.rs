//! What OpenStack would refuse, or let through and not carry, seen in the
//! settings as a whole.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ::units::node_config::NetworkMode;
use ipnet::IpNet;

use super::{LoadBalancer, Openstack};
use crate::platform::Platform;
use crate::ranges::overlap;
use crate::settings::schema::Settings;
use crate::settings::values::Host;
use crate::yaml::{At, Reader};

/// Subnets are no smaller: in half of them is room for a gateway and machines.
const SMALLEST: u8 = 28;

/// A tag, which is the cluster's name and 13 bytes before it, has at most 60 of
/// them. Source: Neutron's `tag` extension, up to its release of 2023.
const CLUSTER_NAME: usize = 47;

/// Adds everything that does not fit together.
pub fn check(r: &mut Reader, s: &Settings) {
    let Some(openstack) = &s.openstack else {
        return;
    };
    form(r, s, openstack);
    name(r, s, openstack);
    ranges(r, s, openstack);
    machines(r, s, openstack);
    balancer(r, openstack);
    outside(r, s, openstack);
    pools(r, s, openstack);
    endpoint(r, s, openstack);
}

/// Heat and the openstack client take user-data for text.
fn form(r: &mut Reader, s: &Settings, openstack: &Openstack) {
    if s.gzip && s.platform == Some(Platform::Openstack) {
        let message = "gzip: Heat and the openstack client take documents for text";
        let help = "leave gzip out, or leave openstack out and hand in documents by Nova's API";
        r.find(&openstack.place.span, message, Some(help.to_owned()));
    }
}

fn name(r: &mut Reader, s: &Settings, openstack: &Openstack) {
    let name = &s.name;
    if name.len() > CLUSTER_NAME {
        let message = format!(
            "name: {name:?} does not fit into Neutron's tags: {} bytes, at most {CLUSTER_NAME}",
            name.len()
        );
        let help = "use a shorter name".to_owned();
        r.find(&openstack.place.span, message, Some(help));
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        let message =
            format!("name: {name:?} begins with a digit, and Heat's stacks with a letter");
        r.find(&openstack.place.span, message, None);
    }
}

fn ranges(r: &mut Reader, s: &Settings, openstack: &Openstack) {
    let Some(cidr) = &openstack.cidr else {
        return;
    };
    for (nets, whose) in [
        (&s.network.pod_cidrs, "pods"),
        (&s.network.service_cidrs, "services"),
    ] {
        if let Some(net) = nets.iter().find(|n| overlap(&n.value, &cidr.value.into())) {
            let message = format!(
                "{}: {} overlaps with {whose} {}",
                cidr.path, cidr.value, net.value
            );
            r.find(&cidr.span, message, None);
        }
    }
    if openstack.existing.is_none() && cidr.value.prefix_len() > SMALLEST {
        let message = format!(
            "{}: {} is too small: no less than /{SMALLEST}",
            cidr.path, cidr.value
        );
        r.find(&cidr.span, message, None);
    }
}

/// Whether an address is one that a machine, or the load balancer, can have.
fn within<T>(r: &mut Reader, openstack: &Openstack, address: Ipv4Addr, at: &At<T>) {
    let Some(cidr) = &openstack.cidr else {
        return;
    };
    let net = cidr.value;
    let mut find = |why: String, help: Option<String>| {
        r.find(&at.span, format!("{}: {why}", at.path), help);
    };
    if !net.contains(&address) {
        let help = format!("{} is {net}", cidr.path);
        return find(format!("{address} is not in the subnet"), Some(help));
    }
    if address == net.network() || address == net.broadcast() {
        return find(
            format!("{address} is no address of a machine in {net}"),
            None,
        );
    }
    if openstack.existing.is_none() && net.hosts().next() == Some(address) {
        return find(
            format!("{address} is the router's"),
            Some(format!("the first address of {net} is the gateway")),
        );
    }
    if let Some((first, last)) = openstack.dynamic()
        && (first..=last).contains(&address)
    {
        find(
            format!("{address} is handed out to whoever asks"),
            Some(format!(
                "{first} to {last}, the upper half, is for pools and for Neutron's own; \
                 take one below, or a larger openstack.cidr"
            )),
        );
    }
}

/// Each has one address, which its port keeps.
fn machines(r: &mut Reader, s: &Settings, openstack: &Openstack) {
    for machine in &s.machines {
        if machine.addresses.is_empty() {
            let message = format!("{}.address: missing", machine.path());
            let help = "on OpenStack a machine's port keeps one address of the subnet";
            r.find(&machine.name.span, message, Some(help.to_owned()));
        }
        for address in &machine.addresses {
            let IpAddr::V4(ipv4) = address.value else {
                let message = format!(
                    "{}: {} is IPv6: what is made on OpenStack has IPv4 only",
                    address.path, address.value
                );
                r.find(&address.span, message, None);
                continue;
            };
            within(r, openstack, ipv4, address);
            if openstack
                .api_address
                .as_ref()
                .is_some_and(|a| a.value == ipv4)
            {
                let message = format!(
                    "{}: {ipv4} is the load balancer's (openstack.apiAddress)",
                    address.path
                );
                r.find(&address.span, message, None);
            }
        }
    }
    for net in s
        .network
        .pod_cidrs
        .iter()
        .filter(|n| matches!(n.value, IpNet::V6(_)) && s.network.mode == NetworkMode::Routed)
    {
        let message = format!(
            "{}: {} is IPv6: next hops of what is made on OpenStack are IPv4",
            net.path, net.value
        );
        r.find(&net.span, message, None);
    }
}

fn balancer(r: &mut Reader, openstack: &Openstack) {
    match (openstack.load_balancer, &openstack.api_address) {
        (LoadBalancer::Octavia, None) => {
            let message = "openstack.apiAddress: missing";
            let help = "the load balancer keeps an address of the subnet, which the API server's \
                        certificate answers to";
            r.find(&openstack.place.span, message, Some(help.to_owned()));
        }
        (LoadBalancer::Octavia, Some(address)) => within(r, openstack, address.value, address),
        (LoadBalancer::None, Some(address)) => {
            let message = format!("{}: there is no load balancer to have it", address.path);
            let help = "write loadBalancer: octavia, or leave it out";
            r.find(&address.span, message, Some(help.to_owned()));
        }
        (LoadBalancer::None, None) => {}
    }
}

/// Floating addresses are of a network outside, and of machines that there are.
fn outside(r: &mut Reader, s: &Settings, openstack: &Openstack) {
    for wanted in &openstack.floating_ips {
        let known = s.machines.iter().any(|m| {
            m.name.value.as_str() == wanted.value || m.role.value.as_str() == wanted.value
        });
        if !known {
            let message = format!(
                "{}: {} is neither a machine nor a role of one",
                wanted.path, wanted.value
            );
            r.find(&wanted.span, message, None);
        }
        if openstack.external_network.is_none() {
            let message = format!(
                "{}: floating addresses are of a network outside",
                wanted.path
            );
            let help = "name it: openstack.externalNetwork";
            r.find(&wanted.span, message, Some(help.to_owned()));
        }
    }
    if let Some(address) = &openstack.api_floating_ip
        && let Some(cidr) = &openstack.cidr
        && cidr.value.contains(&address.value)
    {
        let message = format!("{}: {} is inside", address.path, address.value);
        let help = "a floating address is of the network outside: openstack floating ip create";
        r.find(&address.span, message, Some(help.to_owned()));
    }
    let mut seen = BTreeSet::new();
    for zone in &openstack.zones {
        if !seen.insert(&zone.value) {
            let message = format!("{}: {} is said twice", zone.path, zone.value);
            r.find(&zone.span, message, None);
        }
    }
}

fn pools(r: &mut Reader, s: &Settings, openstack: &Openstack) {
    let mut seen = BTreeSet::new();
    for pool in &openstack.pools {
        let name = &pool.name;
        if !s.pools.iter().any(|p| p.name.value == name.value) {
            let message = format!("{}: no pool is called {}", name.path, name.value);
            let help = format!("add it: pools: [{{name: {}}}]", name.value);
            r.find(&name.span, message, Some(help));
        }
        if !seen.insert(&name.value) {
            let message = format!("{}: {} is said twice", name.path, name.value);
            r.find(&name.span, message, None);
        }
        for i in 1..=pool.count {
            let machine = format!("{}-{i}", name.value);
            if s.machines.iter().any(|m| m.name.value.as_str() == machine) {
                let message = format!("{}: {machine} of this pool is in nodes too", name.path);
                r.find(&name.span, message, None);
            }
        }
    }
}

/// From inside, the floating address is reached with an address that is let in
/// from nowhere.
fn endpoint(r: &mut Reader, s: &Settings, openstack: &Openstack) {
    let open = openstack
        .api_from
        .iter()
        .any(|net| net.value.prefix_len() == 0);
    let (Some(endpoint), Some(address)) = (&s.endpoint, &openstack.api_floating_ip) else {
        return;
    };
    if endpoint.value.host == Host::Address(address.value.into()) && !s.balanced() && !open {
        let message = format!(
            "{}: machines would come to it from outside, and are not let in",
            endpoint.path
        );
        let help = "write balancer: true, and machines go to the masters' own addresses";
        r.find(&endpoint.span, message, Some(help.to_owned()));
    }
}

/// What may be meant, and is often regretted: messages and help.
pub fn warnings(s: &Settings) -> Vec<(String, &'static str)> {
    let Some(openstack) = &s.openstack else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for net in openstack
        .ssh_from
        .iter()
        .filter(|n| n.value.prefix_len() == 0)
    {
        let message = format!("{}: ssh is open to the world", net.path);
        all.push((message, "name the ranges from which you come"));
    }
    if s.platform != Some(Platform::Openstack) {
        let message = "openstack: nothing is made of it without platform: openstack".to_owned();
        all.push((
            message,
            "write platform: openstack, or call kgen with --platform openstack",
        ));
    }
    let made = openstack.existing.is_none() && openstack.router.is_none();
    if made && openstack.external_network.is_none() {
        let message = "openstack.externalNetwork: without it machines reach nothing outside";
        all.push((
            message.to_owned(),
            "name the network of the cloud that leads outside: openstack network list --external",
        ));
    }
    all
}
