//! What Azure would refuse, or let through and not carry, seen in the settings
//! as a whole.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ::units::node_config::NetworkMode;
use ::units::types::Role;
use ipnet::{IpNet, Ipv4Net};

use super::Azure;
use crate::platform::Platform;
use crate::ranges::overlap;
use crate::settings::schema::Settings;
use crate::settings::values::Host;
use crate::yaml::{At, Reader};

/// A network's name, which is the cluster's and `-vnet`, has at most 64.
/// Source: Azure documentation, "Naming rules and restrictions".
const CLUSTER_NAME: usize = 59;
/// What a machine of a scale set is called begins with at most so many, `-`
/// included. Source: reference of `Microsoft.Compute/virtualMachineScaleSets`.
const POOL_NAME: usize = 57;
/// Routes of a table. Source: Azure documentation, "Azure subscription and
/// service limits".
const ROUTES: usize = 400;
/// Parameters of a template, one a document. Source: the same.
const DOCUMENTS: usize = 255;
/// Subnets are no smaller. Source: Azure documentation, "Virtual network FAQ".
const SMALLEST: u8 = 29;

/// Adds everything that does not fit together.
pub fn check(r: &mut Reader, s: &Settings) {
    let Some(azure) = &s.azure else {
        return;
    };
    names(r, s, azure);
    ranges(r, s, azure);
    machines(r, s, azure);
    if let Some(address) = &azure.api_address {
        within(r, azure, address.value, address);
    }
    pools(r, s, azure);
    routes(r, s, azure);
    ports(r, s, azure);
    placement(r, azure);
    endpoint(r, s, azure);
}

fn names(r: &mut Reader, s: &Settings, azure: &Azure) {
    let mut find = |message: String, help: &str| {
        r.find(&azure.place.span, message, Some(help.to_owned()));
    };
    if s.name.len() > CLUSTER_NAME {
        let message = format!(
            "name: Azure refuses {:?} within the names of what is made: {} bytes, at most \
             {CLUSTER_NAME}",
            s.name,
            s.name.len()
        );
        find(message, "use a shorter name");
    }
    let shared = s.by_hostname() && s.of_role(Role::Node).next().is_some();
    let own = s.machines.iter();
    let own = own.filter(|m| !shared || m.role.value != Role::Node);
    let documents = own.count() + usize::from(shared) + s.pools.len();
    if documents > DOCUMENTS {
        let message =
            format!("azure: a template takes {DOCUMENTS} documents, and these are {documents}");
        find(message, "use pools, or nodeDocuments: by-hostname");
    }
    for pool in s
        .pools
        .iter()
        .filter(|p| p.name.value.as_str().len() > POOL_NAME)
    {
        let message = format!(
            "{}: Azure refuses names of machines that begin with {}: at most {POOL_NAME} bytes",
            pool.name.path, pool.name.value
        );
        r.find(&pool.name.span, message, None);
    }
}

fn ranges(r: &mut Reader, s: &Settings, azure: &Azure) {
    let vnet = &azure.vnet;
    for (nets, whose) in [
        (&s.network.pod_cidrs, "pods"),
        (&s.network.service_cidrs, "services"),
    ] {
        if let Some(net) = nets.iter().find(|n| overlap(&n.value, &vnet.value.into())) {
            let message = format!(
                "{}: {} overlaps with {whose} {}",
                vnet.path, vnet.value, net.value
            );
            r.find(&vnet.span, message, None);
        }
    }
    let mut names = BTreeSet::new();
    for (i, subnet) in azure.subnets.iter().enumerate() {
        let range = &subnet.range;
        if !vnet.value.contains(&range.value) {
            let message = format!(
                "{}: {} is not within the network {}",
                range.path, range.value, vnet.value
            );
            r.find(&range.span, message, None);
        }
        if range.value.prefix_len() > SMALLEST {
            let message = format!(
                "{}: {} is too small: Azure keeps five addresses, and takes no less than /{SMALLEST}",
                range.path, range.value
            );
            r.find(&range.span, message, None);
        }
        let net: IpNet = range.value.into();
        let mut before = azure.subnets[..i].iter();
        if let Some(other) = before.find(|o| overlap(&o.range.value.into(), &net)) {
            let message = format!(
                "{}: overlaps with {} ({})",
                range.path, other.range.path, other.range.value
            );
            r.find(&range.span, message, None);
        }
        // Azure's names differ by more than by case.
        if !names.insert(subnet.name.value.to_ascii_lowercase()) {
            let message = format!(
                "{}: {} is the name of another subnet too",
                subnet.name.path, subnet.name.value
            );
            r.find(&subnet.name.span, message, None);
        }
    }
}

/// Whether an address is one that Azure keeps: the first four and the last.
/// Source: Azure documentation, "Virtual network FAQ".
fn reserved(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    let nth = u32::from(address) - u32::from(subnet.network());
    nth < 4 || address == subnet.broadcast()
}

fn within<T>(r: &mut Reader, azure: &Azure, address: Ipv4Addr, at: &At<T>) {
    let Some(subnet) = azure.subnet_of(address) else {
        let ranges: Vec<String> = azure
            .subnets
            .iter()
            .map(|s| format!("{} ({})", s.range.value, s.name.value))
            .collect();
        let message = format!("{}: {address} is in no subnet", at.path);
        let help = format!("azure.subnets has {}", ranges.join(", "));
        r.find(&at.span, message, Some(help));
        return;
    };
    if reserved(subnet.range.value, address) {
        let message = format!(
            "{}: Azure keeps {address} for itself: the first four and the last of {}",
            at.path, subnet.range.value
        );
        r.find(&at.span, message, None);
    }
}

