//! What can only be seen of documents for several machines as a whole.

use std::collections::BTreeMap;

use units::node_config::Registration;
use units::types::Role;

use super::members::Machine;
use super::pools::NodeDocuments;
use super::schema::Settings;
use crate::yaml::{At, Reader};

/// Adds everything that does not fit together.
pub fn check(r: &mut Reader, s: &Settings) {
    names(r, s);
    pod_ranges(r, s);
    token_ttl(r, s);
    if s.by_hostname() {
        by_hostname(r, s);
        own_extras(r, s);
    }
}

/// Pools, machines and the document of all nodes are told apart by name: each
/// is a folder of what is rendered.
fn names(r: &mut Reader, s: &Settings) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for machine in &s.machines {
        seen.insert(machine.name.value.as_str(), &machine.name.path);
    }
    for pool in &s.pools {
        let name = &pool.name;
        if let Some(first) = seen.insert(name.value.as_str(), &name.path) {
            let message = format!("{}: {} is the name of {first} too", name.path, name.value);
            r.find(&name.span, message, None);
        }
    }
    if !s.by_hostname() {
        return;
    }
    let machines = s.machines.iter().map(|m| &m.name);
    for name in machines.chain(s.pools.iter().map(|p| &p.name)) {
        if name.value.as_str() == Role::Node.as_str() {
            let message = format!(
                "{}: with nodeDocuments: by-hostname the document of all nodes is called {}",
                name.path, name.value
            );
            r.find(&name.span, message, Some("use another name".to_owned()));
        }
    }
}

fn pod_ranges(r: &mut Reader, s: &Settings) {
    if s.pools.is_empty() {
        return;
    }
    for net in s.machines.iter().flat_map(|m| &m.pod_cidrs) {
        let message = format!(
            "{}: with pools the controller manager gives out all pod ranges",
            net.path
        );
        let help = format!(
            "it may have given {} to a machine of a pool before this one comes; leave {} out",
            net.value,
            net.path.rsplit('.').next().unwrap_or_default(),
        );
        r.find(&net.span, message, Some(help));
    }
}

/// What one machine alone is to have is in no document that others have too.
fn own_extras(r: &mut Reader, s: &Settings) {
    for machine in s.of_role(Role::Node) {
        if let Some(origin) = machine.extras.first() {
            let message = format!(
                "{}: all machines with the role node have one document",
                origin.path
            );
            let help = "say it under roles.node, or leave nodeDocuments: by-hostname out";
            r.find(&origin.place.span, message, Some(help.to_owned()));
        }
    }
}

fn token_ttl(r: &mut Reader, s: &Settings) {
    if let Some(ttl) = &s.roles.token_ttl
        && s.pools.is_empty()
        && !s.by_hostname()
    {
        let message = format!("{}: no machine comes by a token", ttl.path);
        let help = "machines of pools do, and all nodes with nodeDocuments: by-hostname";
        r.find(&ttl.span, message, Some(help.to_owned()));
    }
}

/// One document has to be right for all of them.
fn by_hostname(r: &mut Reader, s: &Settings) {
    let nodes: Vec<&Machine> = s.of_role(Role::Node).collect();
    let Some(first) = nodes.first() else {
        return;
    };
    let mut find = |place: &At<_>, key: &str, help: &str| {
        let message = format!(
            "{}.{key}: cannot be in one document for all nodes",
            place.path
        );
        r.find(&place.span, message, Some(help.to_owned()));
    };
    let registration = |m: &Machine| m.layer.registration.as_ref().map(|r| r.value);
    for machine in &nodes {
        let place = At {
            value: (),
            span: machine.name.span.clone(),
            path: machine.path().to_owned(),
        };
        if machine.layer.kubelet.is_some() {
            find(
                &place,
                "kubelet",
                "say it in roles.node, or put the machine into a pool",
            );
        }
        if machine.provider_id.is_some() {
            find(
                &place,
                "providerID",
                "leave it out, or write nodeDocuments: each",
            );
        }
        if registration(machine) != registration(first) {
            find(&place, "registration", "say it in roles.node");
        }
        // The kubelet's own configuration names taints, once for all.
        let by_kubelet =
            registration(machine).or(s.roles.node.registration.as_ref().map(|r| r.value))
                == Some(Registration::Kubelet);
        if by_kubelet && machine.layer.taints != first.layer.taints {
            find(
                &place,
                "taints",
                "say them in roles.node, or write registration: agent",
            );
        }
        if machine.arch != first.arch {
            let help = "use a pool for each kind of processor, or nodeDocuments: each";
            find(&place, "arch", help);
        }
    }
}

impl Settings {
    /// Whether all nodes have one document.
    pub fn by_hostname(&self) -> bool {
        let typed = self.node_documents.as_ref();
        typed.is_some_and(|d| d.value == NodeDocuments::ByHostname)
    }
}
