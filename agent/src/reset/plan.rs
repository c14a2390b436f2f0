//! What a reset does, from what is on the machine. Pure.

use std::collections::BTreeMap;

use crate::changes::applied::Applied;
use crate::changes::removals;
use units::NodeConfig;
use units::node_config::Service;
use units::paths;
use units::types::{NodeName, Role};

/// What makes a machine a node; it would start the rest again.
const AGENT: [&str; 2] = ["knode.service", "knode-bootstrap.service"];
const TARGETS: [&str; 3] = [
    "kubernetes-master.target",
    "kubernetes-node.target",
    "kubernetes-etcd.target",
];
/// Who needs whom is stopped before it.
const ORDER: [Service; 6] = [
    Service::KubeProxy,
    Service::KubeScheduler,
    Service::KubeControllerManager,
    Service::KubeApiserver,
    Service::Etcd,
    Service::Containerd,
];
/// Control groups of pods, by systemd's name.
const SLICE: &str = "kubepods.slice";
/// What the kubelet alone makes.
const KUBELET: [&str; 4] = [
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/systemd/logind.conf.d/99-kubelet.conf",
];
/// What goes if nothing is in it: others may use it as well, or it holds what
/// is worth keeping.
pub const IF_EMPTY: [&str; 2] = ["/var/lib/cni/results", paths::KUBERNETES_LOG];
/// What a containerd that is ours alone makes.
const CONTAINERD: [&str; 2] = ["/run/containerd", "/var/lib/containerd"];
/// knode's own, which say what there is to do: they go last.
const OWN: [&str; 4] = [paths::RUN_DIR, "/etc/knode", "/opt/knode", paths::STATE_DIR];

/// What there is to a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unit {
    /// It runs, or tries to.
    pub active: bool,
    /// It starts at boot.
    pub enabled: bool,
}

/// This machine's place in etcd's ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ring {
    /// It has no member, or none any more.
    #[default]
    None,
    /// It is the whole ring.
    Alone,
    /// It is one of several.
    Member,
}

/// What is on the machine. What is not there is left out.
#[derive(Debug, Default)]
pub struct Facts {
    /// What the machine is; absent where that cannot be read.
    pub config: Option<NodeConfig>,
    /// What was applied.
    pub applied: Applied,
    /// Units that run or start at boot, of those that [`units`] names.
    pub units: BTreeMap<String, Unit>,
    /// Its place in etcd's ring.
    pub ring: Ring,
    /// Why it may not leave the ring, if that is so.
    pub obstacle: Option<String>,
    /// etcd's data, if there is any.
    pub etcd_data: Option<String>,
    /// What the runtime runs for a kubelet, as `NAMESPACE/NAME`.
    pub pods: Vec<String>,
    /// Whether the only containerd is the document's.
    pub own_containerd: bool,
    /// Places below [`folders`] where something is mounted, the deepest first.
    pub mounts: Vec<String>,
    /// What is ours of the network, in words.
    pub network: Vec<String>,
    /// Whether kubelet or kube-proxy left rules in iptables.
    pub rules: bool,
    /// Whether /etc/hosts has our block.
    pub hosts: bool,
    /// Files of [`files`] that are there.
    pub files: Vec<(String, String)>,
    /// Links into the store.
    pub links: Vec<String>,
    /// Files and folders of [`folders`] that are there.
    pub folders: Vec<String>,
    /// Folders of [`IF_EMPTY`] that are empty, or will be without the pods.
    pub empty: Vec<String>,
    /// Whether there is an audit log.
    pub audited: bool,
}

/// What the operator wants of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// etcd's data is deleted, not moved aside.
    pub etcd_data: bool,
    /// The ring keeps a member that is gone.
    pub abandon: bool,
}

/// One thing to do. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// This member leaves etcd's ring.
    LeaveRing,
    /// A unit is stopped, and starts no more at boot.
    Stop(String),
    /// The Node object goes.
    DeleteNode(NodeName),
    /// Pods end, and all that is in them.
    EndPods(Vec<String>),
    /// What kube-proxy put into the kernel goes.
    CleanProxy,
    /// What else is left of it, and of the kubelet, in iptables.
    CleanRules,
    /// Ours of the network goes.
    Network(Vec<String>),
    /// Nothing is mounted there.
    Unmount(String),
    /// Our block of /etc/hosts goes.
    Hosts,
    /// A file of the document goes, with the hex of the digest it came with.
    File(String, String),
    /// A link into the store goes.
    Link(String),
    /// systemd reads its units anew.
    Reload,
    /// A service that is the distribution's runs again as that configured it.
    Restart(String),
    /// etcd's data is put aside.
    MoveAside(String),
    /// An empty folder goes.
    Empty(String),
    /// A folder goes with all that is in it.
    Folder(String),
}

