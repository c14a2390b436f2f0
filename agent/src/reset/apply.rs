//! Does what was planned, one thing after the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use time::macros::format_description;

use super::plan::{Action, Facts};
use super::{iptables, observe, ring};
use crate::error::{Code, Context as _, Error, Result};
use crate::machine::Machine;
use crate::status::Status;
use crate::steps::removals::{remove_file, stop};
use crate::steps::{hosts, network, services};
use crate::sys::netlink::Netlink;
use crate::sys::root::{Kind, Root};
use crate::sys::{Changed, cri, mounts, program};
use units::node_config::Service;
use units::paths;

/// How long the Node object is tried to be removed: the API server may be gone.
const NODE: Duration = Duration::from_secs(20);
/// How long kube-proxy may take to clean up.
const PROXY: Duration = Duration::from_secs(60);
/// How long a runtime that was down may take to answer.
const RUNTIME: Duration = Duration::from_secs(30);
/// What packages own, though it may be empty.
const SHARED: [&str; 7] = [
    "/etc/systemd/system",
    "/etc/systemd/network",
    "/etc/systemd",
    "/etc/sysctl.d",
    "/etc/modules-load.d",
    "/etc/cni/net.d",
    "/etc/cni",
];

/// How one thing ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was done, and there is something to know about it.
    Told(String),
    /// It was so already.
    Nothing,
    /// It was not done, and is left as it is.
    Left(String),
}

impl From<Changed> for Outcome {
    fn from(changed: Changed) -> Self {
        match changed {
            Changed::Yes => Self::Done,
            Changed::No => Self::Nothing,
        }
    }
}

/// Does it.
///
/// # Errors
///
/// What keeps it from being done.
pub async fn apply(root: &Root, facts: &Facts, action: &Action) -> Result<Outcome> {
    match action {
        Action::Stop(unit) => {
            let bus = services::connect().await?;
            stop(&bus, unit).await?;
            // One that failed is forgotten; one that systemd no longer knows is, too.
            drop(bus.reset_failed(unit).await);
            Ok(Outcome::Done)
        }
        Action::DeleteNode(name) => Ok(delete_node(root, facts, name.as_str()).await),
        Action::LeaveRing => {
            if let Some(config) = ring::settings(root)? {
                ring::leave(root, &config.name).await?;
            }
            super::note_left(root)?;
            Ok(Outcome::Done)
        }
        Action::EndPods(_) => end_pods(root).await,
        Action::CleanProxy => clean_proxy(root).await,
        Action::CleanRules => {
            let cleaned = tokio::task::spawn_blocking(iptables::clean).await;
            let cleaned = cleaned.context(Code::Nft, || "cleaning iptables".to_owned())?;
            Ok(cleaned?.into())
        }
        Action::Network(_) => {
            let opening = || "opening netlink".to_owned();
            let netlink = Netlink::connect().context(Code::Netlink, opening)?;
            let bridge = observe::bridge(facts.config.as_ref());
            network::apply::clear(root, &netlink, bridge).await?;
            prune(root, Path::new(paths::CNI_CONFIG));
            Ok(Outcome::Done)
        }
        Action::Unmount(place) => Ok(mounts::unmount(root, place)?.into()),
        Action::Hosts => Ok(hosts::clear(root)?.into()),
        Action::File(path, digest) => file(root, path, digest),
        Action::Link(path) => {
            let changed = root.remove(path)?;
            prune(root, Path::new(path));
            Ok(changed.into())
        }
        Action::Reload => {
            let bus = services::connect().await?;
            let doing = || "reloading systemd".to_owned();
            bus.daemon_reload().await.context(Code::Bus, doing)?;
            Ok(Outcome::Done)
        }
        Action::Restart(unit) => {
            let bus = services::connect().await?;
            let doing = || format!("restarting {unit}");
            bus.restart(unit).await.context(Code::UnitFailed, doing)?;
            Ok(Outcome::Done)
        }
        Action::MoveAside(path) => move_aside(root, path),
        Action::Empty(path) => {
            if !root.list(path)?.is_empty() {
                return Ok(Outcome::Left("it holds what is others'".to_owned()));
            }
            root.remove_empty(path)?;
            prune(root, Path::new(path));
            Ok(Outcome::Done)
        }
        Action::Folder(path) => folder(root, path),
    }
}

