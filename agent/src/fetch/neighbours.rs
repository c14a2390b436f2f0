//! Neighbours: machines that offer what they downloaded and verified. They are
//! asked before any mirror, and believed no more than one: the checksum makes
//! the source irrelevant.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::mirrors::server;
use crate::sys::http::Limits;
use units::node_config::{Artifact, Neighbours};
use units::types::Digest;

/// How long a neighbour may take to be reached: it is near, or not there.
pub const CONNECT: Duration = Duration::from_secs(1);
/// The longest time without a byte of a neighbour's: others have it, too.
const STALL: Duration = Duration::from_secs(5);

/// The path at which whoever has an artifact offers it.
pub fn path(digest: &Digest) -> String {
    format!("/{}/{}", digest.algorithm(), digest.hex())
}

/// The same artifacts with the neighbours' addresses before their own.
pub fn first(artifacts: &[Artifact], neighbours: &Neighbours) -> Vec<Artifact> {
    let offered = |artifact: &Artifact| {
        let path = path(&artifact.digest);
        let all = servers(neighbours).into_iter();
        let near = all.map(|server| format!("{server}{path}"));
        let mut artifact = artifact.clone();
        artifact.urls = near.chain(artifact.urls).collect();
        artifact
    };
    artifacts.iter().map(offered).collect()
}

/// The neighbours as servers: `http://10.0.0.11:7444`, in their order.
pub fn servers(neighbours: &Neighbours) -> Vec<String> {
    let addresses = neighbours.addresses.iter();
    addresses
        .map(|ip| format!("http://{}", SocketAddr::new(*ip, neighbours.port)))
        .collect()
}

/// Whether an address is a neighbour's.
pub fn is_one(servers: &BTreeSet<String>, url: &str) -> bool {
    servers.contains(server(url))
}

/// The limits of a download from a neighbour.
pub fn limits(of_mirrors: Limits) -> Limits {
    Limits {
        stall: of_mirrors.stall.min(STALL),
        ..of_mirrors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_come_before_mirrors() {
        let sample = include_str!("../../../units/testdata/node-v1.yaml");
        let config: units::NodeConfig = serde_yaml::from_str(sample).unwrap();
        let neighbours = Neighbours {
            port: 7444,
            addresses: vec!["10.0.0.11".parse().unwrap(), "fd00::1".parse().unwrap()],
        };
        let artifacts = first(&config.artifacts, &neighbours);
        let (artifact, plain) = (&artifacts[0], &config.artifacts[0]);
        let hex = artifact.digest.hex();
        let algorithm = artifact.digest.algorithm();
        assert_eq!(
            artifact.urls[..2],
            [
                format!("http://10.0.0.11:7444/{algorithm}/{hex}"),
                format!("http://[fd00::1]:7444/{algorithm}/{hex}"),
            ]
        );
        assert_eq!(artifact.urls[2..], plain.urls);
        let servers = servers(&neighbours).into_iter().collect();
        assert!(is_one(&servers, &artifact.urls[1]));
        assert!(!is_one(&servers, &plain.urls[0]));
    }
}