impl Action {
    /// What is done, in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::LeaveRing => "leave",
            Self::Stop(_) => "stop",
            Self::DeleteNode(_)
            | Self::File(..)
            | Self::Link(_)
            | Self::Empty(_)
            | Self::Folder(_) => "remove",
            Self::EndPods(_) => "end",
            Self::CleanProxy | Self::CleanRules | Self::Hosts | Self::Network(_) => "clean",
            Self::Unmount(_) => "unmount",
            Self::Reload => "reload",
            Self::Restart(_) => "restart",
            Self::MoveAside(_) => "keep",
        }
    }

    /// What it is done to.
    pub fn subject(&self) -> String {
        match self {
            Self::LeaveRing => "etcd's ring".to_owned(),
            Self::DeleteNode(name) => format!("the Node {name}"),
            Self::EndPods(pods) => match pods.as_slice() {
                [] => "what is left of pods".to_owned(),
                pods => format!("{} pods: {}", pods.len(), pods.join(", ")),
            },
            Self::CleanProxy => "kube-proxy's rules".to_owned(),
            Self::CleanRules => "iptables".to_owned(),
            Self::Network(parts) => parts.join(", "),
            Self::Hosts => "/etc/hosts".to_owned(),
            Self::Reload => "systemd".to_owned(),
            Self::MoveAside(path) => format!("{path} beside itself"),
            Self::Stop(text)
            | Self::Unmount(text)
            | Self::File(text, _)
            | Self::Link(text)
            | Self::Restart(text)
            | Self::Empty(text)
            | Self::Folder(text) => text.clone(),
        }
    }

    /// Whether it is done only after all else was: what says what there is to
    /// do must be there for another try.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Folder(path) if OWN.contains(&path.as_str()))
    }
}

/// All that the document brought, and that was applied of earlier ones.
fn brought(config: Option<&NodeConfig>, applied: &Applied) -> removals::Removals {
    let mut applied = applied.clone();
    if let Some(config) = config {
        for entry in &config.manifest {
            applied.files.insert(entry.path.clone(), entry.digest.hex());
        }
        applied.links.extend(removals::links(config));
        for service in &config.services {
            applied.services.entry(*service).or_default();
        }
    }
    removals::all(&applied)
}

/// Files that are ours, each with the hex of the digest that it came with;
/// those in folders of our own go with them.
pub fn files(config: Option<&NodeConfig>, applied: &Applied) -> Vec<(String, String)> {
    let mut files = brought(config, applied).files;
    // Written by knode itself, within what is knode's.
    files.push((paths::CONTAINERD_CONFIG.to_owned(), String::new()));
    files.retain(|(path, _)| !folders(false).iter().any(|folder| is_below(path, folder)));
    files
}

/// The links into the store that are ours.
pub fn links(config: Option<&NodeConfig>, applied: &Applied) -> Vec<String> {
    brought(config, applied).links
}

fn is_below(path: &str, folder: &str) -> bool {
    let below = path.strip_prefix(folder);
    below.is_some_and(|below| below.starts_with('/'))
}

/// Units that may run or start at boot because of us; the distribution's among
/// them, whose configuration is ours.
pub fn units(config: Option<&NodeConfig>, applied: &Applied) -> Vec<String> {
    let brought = brought(config, applied);
    let services = brought.services.iter().map(|service| service.unit());
    let fixed = AGENT.into_iter().chain(TARGETS).chain([SLICE]);
    let mut all: Vec<String> = fixed.chain(services).map(str::to_owned).collect();
    all.extend(brought.units);
    all.sort();
    all.dedup();
    all
}

/// Folders that are ours alone, and a file of the kubelet's.
pub fn folders(own_containerd: bool) -> Vec<&'static str> {
    let runtime: &[&str] = if own_containerd { &CONTAINERD } else { &[] };
    [&KUBELET[..], runtime, &OWN].concat()
}

