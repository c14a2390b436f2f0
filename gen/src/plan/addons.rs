//! What masters keep running in the cluster (P41, P42, P43): our own add-ons,
//! with what differs between clusters put in its place, and the operator's.
//! Sources: Kubernetes documentation, "DNS for Services and Pods"; CoreDNS'
//! manual.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ::units::embedded::{StaticFile, addons};
use ::units::paths;
use ::units::types::{FileMode, Role};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{Content, Parts, PlannedFile, control_plane, files, overlay};
use crate::cluster::{Cluster, Dns};
use crate::system::Manifest;

/// The port within CoreDNS' pods, which needs no privilege.
const PORT: u16 = 1053;

/// The files of a master; none of others.
pub fn files(parts: Parts<'_>) -> Result<Vec<PlannedFile>> {
    let cluster = parts.cluster;
    if parts.machine.role != Role::Master {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    if let Some(dns) = &cluster.addons.dns {
        all.push(coredns(cluster, dns)?.into_file()?);
    }
    if let Some(image) = &cluster.addons.metrics_server {
        all.push(metrics_server(cluster, image)?.into_file()?);
    }
    if let Some(image) = &cluster.addons.dashboard {
        let mut objects = Objects::of(addons::HEADLAMP)?;
        objects.set_image(image)?;
        all.push(objects.into_file()?);
    }
    all.extend(parts.system.manifests.iter().map(manifest));
    Ok(all)
}

/// The operator's own, with a name that none of ours has.
fn manifest(manifest: &Manifest) -> PlannedFile {
    let path = format!("{}/own-{}.yaml", paths::OBJECTS_DIR, manifest.name);
    let public = manifest.bytes.expose_text().filter(|_| !manifest.is_secret);
    match public {
        Some(text) => PlannedFile::new(
            path,
            FileMode::SECRET,
            Content::Public(text.to_owned().into()),
        ),
        None => files::secret(path, manifest.bytes.clone()),
    }
}

fn coredns(cluster: &Cluster, dns: &Dns) -> Result<Objects> {
    let addresses = cluster.dns_service();
    let first = addresses.first().context("services have no range")?;
    let families: Vec<&str> = addresses
        .iter()
        .map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
        .collect();
    let policy = match addresses.len() {
        1 => "SingleStack",
        _ => "RequireDualStack",
    };
    let mut objects = Objects::of(addons::COREDNS)?;
    objects.set_image(&dns.image)?;
    objects.set("Service", "/spec/clusterIP", json!(first))?;
    objects.set("Service", "/spec/clusterIPs", json!(addresses))?;
    objects.set("Service", "/spec/ipFamilies", json!(families))?;
    objects.set("Service", "/spec/ipFamilyPolicy", json!(policy))?;
    objects.set(
        "Deployment",
        "/spec/replicas",
        json!(replicas(cluster, dns)),
    )?;
    let ours = objects.get("ConfigMap", "/data/Corefile")?;
    let ours = ours.as_str().context("the Corefile is no text")?;
    let corefile = corefile(ours, cluster, dns)?;
    objects.set("ConfigMap", "/data/Corefile", json!(corefile))?;
    Ok(objects)
}

/// Two, unless there is one machine to run them.
fn replicas(cluster: &Cluster, dns: &Dns) -> u16 {
    let with_pods = cluster.machines.iter().filter(|m| m.role.runs_kubelet());
    let alone = with_pods.count() < 2 && cluster.pools.is_empty();
    dns.replicas.unwrap_or(if alone { 1 } else { 2 })
}

/// Ours with the cluster's domain and who is asked for other names.
fn corefile(ours: &str, cluster: &Cluster, dns: &Dns) -> Result<String> {
    let replace = |text: &str, from: &str, to: &str| {
        ensure!(text.contains(from), "the Corefile has no {from:?}");
        Ok(text.replace(from, to))
    };
    let mut text = replace(ours, "cluster.local", &cluster.domain)?;
    if !dns.forward.is_empty() {
        let forward = format!("forward . {} {{", list(&dns.forward));
        text = replace(&text, "forward . /etc/resolv.conf {", &forward)?;
    }
    for (domain, servers) in &dns.stub_domains {
        let servers = list(servers);
        write!(
            text,
            "{domain}:{PORT} {{\n  errors\n  cache 30\n  forward . {servers}\n}}\n"
        )?;
    }
    Ok(text)
}

fn list(servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    servers.join(" ")
}

fn metrics_server(cluster: &Cluster, image: &str) -> Result<Objects> {
    let mut objects = Objects::of(addons::METRICS_SERVER)?;
    objects.set_image(image)?;
    let args = "/spec/template/spec/containers/0/args";
    let mut all = objects.get("Deployment", args)?.clone();
    let list = all.as_array_mut().context("no arguments")?;
    let addresses = control_plane::kubelet_addresses(cluster);
    list.push(json!(format!(
        "--kubelet-preferred-address-types={addresses}"
    )));
    objects.set("Deployment", args, all)?;
    Ok(objects)
}

/// The objects of one of our files.
struct Objects {
    path: &'static str,
    mode: FileMode,
    all: Vec<Value>,
}

impl Objects {
    fn of(file: StaticFile) -> Result<Self> {
        let read = serde_yaml::from_multiple(file.content);
        Ok(Self {
            path: file.path,
            mode: file.mode,
            all: read.with_context(|| format!("reading our own {}", file.path))?,
        })
    }

    /// The value at a place of the one object of a kind.
    fn get(&self, kind: &str, pointer: &str) -> Result<&Value> {
        let object = self.all.iter().find(|object| object["kind"] == kind);
        object
            .and_then(|object| object.pointer(pointer))
            .ok_or_else(|| anyhow!("{} has no {kind} with {pointer}", self.path))
    }

    /// Replaces what the file has there.
    fn set(&mut self, kind: &str, pointer: &str, value: Value) -> Result<()> {
        self.get(kind, pointer)?;
        let object = self.all.iter_mut().find(|object| object["kind"] == kind);
        if let Some(place) = object.and_then(|object| object.pointer_mut(pointer)) {
            *place = value;
        }
        Ok(())
    }

    fn set_image(&mut self, image: &str) -> Result<()> {
        let pointer = "/spec/template/spec/containers/0/image";
        self.set("Deployment", pointer, json!(image))
    }

    fn into_file(self) -> Result<PlannedFile> {
        let texts: Result<Vec<String>> = self.all.iter().map(overlay::yaml).collect();
        let text = texts?.join("---\n");
        Ok(PlannedFile::new(
            self.path,
            self.mode,
            Content::Public(text.into()),
        ))
    }
}
