//! Who may come in: the rules of the network security group.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use units::node_config::NetworkMode;
use units::types::Role;

use super::machines::ipv4;
use crate::cluster::{Azure, Cluster};
use crate::yaml::At;

/// What a rule does with packets that come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// They may.
    Allow,
    /// They may not.
    Deny,
}

/// A rule for what comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// The lower, the earlier: 100 to 4096.
    pub priority: u16,
    /// What it does.
    pub action: Action,
    /// `Tcp`, or `*` for any.
    pub protocol: &'static str,
    /// From where: ranges, or one tag of Azure's.
    pub from: Vec<String>,
    /// To where: ranges, or one tag, or `*`.
    pub to: Vec<String>,
    /// To which port; absent: any.
    pub port: Option<u16>,
}

/// Rules that are only there if somebody was named; a script takes away what
/// is no longer meant.
pub const OPTIONAL: [&str; 2] = ["ssh", "api"];

/// Everything that may come in, and at last that nothing else of the networks
/// beside this one may, as it would by Azure's own rules. What comes from the
/// world is kept out by those.
pub fn rules(cluster: &Cluster, azure: &Azure) -> Vec<Rule> {
    let mut rules = Vec::new();
    let texts = |nets: &[At<Ipv4Net>]| nets.iter().map(|net| net.value.to_string()).collect();
    let mut machines: Vec<String> = azure
        .subnets
        .iter()
        .map(|s| s.range.value.to_string())
        .collect();
    if !azure.ssh_from.is_empty() {
        rules.push(Rule {
            name: "ssh",
            priority: 100,
            action: Action::Allow,
            protocol: "Tcp",
            from: texts(&azure.ssh_from),
            to: machines.clone(),
            port: Some(22),
        });
    }
    // The load balancer has put a master's address and port into the packet by
    // now, and has left the sender's.
    if !azure.api_from.is_empty() {
        let masters = cluster.of_role(Role::Master).filter_map(ipv4);
        rules.push(Rule {
            name: "api",
            priority: 110,
            action: Action::Allow,
            protocol: "Tcp",
            from: texts(&azure.api_from),
            to: masters.map(|a: Ipv4Addr| a.to_string()).collect(),
            port: Some(cluster.api_port),
        });
    }
    if cluster.network_mode == NetworkMode::Routed {
        // Their packets come as they are.
        let pods = cluster
            .pod_cidrs
            .iter()
            .filter(|net| matches!(net, IpNet::V4(_)));
        machines.extend(pods.map(IpNet::to_string));
    }
    rules.push(Rule {
        name: "machines",
        priority: 200,
        action: Action::Allow,
        protocol: "*",
        from: machines.clone(),
        to: machines,
        port: None,
    });
    let tag = |name, priority, action, tag: &str| Rule {
        name,
        priority,
        action,
        protocol: "*",
        from: vec![tag.to_owned()],
        to: vec!["*".to_owned()],
        port: None,
    };
    rules.push(tag("probes", 210, Action::Allow, "AzureLoadBalancer"));
    rules.push(tag("neighbours", 4096, Action::Deny, "VirtualNetwork"));
    rules
}
