//! The settings as types, with what is meant where nothing was typed.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_json::{Map, Value};
use units::node_config::{CgroupDriver, HostAlias, NetworkMode, RuntimeSource, Snapshots};
use units::types::Role;

use super::addons::Addons;
use super::artifacts::ArtifactSources;
use super::azure::Azure;
use super::etcd;
pub use super::members::Machine;
use super::openstack::Openstack;
use super::pools::{NodeDocuments, Pool, Roles};
use super::pxe::Pxe;
use super::values::{DEFAULT_VERSION, Endpoint, Host, KubernetesVersion, ServiceAccountKey};
use crate::format::Format;
use crate::platform::Platform;
use crate::system::System;
use crate::yaml::At;

/// Flags of a program, without their leading dashes, and their values.
pub type Args = BTreeMap<String, String>;

/// Everything that cluster.yaml says, with defaults for what it does not.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster's name, as in kubeconfigs.
    pub name: String,
    /// Which Kubernetes.
    pub version: KubernetesVersion,
    /// In which language user-data is written, unless a flag says otherwise.
    pub format: Option<Format>,
    /// What hands user-data to machines, unless a flag says otherwise.
    pub platform: Option<Platform>,
    /// Whether documents are compressed as a whole.
    pub gzip: bool,
    /// Where the API server is reached; absent: at the first master.
    pub endpoint: Option<At<Endpoint>>,
    /// The machines, in the order in which they are listed.
    pub machines: Vec<Machine>,
    /// Where the list of machines stands, for what is wrong with it as a whole.
    pub machines_span: std::ops::Range<usize>,
    /// Whether machines get pod ranges in listing order.
    pub assign_pod_cidrs: bool,
    /// What is said of all machines of a role.
    pub roles: Roles,
    /// Machines that nobody lists.
    pub pools: Vec<Pool>,
    /// For whom documents of nodes are; absent: for each its own.
    pub node_documents: Option<At<NodeDocuments>>,
    /// Whether machines have a way of their own to all masters; absent: where
    /// there are several and no endpoint.
    pub balancer: Option<At<bool>>,
    /// Whether the kubelet runs the control plane, as static pods.
    pub static_pods: bool,
    /// Where images come from.
    pub images: Images,
    /// What masters keep running in the cluster.
    pub addons: Addons,
    /// Addresses.
    pub network: Network,
    /// The container runtime.
    pub runtime: Runtime,
    /// Laid over our KubeletConfiguration.
    pub kubelet: Value,
    /// Laid over our KubeProxyConfiguration.
    pub kube_proxy: Value,
    /// Laid over our etcd configuration.
    pub etcd: Value,
    /// Snapshots of etcd that are made by themselves, if they are.
    pub etcd_snapshots: Option<Snapshots>,
    /// Flags of the API server, over ours.
    pub apiserver_args: Args,
    /// More names in the API server's certificate.
    pub cert_sans: Vec<Host>,
    /// Flags of the controller manager, over ours.
    pub controller_manager_args: Args,
    /// Flags of the scheduler, over ours.
    pub scheduler_args: Args,
    /// The kind of key that signs service account tokens.
    pub service_account_key: ServiceAccountKey,
    /// The port on which Docker daemons are exposed, if they are.
    pub docker_port: Option<u16>,
    /// Names of addresses, besides those of the machines.
    pub host_aliases: Vec<At<HostAlias>>,
    /// Where downloads come from, and which.
    pub artifacts: ArtifactSources,
    /// What is made on Azure, if anything is.
    pub azure: Option<Azure>,
    /// What is made on OpenStack, if anything is.
    pub openstack: Option<Openstack>,
    /// How machines boot from the network, if they do.
    pub pxe: Option<Pxe>,
    /// The operating system's side.
    pub system: System,
}

