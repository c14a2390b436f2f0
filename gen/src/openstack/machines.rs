//! Machines: where each is, what it is made from, and with which document it
//! boots.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use units::node_config::NetworkMode;
use units::types::Role;

use super::access::{MACHINES, MASTERS};
use crate::cluster::{Cluster, Machine, Openstack};

/// A machine.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name, which is the Node's.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// The address that its port keeps; absent: any of the subnet.
    pub address: Option<Ipv4Addr>,
    /// Ranges from which it may send besides its address.
    pub pairs: Vec<Ipv4Net>,
    /// What it is.
    pub flavor: String,
    /// Its availability zone.
    pub zone: Option<String>,
    /// Whether it gets an address outside.
    pub floating: bool,
    /// The document that it boots with.
    pub document: String,
}

impl Server {
    /// The security groups of its port.
    pub fn groups(&self) -> &'static [&'static str] {
        match self.role {
            Role::Master => &[MACHINES, MASTERS],
            Role::Node | Role::Etcd => &[MACHINES],
        }
    }
}

/// The address of a machine, if it is known.
pub fn ipv4(machine: &Machine) -> Option<Ipv4Addr> {
    machine.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// The machines of the settings in their order, then those of pools.
pub fn servers(cluster: &Cluster, openstack: &Openstack) -> Vec<Server> {
    let mut of_role: BTreeMap<Role, usize> = BTreeMap::new();
    let mut zone = |role: Role| {
        let nth = of_role.entry(role).or_default();
        let zone = openstack.zones.get(*nth % openstack.zones.len().max(1));
        *nth += 1;
        zone.map(|zone| zone.value.clone())
    };
    let mut servers = Vec::new();
    for machine in &cluster.machines {
        let shared = cluster.pools.iter().find(|p| p.has_host(&machine.name));
        let named =
            |wanted: &str| wanted == machine.name.as_str() || wanted == machine.role.as_str();
        servers.push(Server {
            name: machine.name.to_string(),
            role: machine.role,
            address: ipv4(machine),
            pairs: pairs(cluster, machine),
            flavor: openstack.flavor(machine.role).to_owned(),
            zone: zone(machine.role),
            floating: openstack.floating_ips.iter().any(|f| named(&f.value)),
            document: shared.unwrap_or(machine).name.to_string(),
        });
    }
    for pool in cluster.pools.iter().filter(|pool| pool.is_pool()) {
        let typed = openstack.pools.iter().find(|p| p.name.value == pool.name);
        let flavor = typed.and_then(|p| p.flavor.as_deref());
        for i in 1..=typed.map_or(1, |p| p.count) {
            servers.push(Server {
                name: format!("{}-{i}", pool.name),
                role: pool.role,
                address: None,
                pairs: pairs(cluster, pool),
                flavor: flavor.unwrap_or(openstack.flavor(pool.role)).to_owned(),
                zone: zone(pool.role),
                floating: false,
                document: pool.name.to_string(),
            });
        }
    }
    servers
}

/// Where pods' packets leave a machine as they are, Neutron has to know of
/// them; in a tunnel they are the machine's own. Which range a machine is given
/// later, or what a network of somebody else's does, is not known: then all.
fn pairs(cluster: &Cluster, machine: &Machine) -> Vec<Ipv4Net> {
    let ipv4 = |nets: &[IpNet]| -> Vec<Ipv4Net> {
        let nets = nets.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        });
        nets.collect()
    };
    let own = ipv4(&machine.pod_cidrs);
    match cluster.network_mode {
        _ if !machine.role.runs_kubelet() => Vec::new(),
        NetworkMode::Vxlan => Vec::new(),
        NetworkMode::Routed | NetworkMode::HostGw if !own.is_empty() => own,
        NetworkMode::Routed | NetworkMode::HostGw | NetworkMode::None => ipv4(&cluster.pod_cidrs),
    }
}
