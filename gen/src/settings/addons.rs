//! `addons`: what the masters keep running in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use units::types::is_dns_label;

use super::keys::{image, number};
use super::manifests;
use super::schema::Images;
use crate::system::Manifest;
use crate::yaml::{At, Node, Object, Reader};

/// CoreDNS as kubeadm 1.36 has it (`cmd/kubeadm/app/constants`); the digest is
/// that of Cilium's `cilium-cli/defaults`, among others.
const COREDNS: &str = "coredns/coredns:v1.14.2\
    @sha256:e7e6440cfd1e919280958f5b5a6ab2b184d385bba774c12ad2a9e1e4183f90d9";
/// metrics-server; the digest is that of minikube 1.38.1's addons.
const METRICS_SERVER: &str = "metrics-server/metrics-server:v0.8.1\
    @sha256:b2d2efaf5ac3b366ed0f839d2412a2c4279d4fc2a2a733f12c52133faed36c41";
/// Headlamp, of which nobody who publishes it names a digest.
const HEADLAMP: &str = "headlamp-k8s/headlamp:v0.45.0";
/// Where Headlamp is published.
const HEADLAMP_REGISTRY: &str = "ghcr.io";
/// How many name servers CoreDNS' `forward` takes.
const MOST_SERVERS: usize = 15;

/// What runs in the cluster for the cluster.
#[derive(Debug, Clone)]
pub struct Addons {
    /// The cluster's DNS, unless the operator brings one.
    pub dns: Option<Dns>,
    /// The image of metrics-server, if it is wanted.
    pub metrics_server: Option<String>,
    /// The image of the dashboard, if it is wanted.
    pub dashboard: Option<String>,
}

/// CoreDNS.
#[derive(Debug, Clone)]
pub struct Dns {
    /// Its image.
    pub image: String,
    /// How many of it; absent: two, or one in a cluster of one machine.
    pub replicas: Option<u16>,
    /// Who is asked for names that are not the cluster's; empty: the name
    /// servers of the machine that it runs on.
    pub forward: Vec<SocketAddr>,
    /// Who is asked for the names of other domains.
    pub stub_domains: BTreeMap<String, Vec<SocketAddr>>,
}

impl Default for Addons {
    fn default() -> Self {
        Self {
            dns: Some(Dns::new(&Images::default())),
            metrics_server: None,
            dashboard: None,
        }
    }
}

impl Dns {
    fn new(images: &Images) -> Self {
        Self {
            image: format!("{}/{COREDNS}", images.registry),
            replicas: None,
            forward: Vec::new(),
            stub_domains: BTreeMap::new(),
        }
    }
}

/// Reads `addons`; without it, `images` alone says where DNS comes from.
pub fn read(
    r: &mut Reader,
    found: Option<(&Node, String)>,
    images: &Images,
) -> (Addons, Vec<Manifest>) {
    let mut addons = Addons {
        dns: Some(Dns::new(images)),
        ..Addons::default()
    };
    let Some(mut o) = found.and_then(|(node, path)| r.object(node, &path)) else {
        return (addons, Vec::new());
    };
    if let Some((node, path)) = o.get("dns") {
        addons.dns = dns(r, node, &path, images);
    }
    let of_project = format!("{}/{METRICS_SERVER}", images.registry);
    addons.metrics_server = o
        .read(r, "metricsServer", |r, n, p| optional(r, n, p, of_project))
        .flatten();
    let registry = if images.registry == Images::default().registry {
        HEADLAMP_REGISTRY
    } else {
        &images.registry
    };
    let of_project = format!("{registry}/{HEADLAMP}");
    addons.dashboard = o
        .read(r, "dashboard", |r, n, p| optional(r, n, p, of_project))
        .flatten();
    let manifests = match o.get("manifests") {
        Some((node, path)) => manifests::read(r, node, &path),
        None => Vec::new(),
    };
    o.finish(r);
    (addons, manifests)
}

/// The DNS that is meant; none where it is switched off.
fn dns(r: &mut Reader, node: &Node, path: &str, images: &Images) -> Option<Dns> {
    let mut o = r.object(node, path)?;
    let mut dns = Dns::new(images);
    let enabled = o.read(r, "enabled", Reader::boolean);
    if let Some(typed) = o.read(r, "image", image) {
        dns.image = typed;
    }
    let replicas = o.read(r, "replicas", |r, n, p| number(r, n, p, 1..=1000));
    dns.replicas = replicas.map(|at| at.value);
    if let Some((node, path)) = o.get("forward") {
        dns.forward = servers(r, node, &path);
    }
    if let Some((node, path)) = o.get("stubDomains")
        && let Some(domains) = r.object(node, &path)
    {
        dns.stub_domains = stub_domains(r, domains);
    }
    o.finish(r);
    enabled.is_none_or(|at| at.value).then_some(dns)
}

/// An add-on that is off unless it is switched on: its image.
fn optional(r: &mut Reader, node: &Node, path: &str, published: String) -> Option<Option<String>> {
    let mut o = r.object(node, path)?;
    let enabled = o.read(r, "enabled", Reader::boolean);
    let typed = o.read(r, "image", image);
    o.finish(r);
    let enabled = enabled.is_some_and(|at| at.value);
    Some(enabled.then(|| typed.unwrap_or(published)))
}

fn stub_domains(r: &mut Reader, mut o: Object<'_>) -> BTreeMap<String, Vec<SocketAddr>> {
    let mut domains = BTreeMap::new();
    for (key, node) in o.entries() {
        let path = o.path_of(&key.text);
        if key.text.len() > 200 || !key.text.split('.').all(is_dns_label) {
            let message = format!("{path}: {:?} is not a DNS domain in lower case", key.text);
            r.find(&key.span, message, None);
        }
        domains.insert(key.text.clone(), servers(r, node, &path));
    }
    domains
}

/// A list of name servers; one that is empty asks nobody.
fn servers(r: &mut Reader, node: &Node, path: &str) -> Vec<SocketAddr> {
    let typed = r.list(node, path, server);
    let known: BTreeSet<SocketAddr> = typed.iter().map(|at| at.value).collect();
    if typed.is_empty() || typed.len() > MOST_SERVERS || known.len() < typed.len() {
        let message = format!("{path}: name 1 to {MOST_SERVERS} name servers, each once");
        r.find(&node.span, message, None);
    }
    typed.into_iter().map(|at| at.value).collect()
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn server(r: &mut Reader, node: &Node, path: &str) -> Option<At<SocketAddr>> {
    r.parse_with(node, path, |text| {
        let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        let server: SocketAddr = address.or_else(|_| text.parse()).map_err(|_| {
            format!("{text:?} is not the address of a name server: ADDRESS or ADDRESS:PORT")
        })?;
        if server.ip().is_loopback() || server.ip().is_unspecified() || server.port() == 0 {
            return Err(format!("{text}: in a pod that is the pod itself"));
        }
        Ok(server)
    })
}
