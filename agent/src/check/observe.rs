//! What is true of this machine, as far as a node depends on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::network::Outside;
use super::ports::{self, Listener};
use crate::error::Result;
use crate::sys::bus::Bus;
use crate::sys::clock;
use crate::sys::kubeconfig::Kubeconfig;
use crate::sys::netlink::Netlink;
use crate::sys::nft::Nft;
use crate::sys::pki;
use crate::sys::root::{Filesystem, Root};
use crate::sys::store::Store;
use units::NodeConfig;
use units::node_config::{Packing, Service};
use units::paths;

/// The controller manager's identity, on masters; it names the machine's own
/// API server.
const CONTROLLER_MANAGER: &str = "/etc/kubernetes/controller-manager.conf";
/// What the kernel calls this program.
const KNODE: &str = "knode";

/// Whether the kernel has a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is there, or loaded when it is needed.
    Present,
    /// It is not.
    Absent,
    /// A kernel without a list of its modules does not say.
    Unknown,
}

/// A place where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder, or the nearest one above it that is there.
    pub path: PathBuf,
    /// The file system that holds it.
    pub filesystem: Filesystem,
}

/// What is true of this machine. What could not be found out is absent.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The kernel's release, as `uname -r`.
    pub kernel: Option<String>,
    /// The kernel's modules that a node needs.
    pub modules: BTreeMap<&'static str, Presence>,
    /// The controllers of cgroup v2; absent where there is no cgroup v2.
    pub controllers: Option<Vec<String>>,
    /// Where programs go.
    pub programs: Option<Place>,
    /// Where data goes.
    pub data: Option<Place>,
    /// Bytes that are certainly still to be written to [`Facts::programs`].
    pub certain_bytes: u64,
    /// Bytes that are probably still to be written there.
    pub probable_bytes: u64,
    /// Swap areas in use.
    pub swap: Vec<String>,
    /// Whether the kubelet is told to bear swap.
    pub swap_allowed: bool,
    /// Whether the kubelet is told to bear cgroup v1.
    pub cgroup_v1_allowed: bool,
    /// Ports that a service of this machine needs, and that are in use.
    pub listeners: Vec<Listener>,
    /// The MTU of the link with the machine's address.
    pub mtu: Option<u32>,
    /// systemd's version.
    pub systemd: Option<String>,
    /// Whether something keeps the clock right: absent when nobody was asked,
    /// `Some(None)` when nobody knows.
    pub synchronised: Option<Option<bool>>,
    /// The machine's own containerd.
    pub containerd: Option<PathBuf>,
    /// What time the machine thinks it is.
    pub now: Option<OffsetDateTime>,
    /// When the kubelet's certificate begins to be valid.
    pub not_before: Option<OffsetDateTime>,
    /// What is to be seen of others, by [`look_outside`](super::look_outside).
    pub outside: Vec<Outside>,
}

/// Looks at the machine. What cannot be found out is left out: what follows
/// from that is for [`judge`](super::judge) to say.
///
/// systemd is asked for its version and for the clock where that may take a
/// moment: it starts a service to answer. At boot, clocks are not set yet.
pub async fn observe(root: &Root, config: Option<&NodeConfig>, ask_systemd: bool) -> Facts {
    let now = OffsetDateTime::now_utc();
    let (certain_bytes, probable_bytes) = config.map_or((0, 0), |config| missing(root, config));
    let (systemd, synchronised) = if ask_systemd {
        let (version, synchronised) = of_systemd(root).await;
        (version, Some(synchronised))
    } else {
        (None, None)
    };
    let text = |path: &str| root.read_to_string(path).ok();
    let kubelet = text(paths::KUBELET_CONFIG).unwrap_or_default();
    let bears = |setting: &str| kubelet.lines().any(|line| line.trim() == setting);
    Facts {
        kernel: root.sysctl("kernel.osrelease").ok(),
        modules: modules(root).await,
        controllers: text("/sys/fs/cgroup/cgroup.controllers").map(|controllers| {
            let names = controllers.split_whitespace();
            names.map(str::to_owned).collect()
        }),
        programs: place(root, paths::STORE),
        data: place(root, "/var/lib/kubelet"),
        certain_bytes,
        probable_bytes,
        swap: text("/proc/swaps").map_or(Vec::new(), |swaps| {
            let areas = swaps.lines().skip(1);
            areas
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect()
        }),
        swap_allowed: bears("failSwapOn: false"),
        cgroup_v1_allowed: bears("failCgroupV1: false"),
        listeners: config.map_or(Vec::new(), |config| {
            ports::listeners(root, &wanted_ports(root, config))
        }),
        mtu: mtu(config).await,
        systemd,
        synchronised,
        containerd: containerd(root),
        now: Some(now),
        not_before: not_before(root).ok(),
        outside: Vec::new(),
    }
}

/// Bytes of programs that are not in the store: certainly, and probably. What
/// an archive holds beside the wanted files is not kept; what it holds is
/// about three times what is downloaded.
fn missing(root: &Root, config: &NodeConfig) -> (u64, u64) {
    const UNKNOWN: u64 = 64 << 20;
    let store = Store::new(root.clone());
    let missing = config
        .artifacts
        .iter()
        .filter(|artifact| !store.has(artifact).unwrap_or(false));
    missing.fold((0, 0), |(certain, probable), artifact| {
        match (artifact.packing, artifact.size) {
            (Packing::Plain | Packing::Tar, Some(size)) => (certain + size, probable + size),
            (Packing::Plain, None) => (certain, probable + UNKNOWN),
            (_, size) => (certain, probable + 3 * size.unwrap_or(UNKNOWN)),
        }
    })
}

