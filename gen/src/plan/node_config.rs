//! node.yaml: what the machine is, and every file that comes with it.

use ::units::node_config::{
    Cluster as ClusterSection, ManifestEntry, Network, NetworkMode, Node, NodeConfig, Peer,
    Runtime, Service, VERSION,
};
use ::units::paths;
use ::units::types::{Digest, FileMode, Role};
use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::{Content, Parts, PlannedFile, overlay};
use crate::cluster::{Cluster, Machine};

/// The bridge that pods hang on.
const BRIDGE: &str = "cbr0";

/// More machines than this are not listed to each other: 256 peers are about
/// 5 kB of a document.
const LARGE: usize = 256;

/// The services of a machine.
pub fn services(cluster: &Cluster, machine: &Machine) -> Vec<Service> {
    let mut services = Vec::new();
    if machine.role.runs_kubelet() {
        services.push(Service::Containerd);
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
    services
}

/// node.yaml, with a manifest of `files`. There is no secret in it, but what
/// it says is for root alone.
pub fn file(parts: Parts<'_>, files: &[PlannedFile]) -> Result<PlannedFile> {
    let config = config(parts, files);
    Ok(PlannedFile {
        path: paths::NODE_CONFIG.to_owned(),
        mode: FileMode::SECRET,
        content: Content::Public(overlay::yaml(&config)?.into()),
    })
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
            endpoint: cluster.endpoint.to_string(),
            pod_cidrs: cluster.pod_cidrs.clone(),
            service_cidrs: cluster.service_cidrs.clone(),
        },
        node: Node {
            name: machine.name.clone(),
            role: machine.role,
            addresses: machine.addresses.clone(),
            pod_cidrs: machine.pod_cidrs.clone(),
            labels: machine.labels.clone(),
            taints: machine.taints.clone(),
        },
        network: with_pods.then(|| network(cluster, machine)),
        runtime: with_pods.then(|| Runtime {
            source: cluster.runtime_source,
            sandbox_image: cluster.sandbox_image.clone(),
            cgroup_driver: cluster.cgroup_driver,
        }),
        artifacts: parts.artifacts.to_vec(),
        services: services(cluster, machine),
        manifest: files.iter().map(entry).collect(),
    }
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
        .filter(|m| m.name != machine.name && m.role.runs_kubelet() && useful(m))
        .map(|m| Peer {
            name: m.name.clone(),
            role: m.role,
            addresses: m.addresses.clone(),
            pod_cidrs: m.pod_cidrs.clone(),
        })
        .collect()
}

fn entry(file: &PlannedFile) -> ManifestEntry {
    ManifestEntry {
        path: file.path.clone(),
        mode: file.mode,
        digest: Digest::Sha256(Sha256::digest(file.content.bytes()).into()),
    }
}
