//! What tells on this machine that an attempt is worth it, without one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Target;
use crate::sys::listeners;

/// How often signs are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often, once a target has been waited for this long.
const LATER: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(50));

/// The signs of one target.
#[derive(Debug)]
pub struct Signs {
    place: Place,
    seen: Vec<Vec<u8>>,
    since: Instant,
}

#[derive(Debug)]
enum Place {
    /// A port of this machine.
    Port(u16),
    /// A path.
    Path(PathBuf),
    /// Another machine: there is nothing to see from here.
    Elsewhere,
}

impl Signs {
    /// The signs of a target, none seen yet.
    pub fn of(target: &Target) -> Self {
        let place = match target {
            Target::Unix(path) | Target::File(path) | Target::HttpUnix(path, _) => {
                Place::Path(path.clone())
            }
            Target::Tcp { host, port } => port_of(host, Some(*port)),
            Target::Http(url) => {
                let (host, port) = host_and_port(url);
                port_of(host, port)
            }
        };
        Self {
            place,
            seen: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Takes what is to be seen now for known.
    pub fn look(&mut self) {
        self.seen = self.now();
    }

    /// Returns when something else is to be seen than at the last look.
    pub async fn change(&self) {
        if matches!(self.place, Place::Elsewhere) {
            return std::future::pending().await;
        }
        while self.now() == self.seen {
            let pause = match self.since.elapsed() > LATER.0 {
                true => LATER.1,
                false => LOOK,
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn now(&self) -> Vec<Vec<u8>> {
        match &self.place {
            Place::Elsewhere => Vec::new(),
            Place::Path(path) => fs::metadata(path)
                .map(|found| format!("{} {}", found.ino(), found.ctime_nsec()).into_bytes())
                .into_iter()
                .collect(),
            // A kernel that does not tell leaves the attempts.
            Place::Port(port) => listeners::at(*port).unwrap_or_default(),
        }
    }
}

fn port_of(host: &str, port: Option<u16>) -> Place {
    let address = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.parse().ok(),
    };
    // Only an address of its own can a machine bind.
    match (address, port) {
        (Some(address), Some(port)) if UdpSocket::bind((address, 0)).is_ok() => Place::Port(port),
        _ => Place::Elsewhere,
    }
}

/// Host and port of an http or https address.
fn host_and_port(url: &str) -> (&str, Option<u16>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let server = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let server = server.rsplit_once('@').map_or(server, |(_, server)| server);
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (server, Some(if scheme == "https" { 443 } else { 80 })),
    };
    (host.trim_matches(['[', ']']), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, host, port) in [
            ("http://127.0.0.1:8080/x", "127.0.0.1", 8080),
            ("https://[fd00::1]/x:1", "fd00::1", 443),
            ("https://[fd00::1]:6443", "fd00::1", 6443),
            ("http://user@name", "name", 80),
        ] {
            assert_eq!(host_and_port(url), (host, Some(port)), "{url}");
        }
        assert!(matches!(port_of("192.0.2.1", Some(1)), Place::Elsewhere));
        assert!(matches!(port_of("127.0.0.1", Some(1)), Place::Port(1)));
    }
}
