//! Which certificates there are and what stands in them: a pure table.
//!
//! Names, organizations and usages follow kubeadm's; every machine has leaves
//! of its own, so that losing one machine means replacing only its keys.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use units::types::Role;

use crate::cluster::Host;
use crate::cluster::{Cluster, Machine};

/// A certificate authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// The cluster's.
    Cluster,
    /// That of API servers that stand behind ours.
    FrontProxy,
    /// etcd's.
    Etcd,
    /// That of Docker daemons and their clients: whoever has a certificate of
    /// it is root on every machine, so that it is none of the others.
    Docker,
}

impl Authority {
    /// Its file without the ending, in `pki/` and in `/etc/kubernetes/pki`.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::FrontProxy => "front-proxy-ca",
            Self::Etcd => "etcd/ca",
            Self::Docker => "docker/ca",
        }
    }

    /// Every one that a cluster has.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::FrontProxy, Self::Etcd];

    /// What it is called in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::FrontProxy => "front-proxy",
            Self::Etcd => "etcd",
            Self::Docker => "docker",
        }
    }

    /// Its common name.
    pub fn common_name(self) -> &'static str {
        match self {
            Self::Cluster => "kubernetes",
            Self::FrontProxy => "front-proxy-ca",
            Self::Etcd => "etcd-ca",
            Self::Docker => "docker-ca",
        }
    }
}

/// A certificate that is no authority's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaf {
    /// The API server towards everybody.
    Apiserver,
    /// The API server towards kubelets.
    ApiserverKubeletClient,
    /// The API server towards etcd.
    ApiserverEtcdClient,
    /// The API server towards API servers behind it.
    FrontProxyClient,
    /// etcd towards clients.
    EtcdServer,
    /// etcd towards its other members.
    EtcdPeer,
    /// Whoever asks etcd for its health.
    EtcdHealthcheckClient,
    /// The kubelet towards the API server.
    KubeletClient,
    /// The kubelet towards everybody.
    KubeletServer,
    /// kube-proxy towards the API server.
    KubeProxy,
    /// The controller manager towards the API server.
    ControllerManager,
    /// The scheduler towards the API server.
    Scheduler,
    /// The operator, bound by RBAC.
    Admin,
    /// The operator when RBAC itself is broken.
    SuperAdmin,
    /// The Docker daemon.
    DockerServer,
    /// The operator towards Docker daemons.
    DockerClient,
}

impl Leaf {
    /// Its file without the ending, within its owner's folder.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Apiserver => "apiserver",
            Self::ApiserverKubeletClient => "apiserver-kubelet-client",
            Self::ApiserverEtcdClient => "apiserver-etcd-client",
            Self::FrontProxyClient => "front-proxy-client",
            Self::EtcdServer => "etcd/server",
            Self::EtcdPeer => "etcd/peer",
            Self::EtcdHealthcheckClient => "etcd/healthcheck-client",
            Self::KubeletClient => "kubelet-client",
            Self::KubeletServer => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Admin => "admin",
            Self::SuperAdmin => "super-admin",
            Self::DockerServer => "docker/server",
            Self::DockerClient => "docker/client",
        }
    }

    /// Who signs it.
    pub fn authority(self) -> Authority {
        match self {
            Self::FrontProxyClient => Authority::FrontProxy,
            Self::ApiserverEtcdClient
            | Self::EtcdServer
            | Self::EtcdPeer
            | Self::EtcdHealthcheckClient => Authority::Etcd,
            Self::DockerServer | Self::DockerClient => Authority::Docker,
            _ => Authority::Cluster,
        }
    }
}

/// A name that a certificate answers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AltName {
    /// A DNS name.
    Dns(String),
    /// An address.
    Address(IpAddr),
}

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// CN.
    pub common_name: String,
    /// O, the group in Kubernetes' eyes.
    pub organization: Option<&'static str>,
    /// Whether it proves a server.
    pub server: bool,
    /// Whether it proves a client.
    pub client: bool,
    /// SAN.
    pub alt_names: BTreeSet<AltName>,
}

/// The authorities a machine needs to know, and whether it needs their keys:
/// a master signs what nodes ask for and renews its own certificates, a member
/// of etcd its own. A worker never has a key of an authority.
pub fn authorities(role: Role) -> &'static [(Authority, bool)] {
    match role {
        Role::Master => &[
            (Authority::Cluster, true),
            (Authority::FrontProxy, true),
            (Authority::Etcd, true),
        ],
        Role::Etcd => &[(Authority::Cluster, false), (Authority::Etcd, true)],
        Role::Node => &[(Authority::Cluster, false)],
    }
}

/// The certificates of a machine.
pub fn leaves(cluster: &Cluster, machine: &Machine) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    if machine.shared.is_some() {
        // What one machine has all would have; each asks for its own.
        return leaves;
    }
    if machine.role == Role::Master {
        leaves.extend([
            Leaf::Apiserver,
            Leaf::ApiserverKubeletClient,
            Leaf::ApiserverEtcdClient,
            Leaf::FrontProxyClient,
            Leaf::ControllerManager,
            Leaf::Scheduler,
        ]);
    }
    if cluster.runs_etcd(machine) {
        leaves.extend([
            Leaf::EtcdServer,
            Leaf::EtcdPeer,
            Leaf::EtcdHealthcheckClient,
        ]);
    }
    if machine.role.runs_kubelet() {
        leaves.extend([Leaf::KubeletClient, Leaf::KubeProxy]);
        if !cluster.asks_to_serve(machine) {
            leaves.push(Leaf::KubeletServer);
        }
    }
    if cluster.docker_on(machine).is_some() {
        leaves.push(Leaf::DockerServer);
    }
    leaves
}

