//! etcd.yaml, read alike by etcd 3.5 and 3.6.
//! Source: etcd's etcd.conf.yml.sample.

use std::net::IpAddr;

use ::units::paths;
use anyhow::Result;
use serde_json::{Value, json};

use super::files::public;
use super::kubelet::TLS_SUITES;
use super::{PlannedFile, overlay};
use crate::cluster::{Cluster, Machine, url_host};

/// The port for clients.
const CLIENT: u16 = 2379;
/// The port for other members.
const PEER: u16 = 2380;
/// The port for metrics and health.
const METRICS: u16 = 2381;

/// Where the API server on a master finds etcd: on its own machine, or at the
/// machines that run nothing else.
pub fn endpoints(cluster: &Cluster) -> Vec<String> {
    if cluster.stacked_etcd {
        return vec![format!("https://127.0.0.1:{CLIENT}")];
    }
    cluster
        .etcd_members()
        .map(|member| format!("https://{}:{CLIENT}", cluster.etcd_host(member)))
        .collect()
}

/// The member's configuration.
pub fn config(cluster: &Cluster, machine: &Machine) -> Result<PlannedFile> {
    let config = settings(cluster, machine);
    Ok(public(paths::ETCD_CONFIG, overlay::yaml(&config)?))
}

/// The port at which the member tells its health without TLS.
pub fn metrics_port(config: &Value) -> u16 {
    let urls = config["listen-metrics-urls"].as_str().unwrap_or_default();
    let port = urls
        .split(',')
        .next()
        .and_then(|url| url.rsplit(':').next());
    port.and_then(|port| port.parse().ok()).unwrap_or(METRICS)
}

/// What stands in the member's configuration.
pub fn settings(cluster: &Cluster, machine: &Machine) -> Value {
    let own = cluster.etcd_host(machine);
    let members: Vec<String> = cluster
        .etcd_members()
        .map(|m| format!("{}=https://{}:{PEER}", m.name, cluster.etcd_host(m)))
        .collect();
    let mut config = json!({
        "name": machine.name,
        "data-dir": paths::ETCD_DATA,
        "listen-client-urls": listen(cluster, machine, CLIENT, true),
        "listen-peer-urls": listen(cluster, machine, PEER, false),
        "listen-metrics-urls": format!("http://127.0.0.1:{METRICS}"),
        "advertise-client-urls": format!("https://{own}:{CLIENT}"),
        "initial-advertise-peer-urls": format!("https://{own}:{PEER}"),
        "initial-cluster": members.join(","),
        "initial-cluster-state": "new",
        "initial-cluster-token": cluster.name,
        "client-transport-security": transport("server"),
        "peer-transport-security": transport("peer"),
        "tls-min-version": "TLS1.2",
        "cipher-suites": TLS_SUITES,
        // 4 GiB: twice the default, within what etcd recommends.
        "quota-backend-bytes": 4_294_967_296_u64,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "8h",
    });
    overlay::lay(&mut config, &cluster.overrides.etcd);
    config
}

fn transport(name: &str) -> Value {
    let pki = format!("{}/etcd", paths::PKI);
    json!({
        "cert-file": format!("{pki}/{name}.crt"),
        "key-file": format!("{pki}/{name}.key"),
        "trusted-ca-file": format!("{pki}/ca.crt"),
        "client-cert-auth": true,
    })
}

/// Addresses to listen on; etcd takes no names here, so a member that others
/// know by name only listens everywhere.
fn listen(cluster: &Cluster, machine: &Machine, port: u16, loopback: bool) -> String {
    let url = |address: IpAddr| format!("https://{}:{port}", url_host(address));
    let local = IpAddr::from([127, 0, 0, 1]);
    match machine.address() {
        Some(address) if loopback => format!("{},{}", url(local), url(address)),
        Some(address) => url(address),
        None if cluster.etcd_members().count() > 1 => url(cluster.any_address()),
        None => url(local),
    }
}
