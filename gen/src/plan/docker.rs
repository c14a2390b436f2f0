//! The distribution's Docker daemon, reached over TLS from outside.
//! Source: Docker documentation, "Protect the Docker daemon socket" and
//! "dockerd", daemon configuration file.

use ::units::node_config::Service;
use anyhow::Result;
use serde_json::json;

use super::{PlannedFile, units};

/// The daemon's configuration.
const CONFIG: &str = "/etc/docker/daemon.json";
/// The daemon's certificate and key, and the authority of its clients.
const TLS: &str = "/etc/docker/tls";

/// Where a file of `pki/` lands, of those that are the daemon's.
pub fn place(stem: &str) -> Option<String> {
    stem.strip_prefix("docker/")
        .map(|file| format!("{TLS}/{file}"))
}

/// The daemon's configuration, and its command line without addresses, which
/// would contradict it. Forwarding is on before the daemon starts (sysctl), so
/// that it does not close it to pods.
pub fn files(port: u16) -> Result<[PlannedFile; 2]> {
    let config = json!({
        "hosts": ["fd://", format!("tcp://0.0.0.0:{port}")],
        "tlsverify": true,
        "tlscacert": format!("{TLS}/ca.crt"),
        "tlscert": format!("{TLS}/server.crt"),
        "tlskey": format!("{TLS}/server.key"),
        "exec-opts": ["native.cgroupdriver=systemd"],
    });
    Ok([
        PlannedFile::public(CONFIG, serde_json::to_string_pretty(&config)? + "\n"),
        // systemd finds it where the distribution has put it: in /usr/bin or
        // in /usr/sbin. Source: systemd.service(5), "Command lines".
        units::drop_in(Service::Docker, units::exec_start("dockerd", &[])),
    ])
}