/// What is to be done, in its order.
pub fn plan(facts: &Facts, wishes: Wishes) -> Vec<Action> {
    let config = facts.config.as_ref();
    let brought = brought(config, &facts.applied);
    let mut actions = Vec::new();
    let stop = |unit: &str| {
        let there = facts.units.contains_key(unit);
        there.then(|| Action::Stop(unit.to_owned()))
    };
    actions.extend(AGENT.into_iter().filter_map(stop));
    actions.extend(stop(Service::Kubelet.unit()));
    // Its own API server answers as long as its etcd is of the ring.
    actions.extend(config.and_then(own_node).map(Action::DeleteNode));
    if facts.ring == Ring::Member && !wishes.abandon {
        actions.push(Action::LeaveRing);
    }
    if !facts.pods.is_empty() {
        actions.push(Action::EndPods(facts.pods.clone()));
    }
    // What the distribution brought goes on, as the distribution meant it.
    let is_ours = |unit: &str| brought.units.iter().any(|own| own == unit);
    let in_order = ORDER.iter().map(|service| service.unit());
    for unit in in_order.filter(|unit| is_ours(unit)) {
        actions.extend(stop(unit));
        if unit == Service::KubeProxy.unit() && !facts.links.is_empty() {
            actions.push(Action::CleanProxy);
        }
    }
    let others = brought.units.iter().map(String::as_str);
    let known = |unit: &&str| {
        let mut services = ORDER.iter().chain([&Service::Kubelet]);
        services.any(|service| service.unit() == *unit)
    };
    actions.extend(others.filter(|unit| !known(unit)).filter_map(stop));
    actions.extend(TARGETS.into_iter().chain([SLICE]).filter_map(stop));
    if !facts.network.is_empty() {
        actions.push(Action::Network(facts.network.clone()));
    }
    if facts.rules {
        actions.push(Action::CleanRules);
    }
    actions.extend(facts.mounts.iter().cloned().map(Action::Unmount));
    actions.extend(facts.hosts.then_some(Action::Hosts));
    let files = facts.files.iter().cloned();
    actions.extend(files.map(|(path, digest)| Action::File(path, digest)));
    if facts
        .files
        .iter()
        .any(|(path, _)| path.starts_with("/etc/systemd/"))
    {
        actions.push(Action::Reload);
    }
    let theirs = brought.services.iter().map(|service| service.unit());
    for unit in theirs.filter(|unit| !is_ours(unit)) {
        // Its configuration was ours while it ran.
        if facts.units.contains_key(unit) && !facts.files.is_empty() {
            actions.push(Action::Restart(unit.to_owned()));
        }
    }
    if let Some(path) = &facts.etcd_data {
        actions.push(match wishes.etcd_data {
            true => Action::Folder(path.clone()),
            false => Action::MoveAside(path.clone()),
        });
    }
    actions.extend(facts.links.iter().cloned().map(Action::Link));
    actions.extend(facts.empty.iter().cloned().map(Action::Empty));
    actions.extend(facts.folders.iter().cloned().map(Action::Folder));
    actions
}

/// The Node that this machine may remove: a master's, while there are others
/// to tell. No kubelet may remove its own, as it could come back without its
/// taints.
fn own_node(config: &NodeConfig) -> Option<NodeName> {
    let is_master = config.node.role == Role::Master;
    let peers = config.network.iter().flat_map(|network| &network.peers);
    let others = peers.filter(|peer| peer.role == Role::Master).count() > 0;
    config.node.name.clone().filter(|_| is_master && others)
}

/// What the operator is told beside the plan: what is not undone.
pub fn remarks(facts: &Facts) -> Vec<String> {
    let mut told = Vec::new();
    let Some(config) = &facts.config else {
        return told;
    };
    if let Some(name) = &config.node.name
        && own_node(config).is_none()
        && config.runtime.is_some()
    {
        told.push(format!(
            "the cluster keeps the Node {name} until somebody removes it: kubectl delete node {name}"
        ));
    }
    if facts.ring == Ring::Alone {
        told.push("the cluster ends with this machine: it has the only member of etcd".to_owned());
    }
    if !facts.pods.is_empty() {
        told.push(
            "pods are not moved elsewhere, and what they keep on this machine goes with them: \
             kubectl drain before"
                .to_owned(),
        );
    }
    if facts.audited {
        told.push(format!("the audit log stays in {}", paths::KUBERNETES_LOG));
    }
    // What a cluster is restored from is nobody's to remove.
    let etcd = config.etcd.as_ref();
    if let Some(snapshots) = etcd.and_then(|etcd| etcd.snapshots.as_ref()) {
        told.push(format!("snapshots of etcd stay in {}", snapshots.folder));
    }
    if config.runtime.is_some() && !facts.own_containerd {
        told.push("images stay in the distribution's containerd".to_owned());
    }
    told.push("kernel settings and modules stay until the next boot".to_owned());
    told
}

#[cfg(test)]
mod tests;
