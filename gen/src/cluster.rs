//! The cluster that is meant: roles, addresses, endpoints, all arithmetic
//! done. It holds no secrets and may be printed.

mod derive;
mod endpoint;
mod pools;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Map, Value};
use units::node_config::{
    CgroupDriver, HostAlias, NetworkMode, Registration, RuntimeSource, Snapshots,
};
use units::types::{Arch, NodeName, Role, Taint};

pub use pools::Shared;

use crate::format::Format;
use crate::platform::Platform;
use crate::ranges::nth_address;
use crate::settings::Checked;
pub use crate::settings::{
    Addons, Args, ArtifactSources, Azure, BaseUrl, Dhcp, Dns, Endpoint, Host, Images,
    KubernetesVersion, Mac, Openstack, Pxe, ServiceAccountKey,
};

/// A cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name, as in kubeconfigs.
    pub name: String,
    /// Which Kubernetes it runs.
    pub version: KubernetesVersion,
    /// The language of its user-data, unless a flag says otherwise.
    pub format: Option<Format>,
    /// What hands user-data to machines, unless a flag says otherwise.
    pub platform: Option<Platform>,
    /// Whether documents are compressed as a whole.
    pub gzip: bool,
    /// Where the API server is reached.
    pub endpoint: Endpoint,
    /// The port that every API server listens on.
    pub api_port: u16,
    /// The DNS domain of services.
    pub domain: String,
    /// The ranges of all pods, one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// The ranges of all services, one a family.
    pub service_cidrs: Vec<IpNet>,
    /// The prefix length of a node's IPv4 pod range.
    pub node_mask: u8,
    /// The prefix length of a node's IPv6 pod range.
    pub node_mask_ipv6: u8,
    /// How pods reach pods on other machines.
    pub network_mode: NetworkMode,
    /// Bytes of a pod's largest packet.
    pub mtu: Option<u32>,
    /// Whether pods are kept from the cloud's metadata service.
    pub metadata_guard: bool,
    /// Where containerd comes from.
    pub runtime_source: RuntimeSource,
    /// The image that holds a pod's namespaces.
    pub sandbox_image: String,
    /// How containers get their control groups.
    pub cgroup_driver: CgroupDriver,
    /// Laid over containerd's configuration.
    pub containerd: Map<String, Value>,
    /// The machines, in listing order.
    pub machines: Vec<Machine>,
    /// What documents are for that are for several machines: the machines of a
    /// pool, or all nodes.
    pub pools: Vec<Machine>,
    /// Whether machines reach all masters through a port of their own.
    pub balanced: bool,
    /// Whether etcd runs on the masters, as it does unless there are machines
    /// for it alone.
    pub stacked_etcd: bool,
    /// Whether the kubelet runs the masters' control plane, as static pods.
    pub static_pods: bool,
    /// Where images come from.
    pub images: Images,
    /// What masters keep running in the cluster.
    pub addons: Addons,
    /// What the operator lays over our configuration.
    pub overrides: Overrides,
    /// More names in the API server's certificate.
    pub cert_sans: Vec<Host>,
    /// The kind of key that signs service account tokens.
    pub service_account_key: ServiceAccountKey,
    /// The port on which Docker daemons are reached over TLS; none: they are
    /// not.
    pub docker_port: Option<u16>,
    /// Snapshots of etcd that are made by themselves, if they are.
    pub etcd_snapshots: Option<Snapshots>,
    /// The port at which machines offer each other what they downloaded; none:
    /// they do not.
    pub neighbours: Option<u16>,
    /// Names of addresses, besides those of the machines.
    pub host_aliases: Vec<HostAlias>,
    /// Whether machines know each other's names without DNS.
    pub resolve_machines: bool,
    /// What is made on Azure, if anything is.
    pub azure: Option<Azure>,
    /// What is made on OpenStack, if anything is.
    pub openstack: Option<Openstack>,
    /// How machines boot from the network, if they do.
    pub pxe: Option<Pxe>,
}

/// What the operator lays over our configuration of other programs.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// KubeletConfiguration.
    pub kubelet: Value,
    /// KubeProxyConfiguration.
    pub kube_proxy: Value,
    /// etcd's configuration file.
    pub etcd: Value,
    /// Flags of the API server.
    pub apiserver: Args,
    /// Flags of the controller manager.
    pub controller_manager: Args,
    /// Flags of the scheduler.
    pub scheduler: Args,
}

