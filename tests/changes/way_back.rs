//! A document with which a service does not become healthy.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::Cluster;
use tests::kube::Binaries;
use tests::wait;

use super::{
    LIMIT, MASTER, NODE_CONFIG, deliver, on_a_master, processes, restarted, set_machine, settled,
    write,
};

const KUBELET: &str = "/etc/kubernetes/kubelet.yaml";
/// A service has three minutes with a document that is not known to be good.
const WINDOW: Duration = Duration::from_secs(360);

/// B12, F19: the kubelet ends at once with what it is told to be. The document
/// before it comes back, also where a boot brings the other one again; a mended
/// one is tried.
#[test]
fn a_document_that_breaks_the_kubelet_gives_way_to_the_one_before() -> Result<()> {
    on_a_master("way_back", scenario)
}

fn scenario(cluster: &mut Cluster) -> Result<()> {
    let folder = "/var/lib/knode/good";
    let current = format!("readlink {folder}/current; sha256sum {NODE_CONFIG} | cut -c 1-64");
    wait::until("the good document is kept", LIMIT, || {
        let said = cluster.node(MASTER)?.sh(&format!("{current} || true"))?;
        let mut lines = said.lines();
        Ok((lines.next() == lines.next()).then_some(()))
    })
    .with_context(|| told(cluster))?;
    let modes = format!("find {folder} -type f ! -perm 600 -o -type d ! -perm 700");
    let modes = cluster.node(MASTER)?.sh(&modes)?;
    ensure!(modes.is_empty(), "{modes}");
    let keys = format!("grep -rlE 'PRIVATE KEY|client-key' {folder} || true");
    let keys = cluster.node(MASTER)?.sh(&keys)?;
    ensure!(keys.is_empty(), "there are keys in {keys}");

    let good = Good {
        node: cluster.node(MASTER)?.read_file(NODE_CONFIG)?,
        kubelet: cluster.node(MASTER)?.read_file(KUBELET)?,
    };
    let before = processes(cluster)?;
    let broken = "labels: {example.com/rack: b}, kubelet: {config: {maxOpenFiles: -1}}";
    set_machine(cluster, &format!(", {broken}"))?;
    write(cluster)?;
    wait::until("E-CRASH-LOOP", LIMIT, || {
        let status = cluster.status(MASTER)?.unwrap_or_default();
        let services = status["services"].to_string();
        Ok(services.contains("E-CRASH-LOOP").then_some(()))
    })
    .with_context(|| told(cluster))?;
    ensure!(!good.is_back(cluster)?, "it had no time");
    comes_back(cluster, &good)?;
    let failure = failure(cluster)?;
    let message = failure["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with("kubelet did not become"), "{message}");
    let changed = restarted(cluster, &before)?;
    ensure!(changed == ["kubelet"], "{changed:?}");
    wait::until("the Node's condition", LIMIT, || {
        let node = cluster.get(&["node", MASTER])?;
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let told = conditions.any(|one| one["reason"] == "E-ROLLED-BACK");
        let label = &node["metadata"]["labels"]["example.com/rack"];
        Ok((told && label.is_null()).then_some(()))
    })?;
    let evidence = "grep -l 'did not become healthy with node.yaml' \
                    /var/lib/knode/evidence/*-kubelet/reason.txt";
    cluster.node(MASTER)?.sh(evidence)?;

    // As coreos-cloudinit does at a boot, also before knode runs.
    write(cluster)?;
    comes_back(cluster, &good)?;
    cluster.node(MASTER)?.sh("systemctl stop knode")?;
    write(cluster)?;
    cluster
        .node(MASTER)?
        .sh("systemctl start --no-block knode")?;
    comes_back(cluster, &good)?;

    set_machine(cluster, ", kubelet: {config: {maxPods: 43}}")?;
    deliver(cluster)?;
    wait::until("a Node for 43 pods", LIMIT, || {
        let node = cluster.get(&["node", MASTER])?;
        Ok((node["status"]["capacity"]["pods"] == "43").then_some(()))
    })?;
    wait::until("nothing wrong", LIMIT, || {
        let status = cluster.status(MASTER)?.unwrap_or_default();
        Ok((!status.to_string().contains("\"E-")).then_some(()))
    })
    .with_context(|| told(cluster))
}

/// B12, F19: another kubelet that cannot run here. The one before it comes back,
/// with its pods as they were; a document with one that runs is taken.
#[test]
fn a_kubelet_that_cannot_run_gives_way_to_the_one_before() -> Result<()> {
    on_a_master("way_back_program", another_kubelet)
}

fn another_kubelet(cluster: &mut Cluster) -> Result<()> {
    let kube = Binaries::find()?;
    let link = "readlink -f /opt/kubernetes/bin/kubelet";
    let good = cluster.node(MASTER)?.sh(link)?;
    let digest = good
        .trim()
        .rsplit('/')
        .nth(1)
        .context("no place in the store")?;
    wait::until("the good kubelet is kept", LIMIT, || {
        let said = cluster
            .node(MASTER)?
            .sh("cat /var/lib/knode/good.json || true")?;
        let kept: Value = serde_json::from_str(&said).unwrap_or_default();
        Ok((kept["kubelet"] == digest).then_some(()))
    })
    .with_context(|| told(cluster))?;
    let before = processes(cluster)?;

    cluster.change_version(kube.with_a_kubelet_that_ends()?)?;
    write(cluster)?;
    wait::until("the other kubelet's crash loop", LIMIT, || {
        let status = cluster.status(MASTER)?.unwrap_or_default();
        let services = status["services"].to_string();
        let named = services.contains("E-CRASH-LOOP") && services.contains("cannot run here");
        Ok(named.then_some(()))
    })
    .with_context(|| told(cluster))?;
    let other = cluster.node(MASTER)?.sh(link)?;
    ensure!(other != good, "it was never tried: {other}");
    wait::until("the kubelet before it, healthy", WINDOW, || {
        let back = cluster.node(MASTER)?.sh(link)? == good;
        let status = cluster.status(MASTER)?.unwrap_or_default();
        let services = status["services"].as_array();
        let mut services = services.into_iter().flatten();
        let kubelet = services.find(|one| one["name"] == "kubelet");
        let well = kubelet.is_some_and(|one| one["condition"] == "healthy");
        let named = status.to_string().contains("E-ROLLED-BACK");
        Ok((back && well && named && status["ready"] == true).then_some(()))
    })
    .with_context(|| told(cluster))?;
    let changed = restarted(cluster, &before)?;
    ensure!(changed == ["kubelet"], "{changed:?}");
    let evidence = "grep -l 'did not become healthy' \
                    /var/lib/knode/evidence/*-kubelet/reason.txt";
    cluster.node(MASTER)?.sh(evidence)?;
    // A restart of knode links nothing forward.
    cluster.node(MASTER)?.sh("systemctl restart knode")?;
    settled_or_refused(cluster)?;
    ensure!(cluster.node(MASTER)?.sh(link)? == good, "it did not stay");

    cluster.change_version(kube)?;
    set_machine(cluster, ", labels: {example.com/rack: c}")?;
    deliver(cluster)?;
    wait::until("nothing wrong", LIMIT, || {
        let status = cluster.status(MASTER)?.unwrap_or_default();
        Ok((!status.to_string().contains("\"E-") && status["ready"] == true).then_some(()))
    })
    .with_context(|| told(cluster))?;
    ensure!(cluster.node(MASTER)?.sh(link)? == good);
    Ok(())
}

/// Until a knode that was started anew has told how the machine is.
fn settled_or_refused(cluster: &mut Cluster) -> Result<()> {
    wait::until("Ready, and the refusal told", LIMIT, || {
        let status = cluster.status(MASTER)?.unwrap_or_default();
        let told = status.to_string().contains("E-ROLLED-BACK");
        Ok((told && status["ready"] == true).then_some(()))
    })
    .with_context(|| told(cluster))
}

/// What is to come back.
struct Good {
    node: String,
    kubelet: String,
}

impl Good {
    fn is_back(&self, cluster: &mut Cluster) -> Result<bool> {
        let node = cluster.node(MASTER)?;
        Ok(node.read_file(NODE_CONFIG)? == self.node && node.read_file(KUBELET)? == self.kubelet)
    }
}

/// Waits until the good document is there, applied, its kubelet healthy, and
/// the other one told.
fn comes_back(cluster: &mut Cluster, good: &Good) -> Result<()> {
    wait::until("the document before it", WINDOW, || {
        let back = good.is_back(cluster)? && failure(cluster)?["code"] == "E-ROLLED-BACK";
        Ok(back.then_some(()))
    })
    .with_context(|| told(cluster))?;
    settled(cluster)?;
    wait::until("a healthy kubelet", LIMIT, || {
        let status = cluster.status(MASTER)?.unwrap_or_default();
        let services = status["services"].as_array();
        let mut services = services.into_iter().flatten();
        let kubelet = services.find(|one| one["name"] == "kubelet");
        let well = kubelet.is_some_and(|one| one["condition"] == "healthy");
        Ok((well && status["ready"] == true).then_some(()))
    })
    .with_context(|| told(cluster))?;
    ensure!(good.is_back(cluster)?, "it did not stay");
    Ok(())
}

fn failure(cluster: &mut Cluster) -> Result<Value> {
    Ok(cluster.status(MASTER)?.unwrap_or_default()["failure"].clone())
}

fn told(cluster: &mut Cluster) -> String {
    let status = cluster.status(MASTER).ok().flatten().unwrap_or_default();
    format!("{status:#}")
}
