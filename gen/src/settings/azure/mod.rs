//! `azure`: the network, the machines and the access that are made there.

mod check;
mod values;

use std::net::Ipv4Addr;

use ::units::types::{Arch, NodeName, Role};
use ipnet::Ipv4Net;

pub use values::Image;
use values::{
    account, dns_label, group, image, ipv4, location, range, resource, size, taken_key, zone,
};

use super::keys::number;
use crate::yaml::{At, Node, Object, Reader};

pub use check::{check, warnings};

/// Where machines are, if nothing was typed.
const LOCATION: &str = "westeurope";
/// The network's range, if nothing was typed.
const VNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16);
/// The prefix length of the only subnet, if none was typed.
const SUBNET: u8 = 20;
/// Who logs in by ssh, if nothing was typed: as the az command has it.
const USER: &str = "azureuser";

/// What there is on Azure besides what every cluster has.
#[derive(Debug, Clone)]
pub struct Azure {
    /// Where `azure` stands.
    pub place: At<()>,
    /// The region.
    pub location: String,
    /// The resource group; absent: called by the cluster.
    pub resource_group: Option<String>,
    /// The network's range.
    pub vnet: At<Ipv4Net>,
    /// Its subnets, never none.
    pub subnets: Vec<Subnet>,
    /// Who may come in by ssh.
    pub ssh_from: Vec<At<Ipv4Net>>,
    /// Who reaches the API server from outside.
    pub api_from: Vec<At<Ipv4Net>>,
    /// The first of the public address's ports that lead to ssh of machines,
    /// in listing order.
    pub ssh_ports: Option<At<u16>>,
    /// The private address of the API server's load balancer; absent: it is
    /// reached at the public one.
    pub api_address: Option<At<Ipv4Addr>>,
    /// The public address's name before `.LOCATION.cloudapp.azure.com`.
    pub dns_label: Option<At<String>>,
    /// The zones over which each role's machines are spread; none: they are in
    /// an availability set a role.
    pub zones: Vec<At<u8>>,
    /// How many fault domains an availability set has.
    pub fault_domains: Option<At<u8>>,
    /// The sizes of machines that were typed, by role.
    pub sizes: Vec<(Role, String)>,
    /// The images of machines that were typed, by processor.
    pub images: Vec<(Arch, Image)>,
    /// The kind of disk.
    pub disk_type: String,
    /// GiB of the disk; absent: the image's.
    pub disk_gb: Option<u16>,
    /// Who logs in by ssh.
    pub admin_user: String,
    /// Public keys of that account, never none.
    pub ssh_keys: Vec<String>,
    /// The scale sets of pools.
    pub pools: Vec<Pool>,
}

/// A subnet.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Its name.
    pub name: At<String>,
    /// Its range.
    pub range: At<Ipv4Net>,
}

/// The scale set of a pool.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The pool's name.
    pub name: At<NodeName>,
    /// How many machines there are to begin with.
    pub count: u16,
    /// Their size; absent: that of nodes.
    pub size: Option<String>,
    /// The name of their subnet; absent: the first.
    pub subnet: Option<At<String>>,
}

impl Azure {
    /// The name of the public address, if it has one.
    pub fn public_name(&self) -> Option<String> {
        let label = self.dns_label.as_ref()?;
        Some(format!(
            "{}.{}.cloudapp.azure.com",
            label.value, self.location
        ))
    }

    /// The subnet of an address.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        let mut subnets = self.subnets.iter();
        subnets.find(|subnet| subnet.range.value.contains(&address))
    }
}

