//! A cluster that boots from the network: what iPXE and dnsmasq are told, and
//! what a web server has to serve.
//!
//! [`Deployment`] is what is meant, from the cluster alone; [`ipxe`] and
//! [`dnsmasq`] write it down, [`seed`] puts what cloud-init asks for beside a
//! document, and [`index`] tells `kgen serve` what there is. None sees a key.

pub mod dnsmasq;
pub mod index;
pub mod ipxe;
pub mod seed;

use std::net::{IpAddr, Ipv4Addr};

use crate::cluster::{BaseUrl, Cluster, Dhcp, Mac, Pxe};
use crate::format::Format;

/// What machines boot.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The cluster's name.
    pub cluster: String,
    /// Where machines find everything but their documents.
    pub server: BaseUrl,
    /// Where they find those.
    pub documents: BaseUrl,
    /// The machines, in listing order.
    pub machines: Vec<Machine>,
    /// What dnsmasq is told, if it is asked for.
    pub dhcp: Option<Dhcp>,
}

/// A machine, and what it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// The network card that it boots from.
    pub mac: Mac,
    /// Its address of IPv4, if it is known.
    pub address: Option<Ipv4Addr>,
    /// The name of its document.
    pub document: String,
    /// The name of the kernel's file.
    pub kernel: String,
    /// The name of the initrd's file.
    pub initrd: String,
    /// What the kernel is told.
    pub command_line: String,
}

impl Deployment {
    /// What a cluster that boots from the network means; `format` says which
    /// program of the image looks for the document.
    pub fn new(cluster: &Cluster, pxe: &Pxe, format: Format) -> Self {
        let machines = cluster.machines.iter().filter_map(|machine| {
            let mac = machine.mac?;
            let boot = pxe.boot(machine.arch);
            let shared = cluster.pools.iter().find(|p| p.has_host(&machine.name));
            Some(Machine {
                name: machine.name.to_string(),
                mac,
                address: machine.addresses.iter().find_map(|address| match address {
                    IpAddr::V4(address) => Some(*address),
                    IpAddr::V6(_) => None,
                }),
                document: shared.unwrap_or(machine).name.to_string(),
                kernel: boot.kernel,
                initrd: boot.initrd,
                command_line: pxe.command_line(format, machine.arch, mac),
            })
        });
        Self {
            cluster: cluster.name.clone(),
            server: pxe.server.value.clone(),
            documents: pxe.documents().clone(),
            machines: machines.collect(),
            dhcp: pxe.dhcp.clone(),
        }
    }

    /// The machines that boot with a document.
    pub fn of_document(&self, name: &str) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(move |m| m.document == name)
    }
}
