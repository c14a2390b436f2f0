//! A cluster on OpenStack: what is made there, as a Heat template and as
//! scripts of the openstack client; and the routes to pods of a router, which
//! [`routes`] plans and [`neutron`] asks for.
//!
//! [`Deployment`] is what is meant, from the cluster alone. Neither template
//! nor scripts have a key in them: documents are parameters of their own.

mod access;
pub mod credentials;
pub mod http;
pub mod keystone;
mod machines;
pub mod neutron;
pub mod routes;
pub mod script;
pub mod template;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use units::types::Role;

pub use access::{Group, Origin, Rule};
pub use machines::Server;

use crate::cluster::{Cluster, Openstack};
use crate::format::Format;
use crate::settings::LoadBalancer;

/// The tag of what was made for a cluster, before its name.
pub const TAG: &str = "kgen-cluster";

/// What is made on OpenStack.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The cluster's name.
    pub cluster: String,
    /// The machines' network.
    pub network: Network,
    /// What machines' disks are made from.
    pub image: String,
    /// A key pair of Nova's for them.
    pub key_name: Option<String>,
    /// GiB of the volume that they boot from; absent: from their flavor's disk.
    pub volume_gb: Option<u16>,
    /// Who may come in.
    pub groups: Vec<Group>,
    /// Roles whose machines are kept apart, and by which policy.
    pub server_groups: Vec<(Role, &'static str)>,
    /// The machines, those of pools among them.
    pub servers: Vec<Server>,
    /// The load balancer before the API servers.
    pub balancer: Option<Balancer>,
    /// An address outside that the project has, for the API server.
    pub api_floating_ip: Option<Ipv4Addr>,
    /// The network outside.
    pub external: Option<String>,
}

/// The network of the machines.
#[derive(Debug, Clone)]
pub enum Network {
    /// One that is there.
    Existing {
        /// Its name or ID.
        network: String,
        /// The name or ID of its subnet.
        subnet: String,
    },
    /// One that is made.
    Made {
        /// Its range.
        cidr: Ipv4Net,
        /// What is handed out to whoever comes.
        dynamic: Option<(Ipv4Addr, Ipv4Addr)>,
        /// Whom machines ask for names.
        dns_servers: Vec<Ipv4Addr>,
        /// A router that is there; absent: one is made.
        router: Option<String>,
    },
}

/// The load balancer before the API servers.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// Its address among the machines.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// The port of the API servers.
    pub backend_port: u16,
    /// The addresses of masters, by name.
    pub masters: Vec<(String, Ipv4Addr)>,
    /// Who reaches it; none: everybody.
    pub from: Vec<Ipv4Net>,
}

impl Deployment {
    /// What a cluster with machines on OpenStack means. `format` decides which
    /// image they have where none was typed.
    pub fn new(cluster: &Cluster, openstack: &Openstack, format: Format) -> Self {
        let default_image = || match format {
            Format::CloudInit => "debian-13".to_owned(),
            Format::Coreos | Format::Ignition => "flatcar".to_owned(),
        };
        let voting = |role: &Role| *role != Role::Node && cluster.of_role(*role).count() > 1;
        let policy = openstack.server_groups.policy();
        Self {
            cluster: cluster.name.clone(),
            network: network(openstack),
            image: openstack.image.clone().unwrap_or_else(default_image),
            key_name: openstack.key_name.clone(),
            volume_gb: openstack.volume_gb,
            groups: access::groups(cluster, openstack),
            server_groups: Role::ALL
                .into_iter()
                .filter(voting)
                .filter_map(|role| Some((role, policy?)))
                .collect(),
            servers: machines::servers(cluster, openstack),
            balancer: balancer(cluster, openstack),
            api_floating_ip: openstack.api_floating_ip.as_ref().map(|a| a.value),
            external: openstack.external_network.as_ref().map(|n| n.value.clone()),
        }
    }

    /// The names of documents that machines boot with, each once.
    pub fn documents(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.servers.iter().map(|s| s.document.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The tag of everything that is made.
    pub fn tag(&self) -> String {
        format!("{TAG}={}", self.cluster)
    }

    /// The name of something that there is once.
    fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.cluster)
    }

    /// The machine that the API server's address outside leads to where there
    /// is no load balancer.
    fn first_master(&self) -> Option<&Server> {
        self.servers.iter().find(|s| s.role == Role::Master)
    }
}

fn network(openstack: &Openstack) -> Network {
    match &openstack.existing {
        Some(existing) => Network::Existing {
            network: existing.network.value.clone(),
            subnet: existing.subnet.value.clone(),
        },
        None => Network::Made {
            cidr: openstack.range(),
            dynamic: openstack.dynamic(),
            dns_servers: openstack.dns_servers.iter().map(|a| a.value).collect(),
            router: openstack.router.as_ref().map(|r| r.value.clone()),
        },
    }
}

fn balancer(cluster: &Cluster, openstack: &Openstack) -> Option<Balancer> {
    let address = openstack.api_address.as_ref()?.value;
    if openstack.load_balancer != LoadBalancer::Octavia {
        return None;
    }
    let masters = cluster.of_role(Role::Master);
    let mut from: Vec<Ipv4Net> = openstack.api_from.iter().map(|net| net.value).collect();
    // Machines come by it too.
    from.extend(openstack.cidr.as_ref().map(|cidr| cidr.value));
    Some(Balancer {
        address,
        port: cluster.endpoint.port,
        backend_port: cluster.api_port,
        masters: masters
            .filter_map(|m| Some((m.name.to_string(), machines::ipv4(m)?)))
            .collect(),
        from,
    })
}