/// By this master's authority, from its own API server. One that is away takes
/// nothing from the reset.
async fn delete_node(root: &Root, facts: &Facts, name: &str) -> Outcome {
    let deleting = async {
        let config = facts.config.clone();
        let (Some(config), Ok(name)) = (config, name.parse()) else {
            return Ok(false);
        };
        let status = Status::new(root.clone(), []);
        let machine = Machine::new(config, name, root.clone(), status);
        let api = machine.administrator_api()?;
        let path = format!("/api/v1/nodes/{}", machine.name);
        let Some(node) = api.get(&path).await? else {
            return Ok(false);
        };
        let uid = node["metadata"]["uid"].as_str().unwrap_or_default();
        api.delete(&path, uid).await
    };
    let left = |why: String| Outcome::Left(format!("{why}; kubectl delete node {name}"));
    match tokio::time::timeout(NODE, deleting).await {
        Ok(Ok(true)) => Outcome::Done,
        Ok(Ok(false)) => Outcome::Nothing,
        Ok(Err(error)) => left(error.story()),
        Err(_) => left("the API server does not answer".to_owned()),
    }
}

/// Containers get time to end by themselves, all at once; then their pods go.
async fn end_pods(root: &Root) -> Result<Outcome> {
    let runtime = cri::Runtime::at(root.path(Path::new(paths::CONTAINERD_SOCKET)))?;
    if runtime.version().await.is_err() {
        let unit = Service::Containerd.unit();
        let bus = services::connect().await?;
        let doing = || format!("starting {unit} to end what it left");
        bus.start(unit).await.context(Code::UnitFailed, doing)?;
        let answering = async {
            while runtime.version().await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(RUNTIME, answering)
            .await
            .context(Code::Runtime, || format!("waiting for {unit}"))?;
    }
    let running = runtime.containers().await?.into_iter();
    let running: Vec<_> = running.filter(|container| container.running).collect();
    let stops = running.iter().map(|container| runtime.stop(&container.id));
    for stopped in join_all(stops).await {
        if let Err(error) = stopped {
            // It is killed with its pod.
            tracing::debug!("{}", error.story());
        }
    }
    let pods = runtime.pods().await?;
    let removals = pods.iter().map(|pod| runtime.remove_pod(&pod.id));
    let mut first = None;
    for (pod, removed) in pods.iter().zip(join_all(removals).await) {
        if let Err(error) = removed {
            let doing = format!("removing the pod {}", pod.name);
            first.get_or_insert(Error::new(Code::Runtime, doing).because(error));
        }
    }
    first.map_or(Ok(Outcome::Done), Err)
}

/// Whatever mode it had, kube-proxy knows what it made.
async fn clean_proxy(root: &Root) -> Result<Outcome> {
    let path = Path::new(paths::KUBERNETES_BIN).join(Service::KubeProxy.to_string());
    if !root.exists(&path)? {
        return Ok(Outcome::Nothing);
    }
    let cleaning = move || {
        let path = path.display().to_string();
        let command = [path.as_str(), "--cleanup"];
        program::filter(&command, b"", PROXY)
    };
    let doing = || "running kube-proxy --cleanup".to_owned();
    let cleaned = tokio::task::spawn_blocking(cleaning).await;
    cleaned
        .context(Code::Nft, doing)?
        .context(Code::Nft, doing)?;
    Ok(Outcome::Done)
}

/// A file that came with the document, and the folders that it leaves empty.
fn file(root: &Root, path: &str, digest: &str) -> Result<Outcome> {
    if !root.exists(path)? {
        return Ok(Outcome::Nothing);
    }
    let gone = remove_file(root, path, digest)?.is_some();
    if !gone {
        return Ok(Outcome::Left("somebody changed it".to_owned()));
    }
    prune(root, Path::new(path));
    Ok(Outcome::Done)
}

/// Folders above `path` go as long as they are empty and no package's. What
/// cannot be removed stays.
fn prune(root: &Root, path: &Path) {
    let parents = path.ancestors().skip(1).map(PathBuf::from);
    for parent in parents.take_while(|parent| parent.components().count() > 2) {
        let shared = SHARED.iter().any(|shared| parent == Path::new(shared));
        if shared || root.remove_empty(&parent).is_err() {
            return;
        }
    }
}

/// etcd's data stays, under a name that no etcd looks for.
fn move_aside(root: &Root, path: &str) -> Result<Outcome> {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = OffsetDateTime::now_utc().format(&form);
    let now = now.context(Code::Clock, || "reading the clock".to_owned())?;
    let beside = format!("{path}-before-reset-{now}");
    let target = match root.rename(path, &beside) {
        Ok(()) => beside,
        // A disk of its own is mounted there: within it, then.
        Err(_) => {
            let within = format!("{path}/before-reset-{now}");
            root.rename(format!("{path}/member"), &within)?;
            within
        }
    };
    Ok(Outcome::Told(format!("it is in {target}")))
}

/// A folder with all that is in it, but never what others mounted below it. One
/// that is a mount itself is emptied.
fn folder(root: &Root, path: &str) -> Result<Outcome> {
    if let Some(place) = mounts::below(root, path)?.first() {
        let told = format!("{place} is mounted, and what is in it would go with {path}");
        return Err(Error::new(Code::Disk, told));
    }
    let is_folder = root.stat(path)?.is_some_and(|stat| stat.kind == Kind::Dir);
    let removed = match is_folder {
        true => root.remove_tree(path),
        false => root.remove(path),
    };
    if removed.is_ok() {
        prune(root, Path::new(path));
        return Ok(Outcome::Done);
    }
    for entry in root.list(path)? {
        let below = Path::new(path).join(&entry.name);
        match entry.kind {
            Kind::Dir => root.remove_tree(&below)?,
            _ => root.remove(&below)?,
        };
    }
    Ok(Outcome::Told(
        "emptied: something is mounted there".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_left_empty_go_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let write = |path: &str| {
            root.create_dir(Path::new(path).parent().unwrap(), 0o755)
                .unwrap();
            root.write_atomic(path, b"x", 0o644).unwrap();
        };
        let digest = crate::sys::store::sha256(b"x").hex();
        let drop_in = "/etc/systemd/system/kubelet.service.d/10-kgen.conf";
        let hosts = "/etc/containerd/certs.d/mirror/hosts.toml";
        let theirs = "/etc/containerd/config.toml";
        for path in [drop_in, hosts, theirs] {
            write(path);
        }
        assert_eq!(file(&root, drop_in, &digest).unwrap(), Outcome::Done);
        assert!(
            !root
                .exists("/etc/systemd/system/kubelet.service.d")
                .unwrap()
        );
        assert!(root.exists("/etc/systemd/system").unwrap());
        assert_eq!(file(&root, hosts, &digest).unwrap(), Outcome::Done);
        assert!(!root.exists("/etc/containerd/certs.d").unwrap());
        let left = file(&root, theirs, "another").unwrap();
        assert!(matches!(left, Outcome::Left(_)), "{left:?}");
        assert_eq!(file(&root, drop_in, &digest).unwrap(), Outcome::Nothing);
    }

    #[test]
    fn data_of_etcd_is_kept_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.create_dir("/var/lib/etcd/member", 0o700).unwrap();
        let Outcome::Told(told) = move_aside(&root, "/var/lib/etcd").unwrap() else {
            panic!("not told");
        };
        assert!(!root.exists("/var/lib/etcd").unwrap());
        let place = told.strip_prefix("it is in ").unwrap();
        assert!(root.exists(format!("{place}/member")).unwrap(), "{told}");
    }
}
