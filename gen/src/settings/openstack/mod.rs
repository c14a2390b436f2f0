//! `openstack`: the network, the machines and the access that are made there.

mod check;
mod values;

use std::net::Ipv4Addr;

use ::units::types::{NodeName, Role};
use ipnet::Ipv4Net;

pub use values::{LoadBalancer, ServerGroups};
use values::{flavor, ipv4, range, resource};

use super::keys::number;
use crate::yaml::{At, Node, Object, Reader};

pub use check::{check, warnings};

/// The range of machines, if nothing was typed and their network is made.
const CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24);
/// What machines are, if nothing was typed: two processors and 4 GiB where
/// flavors are as OpenStack came with them.
const FLAVOR: &str = "m1.medium";

/// What there is on OpenStack besides what every cluster has.
#[derive(Debug, Clone)]
pub struct Openstack {
    /// Where `openstack` stands.
    pub place: At<()>,
    /// The range of machines; absent where their network is there already and
    /// nobody said.
    pub cidr: Option<At<Ipv4Net>>,
    /// A network that is there, and its subnet; absent: one is made.
    pub existing: Option<Existing>,
    /// The network outside, for the router and for floating addresses.
    pub external_network: Option<At<String>>,
    /// A router that is there; absent: one is made with the network.
    pub router: Option<At<String>>,
    /// Whom machines ask for names.
    pub dns_servers: Vec<At<Ipv4Addr>>,
    /// What machines' disks are made from; absent: it follows the format.
    pub image: Option<String>,
    /// What machines are, by role, where it was typed.
    pub flavors: Vec<(Role, String)>,
    /// A key pair of Nova's that is given to machines.
    pub key_name: Option<String>,
    /// The zones over which each role's machines are spread.
    pub zones: Vec<At<String>>,
    /// Who may come in by ssh.
    pub ssh_from: Vec<At<Ipv4Net>>,
    /// Who reaches the API server from outside.
    pub api_from: Vec<At<Ipv4Net>>,
    /// Machines, or all of a role, that get an address outside.
    pub floating_ips: Vec<At<String>>,
    /// An address outside that the project has, for the API server.
    pub api_floating_ip: Option<At<Ipv4Addr>>,
    /// Who is before the API servers.
    pub load_balancer: LoadBalancer,
    /// The load balancer's address among the machines.
    pub api_address: Option<At<Ipv4Addr>>,
    /// Whether masters, and members of etcd, are kept apart.
    pub server_groups: ServerGroups,
    /// GiB of a volume that each machine boots from; absent: from its flavor's
    /// disk.
    pub volume_gb: Option<u16>,
    /// The machines of pools.
    pub pools: Vec<Pool>,
}

/// A network that is there.
#[derive(Debug, Clone)]
pub struct Existing {
    /// Its name or ID.
    pub network: At<String>,
    /// The name or ID of its subnet.
    pub subnet: At<String>,
}

/// The machines of a pool.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The pool's name.
    pub name: At<NodeName>,
    /// How many there are.
    pub count: u16,
    /// What they are; absent: as nodes are.
    pub flavor: Option<String>,
}

impl Openstack {
    /// The range of machines, typed or not.
    pub fn range(&self) -> Ipv4Net {
        self.cidr.as_ref().map_or(CIDR, |cidr| cidr.value)
    }

    /// The addresses that are handed out to whoever comes, where the network is
    /// made: the upper half. What has an address of its own is below, so that
    /// nobody else gets it.
    pub fn dynamic(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        if self.existing.is_some() {
            return None;
        }
        let net = self.range();
        let upper = net.subnets(net.prefix_len().checked_add(1)?).ok()?.nth(1)?;
        let last = u32::from(upper.broadcast()).checked_sub(1)?;
        Some((upper.network(), last.into()))
    }
}

