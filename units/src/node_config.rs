//! NodeConfig, the schema of `/etc/knode/node.yaml`: what one machine is.
//!
//! Written by kgen, read by knode. User-data lives as long as its machine, so
//! a new knode reads every node.yaml that an old kgen wrote: [`Version`] is
//! read first, then that version's struct. Frozen samples are in
//! `units/testdata`. The struct holds no secrets; it may be printed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::{Digest, FileMode, NodeName, Role, Taint};

/// The version of the schema that this crate writes.
pub const VERSION: u32 = 1;

/// Only the version of a node.yaml, to choose the struct that reads the rest.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Version {
    /// The schema's version; see [`VERSION`].
    pub version: u32,
}

/// What one machine is and runs, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeConfig {
    /// Always 1 for this struct.
    pub version: u32,
    /// What the machine belongs to.
    pub cluster: Cluster,
    /// What the machine is.
    pub node: Node,
    /// How its pods reach others; absent on machines without pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The container runtime; absent on machines without pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// What to download, verified by checksum.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// What to run, in no particular order; knode knows what needs what.
    pub services: Vec<Service>,
    /// Every file that came with this one, so that a document that was cut or
    /// altered on its way is noticed.
    #[serde(default)]
    pub manifest: Vec<ManifestEntry>,
}

/// The cluster, as far as one machine has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cluster {
    /// The cluster's name, as in kubeconfigs.
    pub name: String,
    /// The Kubernetes version, without the `v`: `1.36.1`.
    pub kubernetes_version: String,
    /// The DNS domain of services: `cluster.local`.
    pub domain: String,
    /// The API server's address: `https://HOST:PORT`.
    pub endpoint: String,
    /// The ranges of all pods, CIDR notation; one a family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// The ranges of all services, CIDR notation; one a family.
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNet>,
}

/// The machine itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Node {
    /// The Node object's name.
    pub name: NodeName,
    /// What the machine does.
    pub role: Role,
    /// Its addresses, one a family. Empty: knode takes the address that the
    /// kernel would use towards the API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Its own pod ranges, one a family. Empty: the controller manager gives
    /// the Node one, and knode waits for it.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<IpNet>,
    /// Labels of the Node object. Those under `node-role.kubernetes.io/` are
    /// set by masters, since a kubelet may not give itself one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints the Node is born with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// How pods on this machine reach pods on others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Packets to other machines' pods travel in UDP (VXLAN, RFC 7348) between
    /// the machines' addresses; works on any network.
    Vxlan,
    /// A route to each peer's pod range through the peer's address; the
    /// machines share one layer-2 network.
    HostGw,
    /// The cloud's or router's own routes carry pod ranges; knode adds none.
    Routed,
    /// The user brings a CNI; knode makes neither bridge nor CNI list.
    None,
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::Routed => "routed",
            Self::None => "none",
        })
    }
}

/// The pod network of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Network {
    /// How pods reach pods on other machines.
    pub mode: NetworkMode,
    /// The bridge that pods hang on: `cbr0`.
    pub bridge: String,
    /// Bytes of the largest packet of a pod. Absent: that of the interface
    /// with the node's address, less what the mode wraps around each packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether pods are kept from the cloud's metadata service
    /// (169.254.169.254), which would hand them this machine's user-data.
    pub metadata_guard: bool,
    /// Other machines known beforehand; more are found among the Nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// Another machine with pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peer {
    /// Its Node's name.
    pub name: NodeName,
    /// What it does; masters label its Node by this.
    pub role: Role,
    /// Its addresses, one a family.
    pub addresses: Vec<IpAddr>,
    /// Its pod ranges, one a family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
}

/// Where containerd comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeSource {
    /// Downloaded with the other artifacts; our own unit runs it.
    Artifact,
    /// Already on the machine; its own unit runs it, with our configuration.
    Distribution,
}

/// How containers get their control groups.
/// Source: Kubernetes documentation, "Container Runtimes".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupDriver {
    /// Made by systemd, as transient units.
    #[default]
    Systemd,
    /// Made by writing to /sys/fs/cgroup.
    Cgroupfs,
}

/// The container runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Runtime {
    /// Where containerd comes from.
    pub source: RuntimeSource,
    /// The image that holds a pod's namespaces, never collected.
    pub sandbox_image: String,
    /// How containers get their control groups.
    pub cgroup_driver: CgroupDriver,
}

/// How an artifact's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// The bytes are the one file.
    #[serde(rename = "plain")]
    Plain,
    /// A tar archive, compressed with gzip (RFC 1952).
    #[serde(rename = "tar.gz")]
    TarGz,
}

/// Something to download, pinned by its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Artifact {
    /// For messages: `kubelet`.
    pub name: String,
    /// For messages: `1.36.1`.
    pub version: String,
    /// Where it can be had; tried in this order.
    pub urls: Vec<String>,
    /// The checksum of the bytes as downloaded.
    pub digest: Digest,
    /// How many bytes are downloaded, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How the bytes are packed.
    pub packing: Packing,
    /// Which files of it go where; all become mode 0755.
    pub files: Vec<ArtifactFile>,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ArtifactFile {
    /// Its path in the archive, without a leading `./`; absent for plain ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Where it is installed: an absolute path, a link into the store.
    pub path: String,
}

/// A service of the machine, run by systemd and started by knode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The container runtime.
    Containerd,
    /// A member of the cluster's store.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The controllers.
    KubeControllerManager,
    /// The scheduler.
    KubeScheduler,
    /// The node's Kubernetes agent.
    Kubelet,
    /// Services' addresses on this node.
    KubeProxy,
}

impl Service {
    /// The systemd unit that runs it.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Containerd => "containerd.service",
            Self::Etcd => "etcd.service",
            Self::KubeApiserver => "kube-apiserver.service",
            Self::KubeControllerManager => "kube-controller-manager.service",
            Self::KubeScheduler => "kube-scheduler.service",
            Self::Kubelet => "kubelet.service",
            Self::KubeProxy => "kube-proxy.service",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.unit().trim_end_matches(".service"))
    }
}

/// One file that a user-data document brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ManifestEntry {
    /// Where it is.
    pub path: String,
    /// Its permission bits.
    pub mode: FileMode,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples never change once a release wrote them: this is what keeps a
    /// new knode able to read an old machine's node.yaml.
    #[test]
    fn frozen_samples_are_read() {
        let sample = include_str!("../testdata/node-v1.yaml");
        let version: Version = serde_yaml::from_str(sample).unwrap();
        assert_eq!(version.version, 1);
        let config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        assert_eq!(config.node.name.as_str(), "node-1");
        let again: NodeConfig =
            serde_yaml::from_str(&serde_yaml::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let sample = include_str!("../testdata/node-v1.yaml");
        let error = serde_yaml::from_str::<NodeConfig>(&format!("{sample}surprise: 1\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("surprise"), "{error}");
    }
}