/// A machine, or several that have one document.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The Node's name; of several, what they have in common is called so.
    pub name: NodeName,
    /// What it does.
    pub role: Role,
    /// Its processor.
    pub arch: Arch,
    /// Its addresses, one a family; empty where they are not known.
    pub addresses: Vec<IpAddr>,
    /// Its own pod ranges, one a family; empty where the controller manager
    /// gives it one.
    pub pod_cidrs: Vec<IpNet>,
    /// Labels of its Node, without that of its role, which masters set.
    pub labels: BTreeMap<String, String>,
    /// Taints of its Node.
    pub taints: Vec<Taint>,
    /// Laid over the cluster's KubeletConfiguration, one after the other.
    pub kubelet: Vec<Value>,
    /// Who makes its Node object.
    pub registration: Registration,
    /// What a cloud calls it.
    pub provider_id: Option<String>,
    /// The network card that it boots from, if it was typed.
    pub mac: Option<Mac>,
    /// What several machines with this document share, if it is for several:
    /// they come by a token, and are called by their host names.
    pub shared: Option<Shared>,
}

impl Machine {
    /// The address that other machines use, if it is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }
}

impl Cluster {
    /// The cluster that checked settings mean.
    pub fn new(checked: &Checked) -> Self {
        let s = checked.settings();
        let pod_cidrs: Vec<IpNet> = s.network.pod_cidrs.iter().map(|n| n.value).collect();
        let endpoint = derive::endpoint(s);
        let machines = derive::machines(s, &pod_cidrs);
        Self {
            name: s.name.clone(),
            version: s.version,
            format: s.format,
            platform: s.platform,
            gzip: s.gzip,
            api_port: s.api_port(),
            endpoint,
            domain: s.network.domain.clone(),
            service_cidrs: s.network.service_cidrs.iter().map(|n| n.value).collect(),
            node_mask: s.network.node_mask.value,
            node_mask_ipv6: s.network.node_mask_ipv6.value,
            network_mode: s.network.mode,
            mtu: s.network.mtu,
            metadata_guard: s.network.metadata_guard,
            runtime_source: s.runtime.source,
            sandbox_image: s.runtime.sandbox_image.clone(),
            cgroup_driver: s.runtime.cgroup_driver,
            containerd: s.runtime.config.clone(),
            stacked_etcd: s.of_role(Role::Etcd).next().is_none(),
            pools: pools::shared(s, &machines),
            machines,
            balanced: s.balanced(),
            static_pods: s.static_pods,
            images: s.images.clone(),
            addons: s.addons.clone(),
            pod_cidrs,
            overrides: Overrides {
                kubelet: s.kubelet.clone(),
                kube_proxy: s.kube_proxy.clone(),
                etcd: s.etcd.clone(),
                apiserver: s.apiserver_args.clone(),
                controller_manager: s.controller_manager_args.clone(),
                scheduler: s.scheduler_args.clone(),
            },
            cert_sans: derive::cert_sans(s),
            service_account_key: s.service_account_key,
            docker_port: s.docker_port,
            etcd_snapshots: s.etcd_snapshots.clone(),
            neighbours: s.artifacts.neighbours,
            host_aliases: s.host_aliases.iter().map(|a| a.value.clone()).collect(),
            resolve_machines: s.network.resolve_machines,
            azure: s.azure.clone(),
            openstack: s.openstack.clone(),
            pxe: s.pxe.clone(),
        }
    }

