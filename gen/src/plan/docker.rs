//! The distribution's Docker daemon, reached over TLS from outside.
//! Source: Docker documentation, "Protect the Docker daemon socket" and
//! "dockerd", daemon configuration file.

use std::net::SocketAddr;

use ::units::node_config::Service;
use ::units::paths::{DOCKER_CONFIG, DOCKER_TLS};
use anyhow::Result;
use serde_json::json;

use super::{PlannedFile, units};
use crate::cluster::Cluster;

/// Where a file of `pki/` lands, of those that are the daemon's.
pub fn place(stem: &str) -> Option<String> {
    stem.strip_prefix("docker/")
        .map(|file| format!("{DOCKER_TLS}/{file}"))
}

/// The daemon's configuration, and its command line without addresses, which
/// would contradict it. Forwarding is on before the daemon starts (sysctl), so
/// that it does not close it to pods.
pub fn files(cluster: &Cluster, port: u16) -> Result<[PlannedFile; 2]> {
    let at = SocketAddr::new(cluster.any_address(), port);
    let config = json!({
        "hosts": ["fd://", format!("tcp://{at}")],
        "tlsverify": true,
        "tlscacert": format!("{DOCKER_TLS}/ca.crt"),
        "tlscert": format!("{DOCKER_TLS}/server.crt"),
        "tlskey": format!("{DOCKER_TLS}/server.key"),
        "exec-opts": ["native.cgroupdriver=systemd"],
    });
    Ok([
        PlannedFile::public(DOCKER_CONFIG, serde_json::to_string_pretty(&config)? + "\n"),
        // systemd finds it where the distribution has put it: in /usr/bin or
        // in /usr/sbin. Source: systemd.service(5), "Command lines". It is tried
        // for ever, as every other service is (F18).
        units::drop_in(
            Service::Docker,
            format!(
                "[Unit]\nStartLimitIntervalSec=0\n\n{}",
                units::exec_start("dockerd", &[])
            ),
        ),
    ])
}
