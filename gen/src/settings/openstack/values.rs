//! Values that OpenStack takes, refused before it does.

use std::net::Ipv4Addr;
use std::str::FromStr;

use ::units::types::InvalidValue;
use ipnet::{IpNet, Ipv4Net};

use crate::settings::values::network;
use crate::yaml::{At, Node, Reader};

/// Names are columns of 255. Source: OpenStack API reference, networks.
const NAME: usize = 255;

/// Who is before the API servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalancer {
    /// Nobody: machines know all masters.
    #[default]
    None,
    /// Octavia.
    Octavia,
}

/// Whether machines of a role that vote are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerGroups {
    /// Where it is possible.
    #[default]
    SoftAntiAffinity,
    /// Always: a machine that has no hypervisor of its own is not made.
    AntiAffinity,
    /// They are where they come to be.
    None,
}

impl ServerGroups {
    /// Nova's policy, if there is one.
    pub fn policy(self) -> Option<&'static str> {
        match self {
            Self::SoftAntiAffinity => Some("soft-anti-affinity"),
            Self::AntiAffinity => Some("anti-affinity"),
            Self::None => None,
        }
    }
}

impl FromStr for LoadBalancer {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "none" => Ok(Self::None),
            "octavia" => Ok(Self::Octavia),
            _ => Err(InvalidValue(format!(
                "unknown load balancer {text:?}: use octavia or none"
            ))),
        }
    }
}

impl FromStr for ServerGroups {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "soft-anti-affinity" => Ok(Self::SoftAntiAffinity),
            "anti-affinity" => Ok(Self::AntiAffinity),
            "none" => Ok(Self::None),
            _ => Err(InvalidValue(format!(
                "unknown policy {text:?}: use soft-anti-affinity, anti-affinity or none"
            ))),
        }
    }
}

/// A range of IPv4 addresses.
pub fn range(r: &mut Reader, node: &Node, path: &str) -> Option<At<Ipv4Net>> {
    r.parse_with(node, path, |text| match network(text)? {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(_) => Err(InvalidValue(format!(
            "{text} is IPv6: what is made on OpenStack has IPv4 only"
        ))),
    })
}

pub fn ipv4(r: &mut Reader, node: &Node, path: &str) -> Option<At<Ipv4Addr>> {
    r.parse_with(node, path, |text| {
        text.parse::<Ipv4Addr>()
            .map_err(|_| format!("{text:?} is not an IPv4 address, as in 10.0.0.100"))
    })
}

/// A name or ID of something that is there.
pub fn resource(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = |c: char| !c.is_control() && c != '"' && c != '\\';
        let trimmed = text.trim() == text && !text.starts_with('-');
        if !text.is_empty() && text.len() <= NAME && trimmed && text.chars().all(good) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is no name: at most {NAME} bytes, not beginning with '-', without quotes"
        ))
    })
}

/// The name or ID of a flavor.
pub fn flavor(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    resource(r, node, path)
}