    /// The machine called `name`.
    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines.iter().find(|m| m.name.as_str() == name)
    }

    /// Whom there are documents for: every machine that shares none, and those
    /// that share one.
    pub fn documents(&self) -> impl Iterator<Item = &Machine> {
        let own = |m: &&Machine| !self.pools.iter().any(|pool| pool.has_host(&m.name));
        self.machines.iter().filter(own).chain(&self.pools)
    }

    /// Whether a machine's kubelet asks the cluster for its serving
    /// certificate, once it knows its addresses. Where any machine does, those
    /// do whose addresses are not known beforehand, so that every kubelet can
    /// be reached by its address.
    pub fn asks_to_serve(&self, machine: &Machine) -> bool {
        machine.shared.is_some() || (!self.pools.is_empty() && machine.addresses.is_empty())
    }

    /// The machines of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(move |m| m.role == role)
    }

    /// The machines with a member of etcd.
    pub fn etcd_members(&self) -> impl Iterator<Item = &Machine> {
        self.of_role(if self.stacked_etcd {
            Role::Master
        } else {
            Role::Etcd
        })
    }

    /// Whether a member of etcd runs on this machine.
    pub fn runs_etcd(&self, machine: &Machine) -> bool {
        machine.role == Role::Etcd || (machine.role == Role::Master && self.stacked_etcd)
    }

    /// The port of this machine's Docker daemon, where it is exposed.
    pub fn docker_on(&self, machine: &Machine) -> Option<u16> {
        self.docker_port.filter(|_| machine.role.runs_kubelet())
    }

    /// The addresses of the `kubernetes` service, one a family.
    pub fn kubernetes_service(&self) -> Vec<IpAddr> {
        self.service_address(1)
    }

    /// The addresses of the cluster's DNS, one a family.
    pub fn dns_service(&self) -> Vec<IpAddr> {
        self.service_address(10)
    }

    fn service_address(&self, n: u32) -> Vec<IpAddr> {
        self.service_cidrs
            .iter()
            .filter_map(|net| nth_address(net, n))
            .collect()
    }

    /// How `machine` listens to etcd's other members and clients: at its
    /// address, or on loopback where that is not known.
    pub fn etcd_host(&self, machine: &Machine) -> String {
        match machine.address() {
            Some(address) => url_host(address),
            // More than one member knows the others by name.
            None if self.etcd_members().count() > 1 => machine.name.to_string(),
            None => Ipv4Addr::LOCALHOST.to_string(),
        }
    }

    /// The prefix length of a node's pod range of the family of `net`.
    pub fn node_mask_of(&self, net: &IpNet) -> u8 {
        match net {
            IpNet::V4(_) => self.node_mask,
            IpNet::V6(_) => self.node_mask_ipv6,
        }
    }

    /// The address that means "every interface", in the cluster's first family.
    pub fn any_address(&self) -> IpAddr {
        match self.service_cidrs.first() {
            Some(IpNet::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// An address as it stands in a URL.
pub fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;
    use crate::settings;

    fn cluster(text: &str) -> Cluster {
        Cluster::new(&settings::load(&Source::new("cluster.yaml", text)).unwrap())
    }

    #[test]
    fn pod_ranges_follow_the_listing_and_skip_what_was_typed() {
        let cluster = cluster(
            "nodes:\n\
             - {name: m, role: master, address: 10.0.0.1}\n\
             - {name: a, role: node, podCIDR: 10.244.1.0/24}\n\
             - {name: b, role: node}\n",
        );
        let ranges: Vec<_> = cluster
            .machines
            .iter()
            .map(|m| m.pod_cidrs[0].to_string())
            .collect();
        assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);
        assert_eq!(cluster.endpoint.to_string(), "https://10.0.0.1:6443");
        assert_eq!(
            cluster.dns_service(),
            ["10.96.0.10".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(cluster.machines[0].taints.len(), 1);
    }

    #[test]
    fn masters_alone_take_pods() {
        let lone = cluster("nodes: [{name: m, role: master}]\n");
        assert!(lone.machines[0].taints.is_empty());
        let asked =
            cluster("nodes: [{name: m, role: master, taints: []}, {name: n, role: node}]\n");
        assert!(asked.machines[0].taints.is_empty());
        let builtin = Cluster::new(&settings::builtin(&[("m".parse().unwrap(), Role::Master)]));
        assert_eq!(builtin.machines[0].taints.len(), 1);
        assert!(builtin.machines[0].pod_cidrs.is_empty());
    }

    #[test]
    fn the_endpoints_port_is_the_masters_own_only_where_it_is_a_master() {
        let own = cluster("endpoint: m:443\nnodes: [{name: m, role: master}]\n");
        assert_eq!(own.api_port, 443);
        let balancer = cluster("endpoint: lb:443\nnodes: [{name: m, role: master}]\n");
        assert_eq!(balancer.api_port, 6443);
        assert_eq!(
            balancer.api_url(&balancer.machines[0]),
            "https://127.0.0.1:6443"
        );
    }

    #[test]
    fn two_families_are_carried_through() {
        let dual = cluster(
            "network: {podCIDRs: [10.244.0.0/16, 'fd00:1::/48'], \
             serviceCIDRs: [10.96.0.0/16, 'fd00:2::/112']}\n\
             nodes: [{name: m, role: master}]\n",
        );
        let ranges = &dual.machines[0].pod_cidrs;
        assert_eq!(ranges[1].to_string(), "fd00:1::/64");
        assert_eq!(dual.kubernetes_service().len(), 2);
    }
}
