//! Who may come in: rules of security groups. What leaves may go anywhere, as
//! Neutron has it by itself.

use std::fmt;

use ipnet::Ipv4Net;

use super::Openstack;
use crate::cluster::Cluster;
use crate::settings::LoadBalancer;

/// Rules for what comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is called, behind the cluster's name.
    pub name: &'static str,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A rule that lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// To which port of TCP; absent: anything.
    pub port: Option<u16>,
    /// From where.
    pub from: Origin,
}

/// From where something may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From members of the same group, their allowed address pairs among them.
    Group,
    /// From a range.
    Range(Ipv4Net),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => f.write_str("group"),
            Self::Range(net) => net.fmt(f),
        }
    }
}

/// The group of every machine: itself, and ssh from where it was said.
pub const MACHINES: &str = "machines";
/// The group of those with an API server.
pub const MASTERS: &str = "masters";

/// All groups; that of masters only lets in who reaches the API server from
/// outside, which machines do as members of the first.
pub fn groups(cluster: &Cluster, openstack: &Openstack) -> Vec<Group> {
    let mut machines = vec![Rule {
        port: None,
        from: Origin::Group,
    }];
    machines.extend(openstack.ssh_from.iter().map(|net| Rule {
        port: Some(22),
        from: Origin::Range(net.value),
    }));
    let mut from: Vec<Ipv4Net> = openstack.api_from.iter().map(|net| net.value).collect();
    if openstack.load_balancer == LoadBalancer::Octavia {
        // Its own machines ask from the subnet, and are no members of a group.
        from.extend(openstack.cidr.as_ref().map(|cidr| cidr.value));
    }
    from.sort_unstable();
    from.dedup();
    let masters = from.into_iter().map(|net| Rule {
        port: Some(cluster.api_port),
        from: Origin::Range(net),
    });
    vec![
        Group {
            name: MACHINES,
            rules: machines,
        },
        Group {
            name: MASTERS,
            rules: masters.collect(),
        },
    ]
}
