//! A cluster goes from one version to the next: all documents are delivered at
//! once, and the machines know whose turn it is. (P61)

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::kube::Binaries;
use tests::scenario::{in_turn, with_kubernetes};
use tests::{report, wait};

const MACHINES: [Machine; 3] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
    Machine::new("node-2", "node"),
];
const LIMIT: Duration = Duration::from_secs(240);
/// From the delivery to the last machine's end; two machines are drained.
const UPGRADE: Duration = Duration::from_secs(600);

#[test]
fn masters_first_then_one_drained_node_after_the_other() -> Result<()> {
    const NAME: &str = "masters_first_then_one_drained_node_after_the_other";
    let (old, new) = match (Binaries::find_older(), Binaries::find()) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(reason), _) | (_, Err(reason)) => {
            report::skip(NAME, &format!("{reason:#}"));
            return Ok(());
        }
    };
    let make = || Cluster::at_version(&MACHINES, old);
    in_turn(|| with_kubernetes(NAME, make, |cluster| scenario(cluster, new)))
}

fn scenario(cluster: &mut Cluster, new: Binaries) -> Result<()> {
    for Machine { name, .. } in MACHINES {
        cluster.boot(name)?;
    }
    for Machine { name, .. } in MACHINES {
        cluster.import_images(name, LIMIT)?;
    }
    for Machine { name, .. } in MACHINES {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    a_service_that_must_go_on(cluster)?;
    let wanted = format!("v{}", new.version());
    cluster.change_version(new)?;
    // The nodes first: they know that it is not their turn yet.
    for name in ["node-2", "node-1"] {
        cluster.write_document(name)?;
    }
    wait::until("E-SKEW on node-1", LIMIT, || {
        let detail = cluster.step("node-1", "start")?["detail"].to_string();
        Ok(detail.contains("E-SKEW").then_some(()))
    })?;
    let versions = kubelets(cluster)?;
    ensure!(!versions.contains(&wanted), "{versions:?}");
    cluster.write_document("master")?;
    let done = AtomicBool::new(false);
    let kubectl = &*cluster;
    let watched = thread::scope(|threads| {
        let watch = threads.spawn(|| watch(kubectl, &done));
        let ended = wait::until("every kubelet of the new version", UPGRADE, || {
            let versions = kubelets(kubectl)?;
            Ok(versions
                .iter()
                .all(|version| *version == wanted)
                .then_some(()))
        });
        done.store(true, Ordering::Relaxed);
        let watched = watch
            .join()
            .map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        ended.and(watched)
    });
    if let Err(error) = watched {
        for Machine { name, .. } in MACHINES {
            eprintln!("{name}: {:#}", cluster.status(name)?.unwrap_or_default());
        }
        return Err(error);
    }
    for Machine { name, .. } in MACHINES {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    let said = cluster.kgen_wait(&["--timeout", "3m"])?.ok()?;
    ensure!(!said.contains("NOT YET"), "{said}");
    wait::until("no machine is cordoned", LIMIT, || {
        let nodes = cluster.get(&["nodes"])?;
        let items = nodes["items"].as_array().context("no list")?;
        let open = items.iter().all(|node| {
            node["spec"]["unschedulable"].is_null()
                && node["metadata"]["annotations"]["knode/drain"].is_null()
        });
        Ok(open.then_some(()))
    })?;
    Ok(())
}

/// Two replicas, of which one may be away.
fn a_service_that_must_go_on(cluster: &mut Cluster) -> Result<()> {
    let labels = json!({"app": "web"});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web",
                    "image": "knode.test/web:1",
                    "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1}}]}}}},
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}},
    ]});
    wait::until("objects accepted", LIMIT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &objects.to_string())?;
        Ok(applied.success().then_some(()))
    })?;
    wait::until("two replicas", LIMIT, || {
        let web = cluster.get(&["deployment", "web"])?;
        Ok((web["status"]["availableReplicas"] == 2).then_some(()))
    })
}

fn kubelets(cluster: &Cluster) -> Result<Vec<String>> {
    // The API server itself restarts on the way.
    let nodes = cluster.kubectl(&["get", "nodes", "--output=json"], "")?;
    if !nodes.success() {
        return Ok(vec![String::new()]);
    }
    let nodes: Value = serde_json::from_str(&nodes.stdout)?;
    let items = nodes["items"].as_array().context("no list")?;
    let version = |node: &Value| {
        let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str();
        version.unwrap_or_default().to_owned()
    };
    Ok(items.iter().map(version).collect())
}

