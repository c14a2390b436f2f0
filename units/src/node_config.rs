//! NodeConfig, the schema of `/etc/knode/node.yaml`: what one machine is.
//!
//! Written by kgen, read by knode. User-data lives as long as its machine, so
//! a new knode reads every node.yaml that an old kgen wrote: [`Version`] is
//! read first, then that version's struct. Frozen samples are in
//! `units/testdata`. The struct holds no secrets; it may be printed.

mod artifact;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use artifact::{Artifact, ArtifactFile, Compression, Neighbours, Packing};

use crate::types::{Digest, FileMode, InvalidValue, NodeName, Role, Taint};

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
    /// What each of several machines with this one document is besides `node`,
    /// by host name; a machine with another host name is none of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_hostname: BTreeMap<NodeName, OfHost>,
    /// How a machine without a certificate of its own gets one; absent where
    /// the document brings one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// The machine's own way to all masters; absent where `cluster.endpoint`
    /// is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer: Option<Balancer>,
    /// Names that resolve without DNS: a block of /etc/hosts of knode's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,
    /// How its pods reach others; absent on machines without pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The container runtime; absent on machines without pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// What is done for the machine's member of etcd; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// What to download, verified by checksum.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Who else has them; absent where the settings do not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<Neighbours>,
    /// What to run, in no particular order; knode knows what needs what.
    pub services: Vec<Service>,
    /// What the kubelet runs as static pods, and systemd therefore not; none of
    /// them is among `services`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub static_pods: Vec<Service>,
    /// Every file that came with this one, so that a document that was cut or
    /// altered on its way is noticed.
    #[serde(default)]
    pub manifest: Vec<ManifestEntry>,
}

impl NodeConfig {
    /// The machine's name, and what its host name adds to `node`.
    ///
    /// # Errors
    ///
    /// The document is for several machines and `host_name` is none of them,
    /// or no name that a Node can have.
    pub fn resolve(&mut self, host_name: &str) -> Result<NodeName, InvalidValue> {
        if let Some(name) = &self.node.name {
            return Ok(name.clone());
        }
        // A host name may come with its domain.
        let label = host_name.split('.').next().unwrap_or_default();
        let name: NodeName = label.to_ascii_lowercase().parse().map_err(|error| {
            InvalidValue(format!(
                "this machine is called by its host name, and {error}"
            ))
        })?;
        if !self.by_hostname.is_empty() {
            let Some(host) = self.by_hostname.get(&name).cloned() else {
                let known: Vec<&str> = self.by_hostname.keys().map(NodeName::as_str).collect();
                return Err(InvalidValue(format!(
                    "the host name {name} is none of those that this document is for: {}",
                    known.join(", ")
                )));
            };
            self.node.addresses = host.addresses;
            self.node.pod_cidrs = host.pod_cidrs;
            self.node.labels.extend(host.labels);
            self.node.taints.extend(host.taints);
        }
        self.node.name = Some(name.clone());
        Ok(name)
    }
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
    /// The Node object's name. Absent in a document for several machines: each
    /// is called by its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
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
    /// Who makes the Node object.
    #[serde(default, skip_serializing_if = "Registration::is_default")]
    pub registration: Registration,
    /// What a cloud calls the machine (`spec.providerID`): `azure:///…`.
    #[serde(
        default,
        rename = "providerID",
        skip_serializing_if = "Option::is_none"
    )]
    pub provider_id: Option<String>,
}

/// Who makes the Node object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Registration {
    /// knode, before the kubelet starts.
    #[default]
    Agent,
    /// The kubelet, as it does by itself; knode sees to it that it is there.
    Kubelet,
}