/// The addresses of pods and services.
#[derive(Debug, Clone)]
pub struct Network {
    /// The ranges of all pods, one a family.
    pub pod_cidrs: Vec<At<IpNet>>,
    /// The ranges of all services, one a family.
    pub service_cidrs: Vec<At<IpNet>>,
    /// The prefix length of a node's IPv4 pod range.
    pub node_mask: At<u8>,
    /// The prefix length of a node's IPv6 pod range.
    pub node_mask_ipv6: At<u8>,
    /// How pods reach pods on other machines.
    pub mode: NetworkMode,
    /// The DNS domain of services.
    pub domain: String,
    /// Bytes of a pod's largest packet.
    pub mtu: Option<u32>,
    /// Whether pods are kept from the cloud's metadata service.
    pub metadata_guard: bool,
    /// Whether machines know each other's names without DNS.
    pub resolve_machines: bool,
}

/// The container runtime.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where containerd comes from.
    pub source: RuntimeSource,
    /// The image that holds a pod's namespaces.
    pub sandbox_image: String,
    /// How containers get their control groups.
    pub cgroup_driver: CgroupDriver,
    /// Laid over containerd's configuration: the TOML as a mapping.
    pub config: Map<String, Value>,
}

/// Where the images come from that Kubernetes itself needs.
#[derive(Debug, Clone)]
pub struct Images {
    /// The registry, and the path in it: `registry.k8s.io`.
    pub registry: String,
    /// etcd's image; absent: that of the registry for the lock's version.
    pub etcd: Option<String>,
    /// What tries a cluster out; absent: agnhost of the registry.
    pub probe: Option<String>,
}

/// Kubernetes' own image for tests.
const AGNHOST: &str = "e2e-test-images/agnhost:2.53";

impl Images {
    /// The image that tries a cluster out.
    pub fn probe(&self) -> String {
        let default = || format!("{}/{AGNHOST}", self.registry);
        self.probe.clone().unwrap_or_else(default)
    }
}

/// A value that nobody typed.
fn assumed<T>(value: T, path: &str) -> At<T> {
    At {
        value,
        span: 0..0,
        path: path.to_owned(),
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "kubernetes".to_owned(),
            version: DEFAULT_VERSION,
            format: None,
            platform: None,
            gzip: false,
            endpoint: None,
            machines: Vec::new(),
            machines_span: 0..0,
            assign_pod_cidrs: true,
            roles: Roles::default(),
            pools: Vec::new(),
            node_documents: None,
            balancer: None,
            static_pods: false,
            images: Images::default(),
            addons: Addons::default(),
            network: Network::default(),
            runtime: Runtime::default(),
            kubelet: Value::Null,
            kube_proxy: Value::Null,
            etcd: Value::Null,
            etcd_snapshots: Some(etcd::every_six_hours()),
            apiserver_args: Args::new(),
            cert_sans: Vec::new(),
            controller_manager_args: Args::new(),
            scheduler_args: Args::new(),
            service_account_key: ServiceAccountKey::default(),
            docker_port: None,
            host_aliases: Vec::new(),
            artifacts: ArtifactSources::default(),
            azure: None,
            openstack: None,
            pxe: None,
            system: System::default(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        let net = |net: [u8; 4], path| {
            // A prefix of 16 is one that IPv4 has.
            IpNet::new(net.into(), 16)
                .map(|net| assumed(net, path))
                .into_iter()
                .collect()
        };
        Self {
            pod_cidrs: net([10, 244, 0, 0], "network.podCIDR"),
            service_cidrs: net([10, 96, 0, 0], "network.serviceCIDR"),
            node_mask: assumed(24, "network.nodeMask"),
            node_mask_ipv6: assumed(64, "network.nodeMaskIPv6"),
            mode: NetworkMode::Vxlan,
            domain: "cluster.local".to_owned(),
            mtu: None,
            metadata_guard: true,
            resolve_machines: true,
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registry: "registry.k8s.io".to_owned(),
            etcd: None,
            probe: None,
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            source: RuntimeSource::Artifact,
            sandbox_image: "registry.k8s.io/pause:3.10.1".to_owned(),
            cgroup_driver: CgroupDriver::Systemd,
            config: Map::new(),
        }
    }
}

impl Settings {
    /// The machines of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(move |m| m.role.value == role)
    }
}
