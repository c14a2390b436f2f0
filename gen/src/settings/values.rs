//! Values of settings that refuse what they cannot mean.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use units::types::{InvalidValue, is_dns_label};

/// The oldest minor release of Kubernetes that is generated for.
const OLDEST: u32 = 34;
/// The newest.
const NEWEST: u32 = 37;

/// The version that a cluster gets when it names none; the built-in lock has
/// its checksums.
pub const DEFAULT_VERSION: KubernetesVersion = KubernetesVersion {
    minor: 36,
    patch: 1,
};

/// A release of Kubernetes 1.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl FromStr for KubernetesVersion {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let number = |part: &str| {
            let canonical = part == "0" || !part.starts_with(['0', '+']);
            canonical.then(|| part.parse::<u32>().ok()).flatten()
        };
        let parts: Vec<_> = text
            .strip_prefix('v')
            .unwrap_or(text)
            .split('.')
            .map(number)
            .collect();
        let [Some(1), Some(minor), Some(patch)] = parts[..] else {
            return Err(InvalidValue(format!(
                "{text:?} is not a Kubernetes release: write it in full, as in {DEFAULT_VERSION}"
            )));
        };
        if minor < OLDEST {
            return Err(InvalidValue(format!(
                "Kubernetes {text} is too old: nodes may read their own Node and no others' only \
                 since 1.{OLDEST}, and older releases get no fixes; use 1.{OLDEST} to 1.{NEWEST}"
            )));
        }
        if minor > NEWEST {
            return Err(InvalidValue(format!(
                "Kubernetes {text} is newer than this kgen: flags may have gone that it would \
                 write; use 1.{OLDEST} to 1.{NEWEST}"
            )));
        }
        Ok(Self { minor, patch })
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.minor, self.patch)
    }
}

/// A DNS name or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A DNS name of one or more labels.
    Name(String),
}

impl FromStr for Host {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let labels = text.strip_suffix('.').unwrap_or(text);
        // A name whose last label is a number is a mistyped address.
        let numeric = labels
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if labels.len() <= 253 && !numeric && labels.split('.').all(is_dns_label) {
            return Ok(Self::Name(labels.to_owned()));
        }
        Err(InvalidValue(format!(
            "{text:?} is neither an address nor a DNS name in lower case"
        )))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where the API server is reached; displayed as its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// The port of an endpoint that names none.
    pub const PORT: u16 = 6443;
}

impl FromStr for Endpoint {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some((scheme, _)) => {
                return Err(InvalidValue(format!(
                    "endpoint {text:?} is {scheme}: the API server speaks https only"
                )));
            }
            None => text,
        };
        // An IPv6 address has colons of its own; with a port it is in brackets.
        let (host, port) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, after)) => (host, Some(after.strip_prefix(':').unwrap_or(""))),
            None if rest.matches(':').count() > 1 => (rest, None),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None => Self::PORT,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => {
                    return Err(InvalidValue(format!(
                        "endpoint {text:?} has no port from 1 to 65535 after the colon; \
                         write https://HOST:PORT"
                    )));
                }
            },
        };
        let host = host
            .parse()
            .map_err(|error| InvalidValue(format!("endpoint {text:?}: {error}")))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "https://[{address}]:{}", self.port),
            host => write!(f, "https://{host}:{}", self.port),
        }
    }
}

/// The kind of key that signs service account tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceAccountKey {
    /// RSA with 2048 bits: what cloud identity providers accept.
    #[default]
    Rsa2048,
    /// ECDSA on P-256: smaller and made at once.
    EcdsaP256,
}

impl FromStr for ServiceAccountKey {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "rsa-2048" => Ok(Self::Rsa2048),
            "ecdsa-p256" => Ok(Self::EcdsaP256),
            _ => Err(InvalidValue(format!(
                "unknown kind of key {text:?}: use rsa-2048 or ecdsa-p256"
            ))),
        }
    }
}

/// A network in CIDR notation, without bits set in the host's part.
pub fn network(text: &str) -> Result<IpNet, InvalidValue> {
    let net: IpNet = text.parse().map_err(|_| {
        InvalidValue(format!(
            "{text:?} is not a network in CIDR notation, as in 10.244.0.0/16"
        ))
    })?;
    if net.trunc() != net {
        return Err(InvalidValue(format!(
            "{text} has bits set after its prefix; write {}",
            net.trunc()
        )));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_the_range_are_taken() {
        for (text, shown) in [("1.36.1", "1.36.1"), ("v1.34.0", "1.34.0")] {
            assert_eq!(
                text.parse::<KubernetesVersion>().unwrap().to_string(),
                shown
            );
        }
        for (text, why) in [
            ("1.36", "in full"),
            ("1.33.9", "too old"),
            ("1.38.0", "newer"),
            ("2.0.0", "in full"),
            ("1.36.01", "in full"),
            ("latest", "in full"),
        ] {
            let error = text.parse::<KubernetesVersion>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn endpoints() {
        for (text, url) in [
            ("https://api.example.com:443", "https://api.example.com:443"),
            ("https://10.0.0.1/", "https://10.0.0.1:6443"),
            ("master", "https://master:6443"),
            ("10.0.0.1:7443", "https://10.0.0.1:7443"),
            ("fd00::1", "https://[fd00::1]:6443"),
            ("https://[fd00::1]:443", "https://[fd00::1]:443"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), url);
        }
        for text in [
            "http://a",
            "a:0",
            "a:x",
            "https://a/b",
            "10.0.0",
            "A",
            "",
            "[fd00::1]x",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_have_no_host_bits() {
        assert!(network("10.244.0.0/16").is_ok());
        let error = network("10.244.3.1/16").unwrap_err().to_string();
        assert!(error.contains("10.244.0.0/16"), "{error}");
        assert!(network("10.244.0.0").is_err());
    }
}
