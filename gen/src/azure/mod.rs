//! A cluster on Azure: what is made there, as a template and as a script.
//!
//! [`Deployment`] is what is meant, from the cluster alone; [`template`] and
//! [`script`] write it down, each in its own language. Neither sees a key: the
//! documents are put into the parameters, or are read where they are.

mod access;
mod machines;
pub mod script;
pub mod template;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use units::node_config::NetworkMode;
use units::types::Role;

pub use access::{Action, Rule};
pub use machines::{Disk, Place, ScaleSet, Vm};

use crate::cluster::{Azure, Cluster};
use crate::format::Format;

/// The tag of a group and of everything in it that was made for a cluster.
pub const TAG: &str = "kgen-cluster";

/// What is made on Azure.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The cluster's name.
    pub cluster: String,
    /// The region.
    pub location: String,
    /// The resource group.
    pub group: String,
    /// The network's range.
    pub vnet: Ipv4Net,
    /// Its subnets: name and range.
    pub subnets: Vec<(String, Ipv4Net)>,
    /// Who may come in.
    pub rules: Vec<Rule>,
    /// The first label of the public address's name.
    pub dns_label: Option<String>,
    /// Zones in which addresses of load balancers are.
    pub zones: Vec<u8>,
    /// How the API server is reached.
    pub api: Api,
    /// Routes to machines' pod ranges: name, range and next hop; none where
    /// Azure has no part in it.
    pub routes: Option<Vec<(String, Ipv4Net, Ipv4Addr)>>,
    /// Availability sets, by role, and how many fault domains each has.
    pub sets: Vec<(Role, u8)>,
    /// Machines with names.
    pub machines: Vec<Vm>,
    /// Pools.
    pub pools: Vec<ScaleSet>,
    /// Who logs in by ssh.
    pub user: String,
    /// Public keys of that account.
    pub keys: Vec<String>,
    /// Disks of machines.
    pub disk: Disk,
}

/// The load balancer before the API servers.
#[derive(Debug, Clone)]
pub struct Api {
    /// A private address and the name of its subnet; absent: the public one.
    pub internal: Option<(Ipv4Addr, String)>,
    /// The port of the load balancer.
    pub port: u16,
    /// The port of the API servers.
    pub backend_port: u16,
}

impl Deployment {
    /// What a cluster with machines on Azure means. `format` decides which
    /// image they have where none was typed.
    pub fn new(cluster: &Cluster, azure: &Azure, format: Format) -> Self {
        let default_group = || cluster.name.clone();
        let subnets = azure.subnets.iter();
        Self {
            cluster: cluster.name.clone(),
            location: azure.location.clone(),
            group: azure.resource_group.clone().unwrap_or_else(default_group),
            vnet: azure.vnet.value,
            subnets: subnets
                .map(|s| (s.name.value.clone(), s.range.value))
                .collect(),
            rules: access::rules(cluster, azure),
            dns_label: azure.dns_label.as_ref().map(|label| label.value.clone()),
            zones: azure.zones.iter().map(|zone| zone.value).collect(),
            api: api(cluster, azure),
            routes: routes(cluster),
            sets: machines::sets(cluster, azure),
            machines: machines::named(cluster, azure, format),
            pools: machines::pools(cluster, azure, format),
            user: azure.admin_user.clone(),
            keys: azure.ssh_keys.clone(),
            disk: Disk {
                kind: azure.disk_type.clone(),
                gb: azure.disk_gb,
            },
        }
    }

    /// The names of documents that machines boot with, each once.
    pub fn documents(&self) -> Vec<&str> {
        let named = self.machines.iter().map(|vm| vm.document.as_str());
        let pools = self.pools.iter().map(|pool| pool.name.as_str());
        let mut names: Vec<&str> = named.chain(pools).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The name of something that there is once.
    fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.cluster)
    }

    /// The name of an availability set.
    fn set(&self, role: Role) -> String {
        self.named(&format!("{role}-set"))
    }

    /// The load balancer before the API servers, and its frontend.
    fn api_balancer(&self) -> (String, &'static str) {
        match self.api.internal {
            Some(_) => (self.named("api-lb"), "api"),
            None => (self.named("lb"), "public"),
        }
    }
}

fn api(cluster: &Cluster, azure: &Azure) -> Api {
    let internal = azure.api_address.as_ref().and_then(|address| {
        let subnet = azure.subnet_of(address.value)?;
        Some((address.value, subnet.name.value.clone()))
    });
    Api {
        internal,
        port: cluster.endpoint.port,
        backend_port: cluster.api_port,
    }
}

/// One route a machine with pods, where the network is to carry their packets.
fn routes(cluster: &Cluster) -> Option<Vec<(String, Ipv4Net, Ipv4Addr)>> {
    if cluster.network_mode != NetworkMode::Routed {
        return None;
    }
    let of = |machine: &crate::cluster::Machine| {
        let range = machine.pod_cidrs.iter().find_map(|net| match net {
            ipnet::IpNet::V4(net) => Some(*net),
            ipnet::IpNet::V6(_) => None,
        })?;
        let next = machines::ipv4(machine)?;
        Some((machine.name.to_string(), range, next))
    };
    Some(cluster.machines.iter().filter_map(of).collect())
}
