//! Values that Azure takes, refused before it does.
//! Source: Azure documentation, "Naming rules and restrictions for Azure
//! resources", and the reference of `Microsoft.Compute/virtualMachines`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ::units::types::InvalidValue;
use ipnet::{IpNet, Ipv4Net};

use crate::settings::system::login;
use crate::settings::values::network;
use crate::yaml::{At, Node, Reader};

/// Accounts that Azure makes on no machine.
const REFUSED: [&str; 32] = [
    "1",
    "123",
    "a",
    "actuser",
    "adm",
    "admin",
    "admin1",
    "admin2",
    "administrator",
    "aspnet",
    "backup",
    "console",
    "david",
    "guest",
    "john",
    "owner",
    "root",
    "server",
    "sql",
    "support",
    "support_388945a0",
    "sys",
    "test",
    "test1",
    "test2",
    "test3",
    "user",
    "user1",
    "user2",
    "user3",
    "user4",
    "user5",
];

/// What a machine's disk is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// One of the marketplace.
    Urn {
        /// Who publishes it.
        publisher: String,
        /// What it is.
        offer: String,
        /// Which variant.
        sku: String,
        /// Which version, or `latest`.
        version: String,
    },
    /// One of one's own, or of a gallery of one's own.
    Id(String),
    /// One of a public gallery.
    Community(String),
}

impl FromStr for Image {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let good = |part: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let path = |text: &str| text.trim_start_matches('/').split('/').all(good);
        if text.starts_with("/subscriptions/") && path(text) {
            return Ok(Self::Id(text.to_owned()));
        }
        if text.starts_with("/CommunityGalleries/") && path(text) {
            return Ok(Self::Community(text.to_owned()));
        }
        let parts: Vec<&str> = text.split(':').collect();
        if let [publisher, offer, sku, version] = parts[..]
            && parts.iter().all(|part| good(part))
        {
            return Ok(Self::Urn {
                publisher: publisher.to_owned(),
                offer: offer.to_owned(),
                sku: sku.to_owned(),
                version: version.to_owned(),
            });
        }
        Err(InvalidValue(format!(
            "{text:?} is no image: write PUBLISHER:OFFER:SKU:VERSION, as \
             Debian:debian-13:13-gen2:latest, or /subscriptions/…, or /CommunityGalleries/…"
        )))
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Urn {
                publisher,
                offer,
                sku,
                version,
            } => write!(f, "{publisher}:{offer}:{sku}:{version}"),
            Self::Id(id) | Self::Community(id) => f.write_str(id),
        }
    }
}

pub fn image(r: &mut Reader, node: &Node, path: &str) -> Option<At<Image>> {
    r.parse(node, path)
}

/// A range of IPv4 addresses.
pub fn range(r: &mut Reader, node: &Node, path: &str) -> Option<At<Ipv4Net>> {
    r.parse_with(node, path, |text| match network(text)? {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(_) => Err(InvalidValue(format!(
            "{text} is IPv6: what is made on Azure has IPv4 only"
        ))),
    })
}

pub fn ipv4(r: &mut Reader, node: &Node, path: &str) -> Option<At<Ipv4Addr>> {
    r.parse_with(node, path, |text| {
        text.parse::<Ipv4Addr>()
            .map_err(|_| format!("{text:?} is not an IPv4 address, as in 10.0.0.100"))
    })
}

/// The short name of a region, as `az account list-locations` prints it.
pub fn location(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !text.is_empty() && text.bytes().all(good) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is no region's short name, as in westeurope: see az account list-locations"
        ))
    })
}

/// The name of a resource group.
pub fn group(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.()".contains(&b);
        let length = (1..=90).contains(&text.len());
        if length && text.bytes().all(good) && !text.ends_with('.') {
            return Ok(text.to_owned());
        }
        Err(format!(
            "Azure refuses {text:?} for a resource group: at most 90 of A-Z, a-z, 0-9 and -_.(), \
             with no . at the end"
        ))
    })
}

/// The name of a subnet, or of a kind of disk.
pub fn resource(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let alnum = |b: &u8| b.is_ascii_alphanumeric();
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let bytes = text.as_bytes();
        let ends = bytes.first().is_some_and(alnum)
            && bytes.last().is_some_and(|b| alnum(b) || *b == b'_');
        if ends && text.len() <= 80 && text.bytes().all(good) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "Azure refuses the name {text:?}: at most 80 of A-Z, a-z, 0-9 and -_., beginning \
             with a letter or digit and ending with one or with _"
        ))
    })
}

/// The name of a size of machines.
pub fn size(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if text.contains('_') && text.bytes().all(good) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is no size of machines, as in Standard_D2s_v5: see az vm list-sizes"
        ))
    })
}

/// The first label of a public address's name.
pub fn dns_label(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let letter = text.starts_with(|c: char| c.is_ascii_lowercase());
        if letter && text.len() >= 3 && ::units::types::is_dns_label(text) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "Azure refuses {text:?}: 3 to 63 of a-z, 0-9 and '-', beginning with a letter"
        ))
    })
}

pub fn zone(r: &mut Reader, node: &Node, path: &str) -> Option<At<u8>> {
    super::number(r, node, path, 1..=3)
}

/// An account that Azure makes.
pub fn account(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let name = login(text)?;
        if REFUSED.contains(&text) {
            return Err(format!(
                "Azure makes no account called {text}: write another"
            ));
        }
        Ok(name)
    })
}

/// Whether Azure takes a line of authorized_keys for a machine.
pub fn taken_key(line: &str) -> bool {
    let mut words = line.split_whitespace();
    matches!(words.next(), Some("ssh-ed25519" | "ssh-rsa"))
}