impl Registration {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What one of several machines with the same document is besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OfHost {
    /// Its addresses, as [`Node::addresses`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Its pod ranges, as [`Node::pod_cidrs`].
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<IpNet>,
    /// Labels beside those of [`Node::labels`], and over them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints beside those of [`Node::taints`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// How a machine without a certificate gets one: by a token in
/// [`crate::paths::BOOTSTRAP_KUBECONFIG`].
/// Source: Kubernetes documentation, "TLS bootstrapping".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bootstrap {
    /// The pool that the token is for, for messages.
    pub pool: String,
    /// Until when the token is good, RFC 3339 in UTC: `2026-12-01T00:00:00Z`.
    pub expires: String,
}

/// A port of loopback behind which all API servers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Balancer {
    /// Where it listens: `127.0.0.1:7443`.
    pub listen: SocketAddr,
    /// The API servers known beforehand, `HOST:PORT`; more are found among the
    /// endpoints of the `kubernetes` service.
    pub servers: Vec<String>,
}

/// Names of an address. Source: Kubernetes API, core/v1 HostAlias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names, DNS subdomains.
    pub hostnames: Vec<String>,
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
    /// Laid over containerd's configuration, key by key: the TOML as a
    /// mapping.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
}

/// What is done for a member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Etcd {
    /// Its snapshots; absent: none are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Snapshots>,
}

/// Snapshots of etcd that are made by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Snapshots {
    /// Seconds from one to the next.
    pub interval: u64,
    /// How many are kept.
    pub keep: u32,
    /// Where they are, 0600 each.
    pub folder: String,
}

/// A service of the machine, run by systemd and started by knode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The container runtime.
    Containerd,
    /// The Docker daemon, of the distribution; reached over TLS from outside.
    Docker,
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
            Self::Docker => "docker.service",
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
        assert_eq!(config.node.name.as_ref().unwrap().as_str(), "node-1");
        let again: NodeConfig =
            serde_yaml::from_str(&serde_yaml::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
    }

    /// P36: what is in pods is not among the services.
    #[test]
    fn static_pods_are_read_and_left_out_where_there_are_none() {
        let sample = include_str!("../testdata/node-v1-static-pods.yaml");
        let config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        assert_eq!(config.static_pods.len(), 4);
        assert!(!config.services.contains(&Service::Etcd));
        let text = serde_yaml::to_string(&config).unwrap();
        assert_eq!(serde_yaml::from_str::<NodeConfig>(&text).unwrap(), config);
        let without = include_str!("../testdata/node-v1.yaml");
        let config: NodeConfig = serde_yaml::from_str(without).unwrap();
        assert!(
            !serde_yaml::to_string(&config)
                .unwrap()
                .contains("staticPods")
        );
    }

    /// Of a kgen that made no snapshots there is no section.
    #[test]
    fn what_is_done_for_etcd_may_be_absent() {
        let sample = include_str!("../testdata/node-v1.yaml");
        let config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        assert_eq!(config.etcd, None);
        let with = "etcd: {snapshots: {interval: 21600, keep: 8, folder: /var/lib/s}}\n";
        let config: NodeConfig = serde_yaml::from_str(&format!("{sample}{with}")).unwrap();
        let snapshots = config.etcd.as_ref().unwrap().snapshots.as_ref().unwrap();
        assert_eq!((snapshots.interval, snapshots.keep), (21_600, 8));
        let text = serde_yaml::to_string(&config).unwrap();
        assert_eq!(serde_yaml::from_str::<NodeConfig>(&text).unwrap(), config);
    }

    #[test]
    fn a_document_for_several_machines_is_resolved_by_host_name() {
        let sample = include_str!("../testdata/node-v1-several.yaml");
        let config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        let again: NodeConfig =
            serde_yaml::from_str(&serde_yaml::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
        let mut node = config.clone();
        assert_eq!(
            node.resolve("Node-2.example.com").unwrap().as_str(),
            "node-2"
        );
        assert_eq!(node.node.labels["example.com/rack"], "a2");
        assert_eq!(node.node.labels["example.com/pool"], "workers");
        assert_eq!(node.node.addresses.len(), 1);
        let error = config.clone().resolve("node-3").unwrap_err().to_string();
        assert!(error.contains("node-1, node-2"), "{error}");
        assert!(config.clone().resolve("a_b").is_err());
        let mut pool = config;
        pool.by_hostname.clear();
        assert_eq!(pool.resolve("anything").unwrap().as_str(), "anything");
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
