//! Values that iPXE, dnsmasq and the kernel's command line carry unchanged.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ::units::types::InvalidValue;
use ipnet::{IpNet, Ipv4Net};

use crate::settings::values::network;
use crate::yaml::{At, Node, Reader};

/// Where files are found: a URL without the `/` at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    host: String,
    port: u16,
}

impl BaseUrl {
    /// The port that is connected to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https://")
    }

    /// What comes after host and port: empty, or `/` and more.
    pub fn path(&self) -> &str {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        rest.find('/').map_or("", |at| &rest[at..])
    }

    /// Its address, if it has no name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }
}

impl FromStr for BaseUrl {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || {
            InvalidValue(format!(
                "{text:?} is not http:// or https://, a host and maybe a port and a path, as in \
                 http://10.0.0.5:8080"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong()),
        };
        // Nothing that a shell, iPXE or dnsmasq reads as anything but itself.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b);
        let rest = rest.trim_end_matches('/');
        if !rest.bytes().all(plain) || rest.contains("//") {
            return Err(wrong());
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let colon = match authority.find(']') {
            Some(end) => authority[end..].find(':').map(|at| end + at),
            None => authority.find(':'),
        };
        let (host, port) = match colon {
            Some(at) => {
                let port = authority[at + 1..].parse().ok().filter(|port| *port > 0);
                (&authority[..at], port.ok_or_else(wrong)?)
            }
            None => (authority, default),
        };
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '[', ']']),
        };
        if !good {
            return Err(wrong());
        }
        Ok(Self {
            text: format!("{scheme}://{rest}"),
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The name of a file beside the scripts.
pub fn file(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let hidden = text.starts_with(['.', '-']);
        if !text.is_empty() && !hidden && text.len() <= 100 && text.bytes().all(good) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is not the name of a file, of A-Z, a-z, 0-9 and -_., as in vmlinuz"
        ))
    })
}

/// Words for the kernel. iPXE reads some characters as its own, and takes what
/// stands between quotes for one word.
pub fn words(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if !printable || text.contains(['"', '\'', '\\', '$']) {
            return Err(format!(
                "{text:?}: iPXE carries visible ASCII without quotes, \\ and $"
            ));
        }
        let own = |word: &&str| matches!(*word, ";" | "&&" | "||") || word.starts_with('#');
        match text.split(' ').find(own) {
            Some(word) => Err(format!("{text:?}: iPXE reads {word:?} as its own")),
            None => Ok(text.trim().to_owned()),
        }
    })
}

/// The name of a network interface. Source: Linux, `dev_valid_name`.
pub fn interface(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
        if (1..=15).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('.') {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is not the name of a network interface, as in eth0"
        ))
    })
}

/// The absolute path of a folder.
pub fn folder(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
        if text.starts_with('/') && text.bytes().all(good) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is not the absolute path of a folder, as in /usr/lib/ipxe"
        ))
    })
}

/// A range of IPv4 addresses that has room for machines.
pub fn net(r: &mut Reader, node: &Node, path: &str) -> Option<At<Ipv4Net>> {
    r.parse_with(node, path, |text| match network(text)? {
        IpNet::V4(net) if net.prefix_len() <= 29 => Ok(net),
        IpNet::V4(_) => Err(InvalidValue(format!("{text} is too small: at least a /29"))),
        IpNet::V6(_) => Err(InvalidValue(format!(
            "{text} is IPv6: machines boot over IPv4"
        ))),
    })
}

/// An address of IPv4.
pub fn ipv4(r: &mut Reader, node: &Node, path: &str) -> Option<At<Ipv4Addr>> {
    r.parse_with(node, path, |text| {
        let address = text.parse::<Ipv4Addr>();
        address.map_err(|_| format!("{text:?} is not an IPv4 address, as in 10.0.0.1"))
    })
}

/// The first and the last of addresses.
pub fn addresses(r: &mut Reader, node: &Node, path: &str) -> Option<At<(Ipv4Addr, Ipv4Addr)>> {
    r.parse_with(node, path, |text| {
        let ends = text.split_once('-').and_then(|(first, last)| {
            let first: Ipv4Addr = first.trim().parse().ok()?;
            Some((first, last.trim().parse().ok()?))
        });
        ends.filter(|(first, last)| first <= last)
            .ok_or_else(|| format!("{text:?} is not FIRST-LAST, as in 10.0.0.100-10.0.0.199"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, whole, port, https) in [
            ("http://10.0.0.5:8080", "http://10.0.0.5:8080", 8080, false),
            ("http://boot/", "http://boot", 80, false),
            (
                "https://boot.example.com/a/b/",
                "https://boot.example.com/a/b",
                443,
                true,
            ),
            (
                "https://[fd00::5]:8443",
                "https://[fd00::5]:8443",
                8443,
                true,
            ),
        ] {
            let url: BaseUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.port()), (whole, port));
            assert_eq!(url.is_https(), https);
            assert_eq!(url.path().is_empty(), !whole.ends_with("/a/b"));
        }
        let address = |text: &str| text.parse::<BaseUrl>().unwrap().address();
        assert_eq!(address("http://10.0.0.5:1"), "10.0.0.5".parse().ok());
        assert_eq!(address("http://[fd00::5]"), "fd00::5".parse().ok());
        assert_eq!(address("http://boot"), None);
    }

    #[test]
    fn urls_that_mean_more_are_refused() {
        for wrong in [
            "10.0.0.5:8080",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:b",
            "http://a:70000",
            "http://user@a",
            "http://a?b=c",
            "http://a#b",
            "http://a//b",
            "http://${net0/ip}",
            "http://a,b",
            "http://fd00::5",
            "http://[fd00::5",
            "http://a b",
        ] {
            assert!(wrong.parse::<BaseUrl>().is_err(), "{wrong}");
        }
    }
}