/// Until it is done: no kubelet is newer than the API server, no two machines
/// are drained at once, and one replica is there at all times.
fn watch(cluster: &Cluster, done: &AtomicBool) -> Result<()> {
    let mut drained = std::collections::BTreeSet::new();
    while !done.load(Ordering::Relaxed) {
        let version = cluster.kubectl(&["get", "--raw=/version"], "")?;
        let nodes = cluster.kubectl(&["get", "nodes", "--output=json"], "")?;
        let web = cluster.kubectl(&["get", "deployment", "web", "--output=json"], "")?;
        if version.success() && nodes.success() && web.success() {
            let version: Value = serde_json::from_str(&version.stdout)?;
            let server = version["gitVersion"].as_str().unwrap_or_default();
            let nodes: Value = serde_json::from_str(&nodes.stdout)?;
            let items = nodes["items"].as_array().context("no list")?;
            let mut now = Vec::new();
            for node in items {
                let name = node["metadata"]["name"].as_str().unwrap_or_default();
                let kubelet = node["status"]["nodeInfo"]["kubeletVersion"].as_str();
                let kubelet = kubelet.unwrap_or_default();
                ensure!(
                    kubelet <= server,
                    "{name} has {kubelet}, the API server {server}"
                );
                if node["spec"]["unschedulable"] == true {
                    now.push(name.to_owned());
                }
            }
            ensure!(now.len() < 2, "drained at once: {now:?}");
            drained.extend(now);
            let web: Value = serde_json::from_str(&web.stdout)?;
            let available = web["status"]["availableReplicas"].as_u64().unwrap_or(0);
            ensure!(available >= 1, "no replica is there: {web:#}");
        }
        thread::sleep(Duration::from_millis(500));
    }
    ensure!(
        drained.contains("node-1") && drained.contains("node-2"),
        "drained: {drained:?}"
    );
    Ok(())
}

const MASTERS: [Machine; 3] = [
    Machine::new("master-1", "master"),
    Machine::new("master-2", "master"),
    Machine::new("master-3", "master"),
];

/// P61: a change of all API servers' flags is delivered to all at once, and two
/// never restart together.
#[test]
fn three_masters_restart_their_control_planes_one_after_the_other() -> Result<()> {
    const NAME: &str = "three_masters_restart_their_control_planes_one_after_the_other";
    in_turn(|| with_kubernetes(NAME, || Cluster::new(&MASTERS), masters))
}

fn masters(cluster: &mut Cluster) -> Result<()> {
    for Machine { name, .. } in MASTERS {
        cluster.boot(name)?;
    }
    for Machine { name, .. } in MASTERS {
        cluster.import_images(name, LIMIT)?;
    }
    for Machine { name, .. } in MASTERS {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    cluster.configure("apiServer: {extraArgs: {event-ttl: 2h}}\n")?;
    for Machine { name, .. } in MASTERS {
        cluster.write_document(name)?;
    }
    let mut away = Vec::new();
    for Machine { name, .. } in MASTERS {
        let flag = "tr '\\0' '\\n' </proc/$(systemctl show --property=MainPID --value \
            kube-apiserver)/cmdline | grep -c event-ttl=2h || :";
        wait::until(&format!("the new flag on {name}"), LIMIT, || {
            let active = cluster
                .node(name)?
                .exec(&["systemctl", "is-active", "kube-apiserver"])?;
            let there = active.success() && cluster.node(name)?.sh(flag)?.trim() == "1";
            Ok(there.then_some(()))
        })
        .with_context(|| {
            format!(
                "{:#}",
                cluster.status(name).ok().flatten().unwrap_or_default()
            )
        })?;
        // All machines have one clock: that of this host since its boot.
        let times = cluster.node(name)?.sh(
            "systemctl show --value --property=ActiveExitTimestampMonotonic kube-apiserver; \
             systemctl show --value --property=ActiveEnterTimestampMonotonic kube-apiserver",
        )?;
        let times = times.lines().map(str::parse);
        let times: Vec<u64> = times.collect::<Result<_, _>>()?;
        let [from, to] = times[..] else {
            anyhow::bail!("{name}: {times:?}");
        };
        ensure!(0 < from && from < to, "{name}: {from} to {to}");
        away.push((from, to, name));
    }
    away.sort_unstable();
    for pair in away.windows(2) {
        ensure!(pair[0].1 < pair[1].0, "away at once: {away:?}");
    }
    let lease = ["lease", "--namespace=kube-system", "knode-control-plane"];
    wait::until("the Lease given back", LIMIT, || {
        let lease = cluster.get(&lease)?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        Ok(holder.is_empty().then_some(()))
    })
}