/// Reads `openstack`.
pub fn read(r: &mut Reader, node: &Node, path: &str) -> Option<Openstack> {
    let mut o = r.object(node, path)?;
    let span = o.span.clone();
    let existing = existing(r, &mut o);
    let assumed = || At {
        value: CIDR,
        span: span.clone(),
        path: format!("{path}.cidr"),
    };
    let cidr = o.read(r, "cidr", range);
    let openstack = Openstack {
        place: At {
            value: (),
            span: span.clone(),
            path: path.to_owned(),
        },
        cidr: match &existing {
            None => Some(cidr.unwrap_or_else(assumed)),
            Some(_) => cidr,
        },
        existing,
        external_network: o.read(r, "externalNetwork", resource),
        router: o.read(r, "router", resource),
        dns_servers: list(r, &mut o, "dnsServers", ipv4),
        image: value(o.read(r, "image", resource)),
        flavors: flavors(r, &mut o),
        key_name: value(o.read(r, "keyName", resource)),
        zones: list(r, &mut o, "availabilityZones", resource),
        ssh_from: list(r, &mut o, "sshFrom", range),
        api_from: list(r, &mut o, "apiFrom", range),
        floating_ips: list(r, &mut o, "floatingIPs", resource),
        api_floating_ip: o.read(r, "apiFloatingIP", ipv4),
        load_balancer: value(o.read(r, "loadBalancer", Reader::parse)).unwrap_or_default(),
        api_address: o.read(r, "apiAddress", ipv4),
        server_groups: value(o.read(r, "serverGroups", Reader::parse)).unwrap_or_default(),
        volume_gb: value(o.read(r, "volumeGB", |r, n, p| number(r, n, p, 8..=16_384))),
        pools: list(r, &mut o, "pools", pool),
    };
    o.finish(r);
    Some(openstack)
}

impl Openstack {
    /// What machines of a role are.
    pub fn flavor(&self, role: Role) -> &str {
        let typed = self.flavors.iter().find(|(of, _)| *of == role);
        typed.map_or(FLAVOR, |(_, flavor)| flavor)
    }
}

fn value<T>(at: Option<At<T>>) -> Option<T> {
    at.map(|at| at.value)
}

fn list<T>(
    r: &mut Reader,
    o: &mut Object<'_>,
    key: &'static str,
    item: impl FnMut(&mut Reader, &Node, &str) -> Option<T>,
) -> Vec<T> {
    match o.get(key) {
        Some((node, path)) => r.list(node, &path, item),
        None => Vec::new(),
    }
}

fn existing(r: &mut Reader, o: &mut Object<'_>) -> Option<Existing> {
    let network = o.read(r, "existingNetwork", resource);
    let subnet = o.read(r, "existingSubnet", resource);
    match (network, subnet) {
        (Some(network), Some(subnet)) => Some(Existing { network, subnet }),
        (None, None) => None,
        (Some(at), None) | (None, Some(at)) => {
            let message = format!(
                "{}: existingNetwork and existingSubnet go together",
                at.path
            );
            r.find(&at.span, message, None);
            None
        }
    }
}

fn pool(r: &mut Reader, node: &Node, path: &str) -> Option<Pool> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", Reader::parse);
    let count = o.read(r, "count", |r, n, p| number(r, n, p, 0..=500));
    let flavor = o.read(r, "flavor", flavor);
    o.finish(r);
    Some(Pool {
        name: name?,
        count: value(count).unwrap_or(1),
        flavor: value(flavor),
    })
}

fn flavors(r: &mut Reader, o: &mut Object<'_>) -> Vec<(Role, String)> {
    let Some((node, path)) = o.get("flavors") else {
        return Vec::new();
    };
    let Some(mut o) = r.object(node, &path) else {
        return Vec::new();
    };
    let mut flavors = Vec::new();
    for role in Role::ALL {
        if let Some(flavor) = o.read(r, role.as_str(), flavor) {
            flavors.push((role, flavor.value));
        }
    }
    o.finish(r);
    flavors
}
