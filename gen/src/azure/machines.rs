//! Machines: where each is, what it is made from, and with which document it
//! boots.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use units::types::{Arch, Role};

use crate::cluster::{Azure, Cluster, Machine};
use crate::format::Format;
use crate::settings::Image;

/// Fault domains of an availability set: as many as every region has.
/// Source: Azure documentation, "Availability sets overview".
const FAULT_DOMAINS: u8 = 2;

/// Disks of machines.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The kind: `Premium_LRS`.
    pub kind: String,
    /// GiB; absent: the image's.
    pub gb: Option<u16>,
}

/// Where a machine is, that not all fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the availability set of its role.
    Set,
    /// In a zone.
    Zone(u8),
}

/// A machine with a name.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its name, which is the Node's.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// The address that its interface keeps.
    pub address: Ipv4Addr,
    /// The name of its subnet.
    pub subnet: String,
    /// Its size.
    pub size: String,
    /// What its disk is made from.
    pub image: Image,
    /// Where it is.
    pub place: Place,
    /// The public port that leads to its ssh.
    pub ssh_port: Option<u16>,
    /// The document that it boots with.
    pub document: String,
}

/// The machines of a pool.
#[derive(Debug, Clone)]
pub struct ScaleSet {
    /// Its name, which is the pool's and that of its document.
    pub name: String,
    /// How many machines there are to begin with.
    pub count: u16,
    /// The name of their subnet.
    pub subnet: String,
    /// Their size.
    pub size: String,
    /// What their disks are made from.
    pub image: Image,
}

/// The address of a machine, if it is known.
pub fn ipv4(machine: &Machine) -> Option<Ipv4Addr> {
    machine.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// An availability set for each role that there is, unless there are zones.
pub fn sets(cluster: &Cluster, azure: &Azure) -> Vec<(Role, u8)> {
    if !azure.zones.is_empty() {
        return Vec::new();
    }
    let domains = azure
        .fault_domains
        .as_ref()
        .map_or(FAULT_DOMAINS, |d| d.value);
    let there = |role: &Role| cluster.of_role(*role).next().is_some();
    let roles = Role::ALL.into_iter().filter(there);
    roles.map(|role| (role, domains)).collect()
}

/// The machines of the settings, in their order.
pub fn named(cluster: &Cluster, azure: &Azure, format: Format) -> Vec<Vm> {
    let mut of_role: BTreeMap<Role, usize> = BTreeMap::new();
    let mut machines = Vec::new();
    for (i, machine) in cluster.machines.iter().enumerate() {
        // Settings without an address in a subnet were refused.
        let Some(address) = ipv4(machine) else {
            continue;
        };
        let Some(subnet) = azure.subnet_of(address) else {
            continue;
        };
        let nth = of_role.entry(machine.role).or_default();
        let place = match azure.zones.get(*nth % azure.zones.len().max(1)) {
            Some(zone) => Place::Zone(zone.value),
            None => Place::Set,
        };
        *nth += 1;
        let mut shared = cluster.pools.iter();
        let shared = shared.find(|pool| pool.has_host(&machine.name));
        machines.push(Vm {
            name: machine.name.to_string(),
            role: machine.role,
            address,
            subnet: subnet.name.value.clone(),
            size: size(azure, machine.role, machine.arch),
            image: image(azure, machine.arch, format),
            place,
            ssh_port: azure.ssh_ports.as_ref().map(|first| first.value + i as u16),
            document: shared.unwrap_or(machine).name.to_string(),
        });
    }
    machines
}

/// The scale sets of all pools.
pub fn pools(cluster: &Cluster, azure: &Azure, format: Format) -> Vec<ScaleSet> {
    let of = |pool: &Machine| {
        let typed = azure.pools.iter().find(|p| p.name.value == pool.name);
        let subnet = typed
            .and_then(|p| p.subnet.as_ref())
            .map(|s| s.value.clone());
        let first = azure.subnets.first().map(|s| s.name.value.clone());
        let size_of_role = || size(azure, Role::Node, pool.arch);
        ScaleSet {
            name: pool.name.to_string(),
            count: typed.map_or(1, |p| p.count),
            subnet: subnet.or(first).unwrap_or_default(),
            size: typed
                .and_then(|p| p.size.clone())
                .unwrap_or_else(size_of_role),
            image: image(azure, pool.arch, format),
        }
    };
    let pools = cluster.pools.iter().filter(|pool| pool.is_pool());
    pools.map(of).collect()
}

fn size(azure: &Azure, role: Role, arch: Arch) -> String {
    let typed = azure.sizes.iter().find(|(of, _)| *of == role);
    // Two processors and 8 GiB, with disks that etcd is quick enough on.
    let default = match arch {
        Arch::Amd64 => "Standard_D2s_v5",
        Arch::Arm64 => "Standard_D2ps_v5",
    };
    typed.map_or_else(|| default.to_owned(), |(_, size)| size.clone())
}

/// The image that was typed, else one that reads documents of the format and
/// takes no terms to be accepted.
fn image(azure: &Azure, arch: Arch, format: Format) -> Image {
    let typed = azure.images.iter().find(|(of, _)| *of == arch);
    if let Some((_, image)) = typed {
        return image.clone();
    }
    let (publisher, offer, sku) = match (format, arch) {
        (Format::CloudInit, Arch::Amd64) => ("Debian", "debian-13", "13-gen2"),
        (Format::CloudInit, Arch::Arm64) => ("Debian", "debian-13", "13-arm64"),
        (_, Arch::Amd64) => (
            "kinvolk",
            "flatcar-container-linux-corevm-amd64",
            "stable-gen2",
        ),
        (_, Arch::Arm64) => ("kinvolk", "flatcar-container-linux-corevm", "stable"),
    };
    Image::Urn {
        publisher: publisher.to_owned(),
        offer: offer.to_owned(),
        sku: sku.to_owned(),
        version: "latest".to_owned(),
    }
}

impl Vm {
    /// The name of its interface.
    pub fn interface(&self) -> String {
        format!("{}-nic", self.name)
    }

    /// The name of the load balancer's rule that leads to its ssh.
    pub fn ssh_rule(&self) -> String {
        format!("ssh-{}", self.name)
    }

    /// Whether it has an API server.
    pub fn is_master(&self) -> bool {
        self.role == Role::Master
    }
}

impl ScaleSet {
    /// How its machines' names begin.
    pub fn prefix(&self) -> String {
        format!("{}-", self.name)
    }
}
