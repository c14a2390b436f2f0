//! node.yaml: what the machine is, and every file that comes with it.

use std::collections::BTreeMap;

use ::units::node_config::{
    Balancer, Bootstrap, Cluster as ClusterSection, Etcd, HostAlias, ManifestEntry, Neighbours,
    Network, NetworkMode, Node, NodeConfig, OfHost, Peer, Runtime, Service, VERSION,
};
use ::units::paths;
use ::units::types::{Digest, FileMode, NodeName, Role};
use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::{Content, Parts, PlannedFile, overlay, static_pods};
use crate::cluster::{Cluster, Machine};

/// The bridge that pods hang on.
const BRIDGE: &str = "cbr0";

/// More machines than this are not listed to each other: 256 peers are about
/// 5 kB of a document.
pub(super) const LARGE: usize = 256;

/// How many neighbours a machine asks at most.
const NEAR: usize = 6;

/// The services of a machine that systemd runs.
pub fn services(cluster: &Cluster, machine: &Machine) -> Vec<Service> {
    let in_pods = static_pods::services(cluster, machine);
    let mut services = Vec::new();
    if machine.role.runs_kubelet() {
        services.push(Service::Containerd);
    }
    if cluster.docker_on(machine).is_some() {
        services.push(Service::Docker);
    }
    if cluster.runs_etcd(machine) {
        services.push(Service::Etcd);
    }
    if machine.role == Role::Master {
        services.extend([
            Service::KubeApiserver,
            Service::KubeControllerManager,
            Service::KubeScheduler,
        ]);
    }
    if machine.role.runs_kubelet() {
        services.extend([Service::Kubelet, Service::KubeProxy]);
    }
    services.retain(|service| !in_pods.contains(service));
    services
}

/// node.yaml, with a manifest of `files`. There is no secret in it, but what
/// it says is for root alone.
pub fn file(parts: Parts<'_>, files: &[PlannedFile]) -> Result<PlannedFile> {
    let config = config(parts, files);
    Ok(PlannedFile::new(
        paths::NODE_CONFIG,
        FileMode::SECRET,
        Content::Public(overlay::yaml(&config)?.into()),
    ))
}

fn config(parts: Parts<'_>, files: &[PlannedFile]) -> NodeConfig {
    let (cluster, machine) = (parts.cluster, parts.machine);
    let with_pods = machine.role.runs_kubelet();
    NodeConfig {
        version: VERSION,
        cluster: ClusterSection {
            name: cluster.name.clone(),
            kubernetes_version: cluster.version.to_string(),
            domain: cluster.domain.clone(),
            endpoint: cluster.node_endpoint(machine),
            pod_cidrs: cluster.pod_cidrs.clone(),
            service_cidrs: cluster.service_cidrs.clone(),
        },
        node: Node {
            name: (machine.shared.is_none()).then(|| machine.name.clone()),
            role: machine.role,
            addresses: machine.addresses.clone(),
            pod_cidrs: machine.pod_cidrs.clone(),
            labels: machine.labels.clone(),
            taints: machine.taints.clone(),
            registration: machine.registration,
            provider_id: machine.provider_id.clone(),
        },
        by_hostname: hosts(machine),
        bootstrap: bootstrap(parts),
        balancer: (cluster.balanced && with_pods).then(|| Balancer {
            listen: cluster.balancer(),
            servers: cluster.api_servers(),
        }),
        host_aliases: host_aliases(cluster),
        network: with_pods.then(|| network(cluster, machine)),
        runtime: with_pods.then(|| Runtime {
            source: cluster.runtime_source,
            sandbox_image: cluster.sandbox_image.clone(),
            cgroup_driver: cluster.cgroup_driver,
            config: cluster.containerd.clone(),
        }),
        etcd: cluster.runs_etcd(machine).then(|| Etcd {
            snapshots: cluster.etcd_snapshots.clone(),
        }),
        artifacts: parts.artifacts.to_vec(),
        neighbours: neighbours(cluster, machine),
        services: services(cluster, machine),
        static_pods: static_pods::services(cluster, machine),
        manifest: files.iter().map(entry).collect(),
    }
}