/// The nearest folder above, or at, `path` that is there.
fn place(root: &Root, path: &str) -> Option<Place> {
    let there = Path::new(path)
        .ancestors()
        .find(|path| root.exists(path).unwrap_or(false))?;
    Some(Place {
        path: there.to_owned(),
        filesystem: root.filesystem(there).ok()?,
    })
}

/// A module is there when its work is to be seen, or its list names it.
async fn modules(root: &Root) -> BTreeMap<&'static str, Presence> {
    let release = root.sysctl("kernel.osrelease").unwrap_or_default();
    let list = |name: &str| {
        let folder = format!("lib/modules/{release}");
        let usr = root.read_to_string(format!("/usr/{folder}/{name}"));
        usr.or_else(|_| root.read_to_string(format!("/{folder}/{name}")))
    };
    let lists: Vec<String> = ["modules.builtin", "modules.dep"]
        .iter()
        .filter_map(|name| list(name).ok())
        .collect();
    let filesystems = root.read_to_string("/proc/filesystems").unwrap_or_default();
    let bridge = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let nftables = Nft.observe().await.is_ok();
    let at_work = |module: &str| match module {
        "nf_tables" => nftables,
        "overlay" => filesystems.contains("\toverlay\n"),
        "br_netfilter" => root.exists(bridge).unwrap_or(false),
        _ => false,
    };
    let presence = |module: &'static str| {
        let file = format!("/{module}.ko");
        let loaded = root.exists(format!("/sys/module/{module}"));
        let listed = || lists.iter().any(|list| list.contains(&file));
        let presence = match at_work(module) || loaded.unwrap_or(false) || listed() {
            true => Presence::Present,
            false if lists.is_empty() => Presence::Unknown,
            false => Presence::Absent,
        };
        (module, presence)
    };
    let modules = ["overlay", "br_netfilter", "nf_tables", "vxlan"];
    modules.into_iter().map(presence).collect()
}

/// systemd's version, and whether the clock is kept right; without a bus, by
/// timesyncd's own stamp.
async fn of_systemd(root: &Root) -> (Option<String>, Option<bool>) {
    let stamp = clock::timesyncd_has_synchronised(root).unwrap_or(false);
    let Ok(bus) = Bus::connect().await else {
        return (None, stamp.then_some(true));
    };
    let synchronised = bus.clock_synchronised().await.ok().flatten();
    (
        bus.systemd_version().await.ok(),
        synchronised
            .map(|yes| yes || stamp)
            .or(stamp.then_some(true)),
    )
}

/// The MTU of the link with the machine's address, or by which it would speak
/// to the outside.
async fn mtu(config: Option<&NodeConfig>) -> Option<u32> {
    let netlink = Netlink::connect().ok()?;
    let snapshot = netlink.snapshot().await.ok()?;
    let named = config.and_then(|config| config.node.addresses.first());
    let link = match named {
        Some(address) => {
            let of = snapshot.addresses.iter();
            of.clone().find(|a| a.net.addr() == *address)?.link
        }
        None => {
            snapshot
                .routes
                .iter()
                .find(|route| route.is_default())?
                .link?
        }
    };
    snapshot.links.get(&link).map(|link| link.mtu)
}

/// The machine's own containerd, where distributions put it.
pub fn containerd(root: &Root) -> Option<PathBuf> {
    ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/opt/bin"]
        .iter()
        .map(|folder| Path::new(folder).join("containerd"))
        .find(|path| root.exists(path).unwrap_or(false))
}

/// When the kubelet's certificate, which the user-data brought, begins to be
/// valid: no clock that is right says less.
fn not_before(root: &Root) -> Result<OffsetDateTime> {
    let path = paths::KUBELET_KUBECONFIG;
    let identity = Kubeconfig::parse(&root.read_to_string(path)?)?.identity(root)?;
    let facts = pki::inspect(path, &identity.0, &root.read(paths::CA_CERT)?)?;
    Ok(facts.not_before)
}

/// The TCP ports that this machine's services listen on, and the balancer,
/// each with who needs it.
pub fn wanted_ports(root: &Root, config: &NodeConfig) -> BTreeMap<u16, String> {
    // With a balancer, the kubelet does not name the machine's own API server.
    let kubeconfigs = [CONTROLLER_MANAGER, paths::KUBELET_KUBECONFIG];
    let api = kubeconfigs
        .iter()
        .find_map(|path| {
            let kubeconfig = Kubeconfig::parse(&root.read_to_string(path).ok()?).ok()?;
            let port = kubeconfig.server.strip_prefix("https://127.0.0.1:")?;
            port.parse().ok()
        })
        .unwrap_or(6443);
    let ports = |service: Service| match service {
        Service::Containerd | Service::Docker => vec![],
        Service::Etcd => vec![2379, 2380, 2381],
        Service::KubeApiserver => vec![api],
        Service::KubeControllerManager => vec![10257],
        Service::KubeScheduler => vec![10259],
        Service::Kubelet => vec![10248, 10250],
        Service::KubeProxy => vec![10249, 10256],
    };
    let all = config.services.iter().chain(&config.static_pods);
    let services = all.flat_map(|service| {
        let ports = ports(*service).into_iter();
        ports.map(|port| (port, service.to_string()))
    });
    let balancer = config
        .balancer
        .iter()
        .map(|b| (b.listen.port(), KNODE.to_owned()));
    services.chain(balancer).collect()
}
