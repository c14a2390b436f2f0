//! How machines reach the API server: at the endpoint, through their own
//! balancer, or at their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use units::types::Role;

use super::{Cluster, Machine, url_host};
use crate::settings::BALANCER;

impl Cluster {
    /// The address by which a master's API server is told to others: of the
    /// family of services.
    pub fn advertised(&self, master: &Machine) -> Option<IpAddr> {
        let net = self.service_cidrs.first()?;
        let family = |a: &&IpAddr| a.is_ipv4() == net.addr().is_ipv4();
        master.addresses.iter().find(family).copied()
    }

    /// How kubelet and kube-proxy on `machine` reach the API server: through
    /// the balancer, or at its own where there is one.
    pub fn api_url(&self, machine: &Machine) -> String {
        match machine.role {
            Role::Master if !self.balanced => self.own_api_url(),
            _ => self.node_endpoint(machine),
        }
    }

    /// How the control plane on a master reaches the API server beside it.
    pub fn own_api_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// What `machine` takes for the cluster's endpoint. A machine without
    /// kubelet has no balancer.
    pub fn node_endpoint(&self, machine: &Machine) -> String {
        if self.balanced && machine.role.runs_kubelet() {
            format!("https://{}", self.balancer())
        } else {
            self.endpoint.to_string()
        }
    }

    /// Where every machine's balancer listens.
    pub fn balancer(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, BALANCER))
    }

    /// The API servers of all masters, `HOST:PORT`; by name where an address
    /// is not known.
    pub fn api_servers(&self) -> Vec<String> {
        let host = |master: &Machine| match self.advertised(master).or(master.address()) {
            Some(address) => url_host(address),
            None => master.name.to_string(),
        };
        let masters = self.of_role(Role::Master);
        masters
            .map(|master| format!("{}:{}", host(master), self.api_port))
            .collect()
    }
}
