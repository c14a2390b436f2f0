//! `pools`, `roles` and `nodeDocuments`: machines that share a document.

use std::collections::BTreeMap;
use std::time::Duration;

use ::units::types::{Arch, NodeName, Role};

use super::extras;
use super::layer::Layer;
use crate::system::Extras;
use crate::yaml::{At, Node, Object, Reader};

/// How long a bootstrap token is good, where nothing was typed.
pub const TOKEN_TTL: Duration = Duration::from_hours(24);
/// A token that lives shorter is gone before a machine has booted.
const SHORTEST_TTL: Duration = Duration::from_mins(10);
/// A token that lives longer is a password.
const LONGEST_TTL: Duration = Duration::from_hours(24 * 365);

/// Any number of machines with the role node, which are alike.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name, as that of a machine.
    pub name: At<NodeName>,
    /// The processor of its machines.
    pub arch: Arch,
    /// How long its token is good, if that was typed.
    pub token_ttl: Option<Duration>,
    /// What its Nodes are.
    pub layer: Layer,
    /// Files, units, packages and scripts of its own.
    pub extras: Extras,
}

/// What is said of all machines of a role.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    /// Of masters.
    pub master: Layer,
    /// Of nodes, those of pools too.
    pub node: Layer,
    /// How long nodes' bootstrap tokens are good.
    pub token_ttl: Option<At<Duration>>,
}

/// For whom documents of machines with the role node are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeDocuments {
    /// Each has its own.
    Each,
    /// All have the same, and act by their host names.
    ByHostname,
}

/// Reads one item of `pools`.
pub fn pool(r: &mut Reader, node: &Node, path: &str) -> Option<Pool> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", Reader::parse);
    let arch = o.read(r, "arch", Reader::parse).map(|a| a.value);
    let token_ttl = o.read(r, "tokenTTL", ttl).map(|ttl| ttl.value);
    let layer = Layer::read(r, &mut o);
    let extras = extras::read(r, &mut o);
    o.finish(r);
    Some(Pool {
        name: name?,
        arch: arch.unwrap_or_default(),
        token_ttl,
        layer,
        extras,
    })
}

/// Reads `roles`: what Nodes of a role are, and what its machines get besides.
pub fn roles(r: &mut Reader, o: &mut Object<'_>) -> (Roles, BTreeMap<Role, Extras>) {
    let mut roles = Roles::default();
    let mut brought = BTreeMap::new();
    for role in Role::ALL {
        let Some((node, path)) = o.get(role.as_str()) else {
            continue;
        };
        let Some(mut o) = r.object(node, &path) else {
            continue;
        };
        match role {
            Role::Master => roles.master = Layer::read(r, &mut o),
            Role::Node => {
                roles.node = Layer::read(r, &mut o);
                roles.token_ttl = o.read(r, "tokenTTL", ttl);
            }
            // No Nodes are made of them.
            Role::Etcd => {}
        }
        brought.insert(role, extras::read(r, &mut o));
        o.finish(r);
    }
    (roles, brought)
}

/// Reads `nodeDocuments`.
pub fn node_documents(r: &mut Reader, node: &Node, path: &str) -> Option<At<NodeDocuments>> {
    r.parse_with(node, path, |text| match text {
        "each" => Ok(NodeDocuments::Each),
        "by-hostname" => Ok(NodeDocuments::ByHostname),
        _ => Err(format!("{text:?} is neither each nor by-hostname")),
    })
}

/// Reads a token's life.
fn ttl(r: &mut Reader, node: &Node, path: &str) -> Option<At<Duration>> {
    r.parse_with(node, path, |text| {
        let ttl = duration(text).ok_or_else(|| {
            format!("{text:?} is not a time: write a number with m, h or d, as in 24h")
        })?;
        if (SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
            return Ok(ttl);
        }
        Err(format!("{text} is not from 10m to 365d"))
    })
}

/// A whole number of minutes, hours or days.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, hours) in [("24h", 24), ("120m", 2), ("7d", 168)] {
            assert_eq!(duration(text), Some(Duration::from_hours(hours)), "{text}");
        }
        for text in [
            "",
            "h",
            "24",
            "1.5h",
            "-1h",
            "+1h",
            "24H",
            "1h30m",
            "9999999999999999999d",
            "2é",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