/// What stands in a machine's certificate.
pub fn of_machine(leaf: Leaf, cluster: &Cluster, machine: &Machine) -> Profile {
    let node_user = format!("system:node:{}", machine.name);
    match leaf {
        Leaf::Apiserver => server("kube-apiserver", apiserver_names(cluster, machine)),
        Leaf::ApiserverKubeletClient => {
            client("kube-apiserver-kubelet-client", Some(CLUSTER_ADMINS))
        }
        Leaf::ApiserverEtcdClient => client("kube-apiserver-etcd-client", None),
        Leaf::FrontProxyClient => client("front-proxy-client", None),
        // A member of etcd is a client of the others, and its own gateway's.
        Leaf::EtcdServer | Leaf::EtcdPeer => Profile {
            client: true,
            ..server(machine.name.as_str(), etcd_names(machine))
        },
        Leaf::EtcdHealthcheckClient => client("kube-etcd-healthcheck-client", None),
        Leaf::KubeletClient => client(&node_user, Some(NODES)),
        Leaf::KubeletServer => Profile {
            organization: Some(NODES),
            ..server(&node_user, machine_names(machine))
        },
        Leaf::KubeProxy => client("system:kube-proxy", Some("system:node-proxier")),
        Leaf::ControllerManager => client("system:kube-controller-manager", None),
        Leaf::Scheduler => client("system:kube-scheduler", None),
        Leaf::Admin => client("kubernetes-admin", Some(CLUSTER_ADMINS)),
        Leaf::SuperAdmin => client("kubernetes-super-admin", Some("system:masters")),
        Leaf::DockerServer => server(machine.name.as_str(), machine_names(machine)),
        Leaf::DockerClient => of_docker_client().1,
    }
}

/// The group that the cluster's objects bind to cluster-admin.
const CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";
/// The group of kubelets.
const NODES: &str = "system:nodes";

/// What stands in the operator's certificate.
pub fn of_operator(super_admin: bool) -> (Leaf, Profile) {
    if super_admin {
        let profile = client("kubernetes-super-admin", Some("system:masters"));
        (Leaf::SuperAdmin, profile)
    } else {
        let profile = client("kubernetes-admin", Some(CLUSTER_ADMINS));
        (Leaf::Admin, profile)
    }
}

/// What stands in the operator's certificate for Docker daemons.
pub fn of_docker_client() -> (Leaf, Profile) {
    (Leaf::DockerClient, client("docker-client", None))
}

/// All certificates of the operator.
pub fn of_operators() -> [(Leaf, Profile); 3] {
    [of_operator(false), of_operator(true), of_docker_client()]
}

fn client(common_name: &str, organization: Option<&'static str>) -> Profile {
    Profile {
        common_name: common_name.to_owned(),
        organization,
        server: false,
        client: true,
        alt_names: BTreeSet::new(),
    }
}

fn server(common_name: &str, alt_names: BTreeSet<AltName>) -> Profile {
    Profile {
        common_name: common_name.to_owned(),
        organization: None,
        server: true,
        client: false,
        alt_names,
    }
}

fn dns(name: impl Into<String>) -> AltName {
    AltName::Dns(name.into())
}

fn of_host(host: &Host) -> AltName {
    match host {
        Host::Address(address) => AltName::Address(*address),
        Host::Name(name) => dns(name),
    }
}

fn machine_names(machine: &Machine) -> BTreeSet<AltName> {
    let addresses = machine.addresses.iter().copied().map(AltName::Address);
    addresses.chain([dns(machine.name.as_str())]).collect()
}

fn etcd_names(machine: &Machine) -> BTreeSet<AltName> {
    let mut names = machine_names(machine);
    names.insert(dns("localhost"));
    names.insert(AltName::Address(Ipv4Addr::LOCALHOST.into()));
    names.insert(AltName::Address(Ipv6Addr::LOCALHOST.into()));
    names
}

fn apiserver_names(cluster: &Cluster, machine: &Machine) -> BTreeSet<AltName> {
    let mut names = machine_names(machine);
    names.extend([
        dns("kubernetes"),
        dns("kubernetes.default"),
        dns("kubernetes.default.svc"),
        dns(format!("kubernetes.default.svc.{}", cluster.domain)),
        AltName::Address(Ipv4Addr::LOCALHOST.into()),
        of_host(&cluster.endpoint.host),
    ]);
    names.extend(
        cluster
            .kubernetes_service()
            .into_iter()
            .map(AltName::Address),
    );
    names.extend(cluster.cert_sans.iter().map(of_host));
    if cluster.balanced {
        // Who is sent on to any of them may ask for any of them.
        names.extend(cluster.of_role(Role::Master).flat_map(machine_names));
    }
    names
}