/// Each has one address, which its interface keeps.
fn machines(r: &mut Reader, s: &Settings, azure: &Azure) {
    for machine in &s.machines {
        if machine.addresses.is_empty() {
            let message = format!("{}.address: missing", machine.path());
            let help = "on Azure a machine's interface keeps one address of a subnet";
            r.find(&machine.name.span, message, Some(help.to_owned()));
        }
        for address in &machine.addresses {
            let IpAddr::V4(ipv4) = address.value else {
                let message = format!(
                    "{}: {} is IPv6: what is made on Azure has IPv4 only",
                    address.path, address.value
                );
                r.find(&address.span, message, None);
                continue;
            };
            within(r, azure, ipv4, address);
            if azure.api_address.as_ref().is_some_and(|a| a.value == ipv4) {
                let message = format!(
                    "{}: {ipv4} is the load balancer's (azure.apiAddress)",
                    address.path
                );
                r.find(&address.span, message, None);
            }
        }
    }
}

fn pools(r: &mut Reader, s: &Settings, azure: &Azure) {
    let mut seen = BTreeSet::new();
    for pool in &azure.pools {
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
        if let Some(subnet) = &pool.subnet
            && !azure.subnets.iter().any(|s| s.name.value == subnet.value)
        {
            let message = format!("{}: no subnet is called {}", subnet.path, subnet.value);
            r.find(&subnet.span, message, None);
        }
    }
}

/// Azure's network hands a packet to whom its address or a route names.
fn routes(r: &mut Reader, s: &Settings, azure: &Azure) {
    if s.network.mode == NetworkMode::HostGw {
        let message =
            "network.mode: host-gw: Azure hands no packet to a neighbour for what is behind it";
        let help = "write vxlan, or routed for a route of Azure's a machine";
        r.find(&azure.place.span, message, Some(help.to_owned()));
    }
    if s.network.mode != NetworkMode::Routed {
        return;
    }
    for pool in &s.pools {
        let message = format!(
            "{}: with network.mode: routed each machine has a route, and nobody knows those of \
             {} yet",
            pool.name.path, pool.name.value
        );
        let help = "write vxlan, or name the machines in nodes";
        r.find(&pool.name.span, message, Some(help.to_owned()));
    }
    for net in s
        .network
        .pod_cidrs
        .iter()
        .filter(|n| matches!(n.value, IpNet::V6(_)))
    {
        let message = format!(
            "{}: {} is IPv6: routes that are made on Azure are IPv4",
            net.path, net.value
        );
        r.find(&net.span, message, None);
    }
    let routed = s.machines.iter().filter(|m| m.role.value.runs_kubelet());
    let count = routed.count();
    if count > ROUTES {
        let message = format!(
            "network.mode: routed: a table takes {ROUTES} routes, and machines need {count}"
        );
        r.find(&azure.place.span, message, Some("write vxlan".to_owned()));
    }
}

fn ports(r: &mut Reader, s: &Settings, azure: &Azure) {
    let Some(first) = &azure.ssh_ports else {
        return;
    };
    if azure.ssh_from.is_empty() {
        let message = format!("{}: nobody may come in by ssh", first.path);
        let help = "say who in azure.sshFrom, or leave it out";
        r.find(&first.span, message, Some(help.to_owned()));
    }
    let ports = u32::from(first.value)..u32::from(first.value) + s.machines.len() as u32;
    let api = s.endpoint.as_ref().map_or(s.api_port(), |e| e.value.port);
    if ports.contains(&api.into()) && azure.api_address.is_none() {
        let message = format!("{}: the API server's port {api} is one of them", first.path);
        r.find(&first.span, message, Some("begin with another".to_owned()));
    }
    // The load balancer keeps the last one. Source: Azure documentation,
    // "Inbound NAT rules".
    if ports.end > 65_535 {
        let message = format!(
            "{}: there are not enough for {} machines",
            first.path,
            s.machines.len()
        );
        r.find(&first.span, message, None);
    }
}

fn placement(r: &mut Reader, azure: &Azure) {
    let mut seen = BTreeSet::new();
    for zone in &azure.zones {
        if !seen.insert(zone.value) {
            let message = format!("{}: {} is said twice", zone.path, zone.value);
            r.find(&zone.span, message, None);
        }
    }
    if let Some(domains) = azure
        .fault_domains
        .as_ref()
        .filter(|_| !azure.zones.is_empty())
    {
        let message = format!(
            "{}: machines in zones are in no availability set",
            domains.path
        );
        let help = "leave it out, or leave zones out";
        r.find(&domains.span, message, Some(help.to_owned()));
    }
}

/// From inside, the public address is reached with an address that nobody knows
/// beforehand, and that is let in from nowhere.
fn endpoint(r: &mut Reader, s: &Settings, azure: &Azure) {
    let open = azure.api_from.iter().any(|net| net.value.prefix_len() == 0);
    let (Some(endpoint), Some(name)) = (&s.endpoint, azure.public_name()) else {
        return;
    };
    if endpoint.value.host == Host::Name(name) && !s.balanced() && !open {
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
    let Some(azure) = &s.azure else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for net in azure.ssh_from.iter().filter(|n| n.value.prefix_len() == 0) {
        let message = format!("{}: ssh is open to the world", net.path);
        all.push((message, "name the ranges from which you come"));
    }
    if s.platform != Some(Platform::Azure) {
        let message = "azure: nothing is made of it without platform: azure".to_owned();
        all.push((
            message,
            "write platform: azure, or call kgen with --platform azure",
        ));
    }
    all
}