/// What each of several machines is besides.
fn hosts(machine: &Machine) -> BTreeMap<NodeName, OfHost> {
    let shared = machine.shared.as_ref();
    shared.map(|s| s.hosts.clone()).unwrap_or_default()
}

/// How machines with this document get their certificates.
fn bootstrap(parts: Parts<'_>) -> Option<Bootstrap> {
    parts.machine.shared.as_ref()?;
    let token = parts.material.tokens.first()?;
    Some(Bootstrap {
        pool: token.pool.clone(),
        expires: token.expires(),
    })
}

fn network(cluster: &Cluster, machine: &Machine) -> Network {
    Network {
        mode: cluster.network_mode,
        bridge: BRIDGE.to_owned(),
        mtu: cluster.mtu,
        metadata_guard: cluster.metadata_guard,
        peers: peers(cluster, machine),
    }
}

/// The other machines with pods: to a master all of them, as it labels their
/// Nodes by role; to a node those of which enough is known for a route, which
/// serve until it has the Nodes from the API. In a large cluster those are the
/// masters alone, or user-data would grow with the cluster.
fn peers(cluster: &Cluster, machine: &Machine) -> Vec<Peer> {
    let large = cluster.machines.len() > LARGE;
    let useful = |peer: &Machine| {
        machine.role == Role::Master
            || (matches!(
                cluster.network_mode,
                NetworkMode::Vxlan | NetworkMode::HostGw
            ) && (peer.role == Role::Master || !large)
                && !peer.addresses.is_empty()
                && !peer.pod_cidrs.is_empty())
    };
    cluster
        .machines
        .iter()
        .filter(|m| m.name != machine.name && !machine.has_host(&m.name))
        .filter(|m| m.role.runs_kubelet() && useful(m))
        .map(|m| Peer {
            name: m.name.clone(),
            role: m.role,
            addresses: m.addresses.clone(),
            pod_cidrs: m.pod_cidrs.clone(),
        })
        .collect()
}

/// Whom a machine asks for what they downloaded: those that come after it in
/// the settings, so that the questions are spread over all, and machines that
/// are listed together ask each other.
fn neighbours(cluster: &Cluster, machine: &Machine) -> Option<Neighbours> {
    let port = cluster.neighbours.filter(|_| machine.role.runs_kubelet())?;
    let all = &cluster.machines;
    let place = all.iter().position(|m| m.name == machine.name);
    let after = place.map_or(0, |place| place + 1);
    let others = all[after..].iter().chain(&all[..after]);
    let addresses = others
        .filter(|m| m.name != machine.name && m.role.runs_kubelet())
        .filter_map(|m| m.addresses.first().copied())
        .take(NEAR)
        .collect();
    Some(Neighbours { port, addresses })
}

/// The machines' names, and those of the operator's own. In a large cluster
/// only masters and members of etcd are named.
fn host_aliases(cluster: &Cluster) -> Vec<HostAlias> {
    let mut aliases = Vec::new();
    if cluster.resolve_machines {
        for machine in named_everywhere(cluster) {
            for ip in &machine.addresses {
                aliases.push(HostAlias {
                    ip: *ip,
                    hostnames: vec![machine.name.to_string()],
                });
            }
        }
    }
    aliases.extend(cluster.host_aliases.iter().cloned());
    aliases
}

/// The machines that every other is told of: all of them, or in a large
/// cluster those that run the control plane or etcd, or user-data would grow
/// with the cluster.
pub(super) fn named_everywhere(cluster: &Cluster) -> impl Iterator<Item = &Machine> {
    let large = cluster.machines.len() > LARGE;
    cluster
        .machines
        .iter()
        .filter(move |m| !large || m.role != Role::Node)
}

fn entry(file: &PlannedFile) -> ManifestEntry {
    ManifestEntry {
        path: file.path.clone(),
        mode: file.mode,
        digest: Digest::Sha256(Sha256::digest(file.content.bytes()).into()),
    }
}
