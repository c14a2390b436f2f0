//! What is on the machine that a reset would undo.

use std::collections::BTreeMap;
use std::path::Path;

use super::plan::{self, Facts, Ring, Unit};
use super::{iptables, ring};
use crate::changes::applied;
use crate::check;
use crate::error::{Code, Context as _, Result};
use crate::run;
use crate::steps::services;
use crate::steps::{hosts, network};
use crate::sys::netlink::{LinkName, Netlink};
use crate::sys::nft::Nft;
use crate::sys::root::{Kind, Root};
use crate::sys::store::Store;
use crate::sys::{cri, mounts};
use units::NodeConfig;
use units::node_config::RuntimeSource;
use units::paths;

/// Where links into the store are.
const BIN: [&str; 2] = [paths::KUBERNETES_BIN, paths::CNI_BIN];
/// The bridge's usual name, where node.yaml does not tell.
const BRIDGE: &str = "cbr0";
/// Where containerd keeps what runs for kubelets.
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// Looks.
///
/// # Errors
///
/// [`Code::Bus`], [`Code::Netlink`], [`Code::Nft`], [`Code::Disk`]: it cannot be
/// found out, so nothing is to be done.
pub async fn observe(root: &Root) -> Result<Facts> {
    let config = match run::read_configuration(root) {
        Ok((_, config)) => Some(config),
        // What was applied is known besides.
        Err(error) => {
            tracing::debug!("{}", error.story());
            None
        }
    };
    let applied = applied::read(root)?;
    let own_containerd = owns_containerd(root, config.as_ref());
    let (mut place, mut obstacle, mut etcd_data) = (Ring::None, None, None);
    if let Some(config) = ring::settings(root)? {
        if !super::has_left(root)? {
            (place, obstacle) = ring::look(root, &config).await?;
        }
        let there = root.exists(config.data.join("member"))?;
        etcd_data = there.then(|| config.data.display().to_string());
    }
    let folders = plan::folders(own_containerd);
    let mut mounts = Vec::new();
    for folder in &folders {
        mounts.extend(mounts::below(root, folder)?);
    }
    let there = |path: &str| root.stat(path).map(|stat| stat.is_some());
    let mut files = plan::files(config.as_ref(), &applied);
    let mut kept = Vec::new();
    for (path, digest) in files.drain(..) {
        if there(&path)? {
            kept.push((path, digest));
        }
    }
    let mut left = Vec::new();
    for folder in folders {
        // One that is a mount is emptied, and stays.
        let stays = || -> Result<bool> {
            Ok(mounts::is_at(root, folder)? && root.list(folder)?.is_empty())
        };
        if there(folder)? && !stays()? {
            left.push(folder.to_owned());
        }
    }
    let pods = pods(root).await?;
    let mut empty = Vec::new();
    let mut audited = false;
    for folder in plan::IF_EMPTY {
        if root.exists(folder)? {
            let is_log = folder == paths::KUBERNETES_LOG;
            match root.list(folder)?.is_empty() {
                true => empty.push(folder.to_owned()),
                false if is_log => audited = true,
                // Each pod that goes takes its own from there.
                false if !pods.is_empty() => empty.push(folder.to_owned()),
                false => {}
            }
        }
    }
    Ok(Facts {
        empty,
        audited,
        units: units(config.as_ref(), &applied).await?,
        ring: place,
        obstacle,
        etcd_data,
        pods,
        own_containerd,
        mounts,
        network: ours_of_the_network(root, config.as_ref()).await?,
        rules: iptables::is_there(),
        hosts: hosts::without_block(root)?.is_some(),
        files: kept,
        links: links(root, plan::links(config.as_ref(), &applied))?,
        folders: left,
        config,
        applied,
    })
}

/// Whether the document brings the only containerd.
fn owns_containerd(root: &Root, config: Option<&NodeConfig>) -> bool {
    let runtime = config.and_then(|config| config.runtime.as_ref());
    runtime.is_some_and(|runtime| runtime.source == RuntimeSource::Artifact)
        && check::containerd(root).is_none()
}

/// Of the units that may be ours, those that run or start at boot.
async fn units(
    config: Option<&NodeConfig>,
    applied: &applied::Applied,
) -> Result<BTreeMap<String, Unit>> {
    let bus = services::connect().await?;
    let mut found = BTreeMap::new();
    for name in plan::units(config, applied) {
        let state = bus.unit(&name).await;
        let state = state.context(Code::Bus, || format!("looking at {name}"))?;
        let unit = Unit {
            active: !matches!(state.active.as_str(), "inactive" | "failed"),
            enabled: state.unit_file == "enabled",
        };
        if unit != Unit::default() {
            found.insert(name, unit);
        }
    }
    Ok(found)
}

/// What runs for a kubelet; what is left of it, where the runtime is down.
async fn pods(root: &Root) -> Result<Vec<String>> {
    let runtime = cri::Runtime::at(root.path(Path::new(paths::CONTAINERD_SOCKET)))?;
    if let Ok(pods) = runtime.pods().await {
        return Ok(pods.into_iter().map(|pod| pod.name).collect());
    }
    if !root.exists(TASKS)? {
        return Ok(Vec::new());
    }
    let left = root.list(TASKS)?.into_iter();
    Ok(left
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .collect())
}

/// What is ours of the network, in words.
async fn ours_of_the_network(root: &Root, config: Option<&NodeConfig>) -> Result<Vec<String>> {
    let looking = || "looking at the network".to_owned();
    let netlink = Netlink::connect().context(Code::Netlink, looking)?;
    let snapshot = netlink.snapshot().await.context(Code::Netlink, looking)?;
    let mut found = Vec::new();
    for name in [bridge(config), network::apply::OVERLAY] {
        let link: Option<LinkName> = name.parse().ok();
        let link = link.and_then(|name| snapshot.link(&name));
        if link.is_some_and(network::apply::is_ours) {
            found.push(format!("the link {name}"));
        }
    }
    match snapshot.own_routes().count() {
        0 => {}
        count => found.push(format!("{count} routes")),
    }
    // A kernel without nftables has no table of ours.
    if matches!(Nft.observe().await, Ok(Some(_))) {
        found.push("the nftables table knode".to_owned());
    }
    if root.exists(paths::CNI_CONFIG)? {
        found.push(paths::CNI_CONFIG.to_owned());
    }
    Ok(found)
}

/// The bridge of the pods.
pub fn bridge(config: Option<&NodeConfig>) -> &str {
    let network = config.and_then(|config| config.network.as_ref());
    network.map_or(BRIDGE, |network| network.bridge.as_str())
}

/// Links that lead into the store, those that nothing tells of among them.
fn links(root: &Root, mut known: Vec<String>) -> Result<Vec<String>> {
    for folder in BIN {
        if !root.exists(folder)? {
            continue;
        }
        let entries = root.list(folder)?.into_iter();
        let links = entries.filter(|entry| entry.kind == Kind::Symlink);
        known.extend(links.map(|entry| format!("{folder}/{}", entry.name.to_string_lossy())));
    }
    known.sort();
    known.dedup();
    let store = Store::new(root.clone());
    let mut found = Vec::new();
    for link in known {
        if store.linked_to(Path::new(&link))?.is_some() {
            found.push(link);
        }
    }
    Ok(found)
}