/// Reads `azure`; `keys` are those of `ssh.authorizedKeys`.
pub fn read(r: &mut Reader, node: &Node, path: &str, keys: &[String]) -> Option<Azure> {
    let mut o = r.object(node, path)?;
    let place = At {
        value: (),
        span: o.span.clone(),
        path: path.to_owned(),
    };
    let assumed = |key: &str| (place.span.clone(), format!("{path}.{key}"));
    let vnet = o.read(r, "vnet", range).unwrap_or_else(|| {
        let (span, path) = assumed("vnet");
        At {
            value: VNET,
            span,
            path,
        }
    });
    let mut subnets = match o.get("subnets") {
        Some((node, path)) => r.list(node, &path, subnet),
        None => Vec::new(),
    };
    if subnets.is_empty() {
        subnets.push(whole(&vnet));
    }
    let azure = Azure {
        location: text(o.read(r, "location", location)).unwrap_or_else(|| LOCATION.to_owned()),
        resource_group: text(o.read(r, "resourceGroup", group)),
        ssh_from: list(r, &mut o, "sshFrom", range),
        api_from: list(r, &mut o, "apiFrom", range),
        ssh_ports: o.read(r, "sshPorts", |r, n, p| number(r, n, p, 1024..=65_000)),
        api_address: o.read(r, "apiAddress", ipv4),
        dns_label: o.read(r, "dnsLabel", dns_label),
        zones: list(r, &mut o, "zones", zone),
        fault_domains: o.read(r, "faultDomains", |r, n, p| number(r, n, p, 1..=3)),
        sizes: sizes(r, &mut o),
        images: images(r, &mut o),
        disk_type: text(o.read(r, "diskType", resource))
            .unwrap_or_else(|| "Premium_LRS".to_owned()),
        disk_gb: text(o.read(r, "diskGB", |r, n, p| number(r, n, p, 8..=4095))),
        admin_user: text(o.read(r, "adminUser", account)).unwrap_or_else(|| USER.to_owned()),
        ssh_keys: ssh_keys(r, &place, keys),
        pools: list(r, &mut o, "pools", pool),
        vnet,
        subnets,
        place,
    };
    o.finish(r);
    Some(azure)
}

fn text<T>(at: Option<At<T>>) -> Option<T> {
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

/// The only subnet: the first part of a network, which leaves room for others,
/// or all of a small one.
fn whole(vnet: &At<Ipv4Net>) -> Subnet {
    let first = vnet.value.subnets(SUBNET).ok();
    let range = first.and_then(|mut nets| nets.next());
    Subnet {
        name: At {
            value: "machines".to_owned(),
            span: vnet.span.clone(),
            path: vnet.path.clone(),
        },
        range: At {
            value: range.unwrap_or(vnet.value),
            span: vnet.span.clone(),
            path: vnet.path.clone(),
        },
    }
}

fn subnet(r: &mut Reader, node: &Node, path: &str) -> Option<Subnet> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", resource);
    let range = o.required(r, "range", range);
    o.finish(r);
    Some(Subnet {
        name: name?,
        range: range?,
    })
}

fn pool(r: &mut Reader, node: &Node, path: &str) -> Option<Pool> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", Reader::parse);
    // Source: Azure documentation, "Azure subscription and service limits".
    let count = o.read(r, "count", |r, n, p| number(r, n, p, 0..=1000));
    let size = o.read(r, "size", size);
    let subnet = o.read(r, "subnet", resource);
    o.finish(r);
    Some(Pool {
        name: name?,
        count: text(count).unwrap_or(1),
        size: text(size),
        subnet,
    })
}

fn sizes(r: &mut Reader, o: &mut Object<'_>) -> Vec<(Role, String)> {
    let Some((node, path)) = o.get("sizes") else {
        return Vec::new();
    };
    let Some(mut o) = r.object(node, &path) else {
        return Vec::new();
    };
    let mut sizes = Vec::new();
    for role in Role::ALL {
        if let Some(size) = o.read(r, role.as_str(), size) {
            sizes.push((role, size.value));
        }
    }
    o.finish(r);
    sizes
}

fn images(r: &mut Reader, o: &mut Object<'_>) -> Vec<(Arch, Image)> {
    let Some((node, path)) = o.get("images") else {
        return Vec::new();
    };
    let Some(mut o) = r.object(node, &path) else {
        return Vec::new();
    };
    let mut images = Vec::new();
    for (arch, key) in [(Arch::Amd64, "amd64"), (Arch::Arm64, "arm64")] {
        if let Some(image) = o.read(r, key, image) {
            images.push((arch, image.value));
        }
    }
    o.finish(r);
    images
}

/// The keys that Azure takes for its own account.
fn ssh_keys(r: &mut Reader, place: &At<()>, keys: &[String]) -> Vec<String> {
    let keys: Vec<String> = keys.iter().filter(|key| taken_key(key)).cloned().collect();
    if keys.is_empty() {
        let message =
            "ssh.authorizedKeys: no key that Azure takes, and it makes no machine without";
        let help = "write ssh: {authorizedKeys: [\"@id_ed25519.pub\"]}; it takes ssh-ed25519 and \
                    ssh-rsa keys, and only the public ones leave this machine";
        r.find(&place.span, message, Some(help.to_owned()));
    }
    keys
}
