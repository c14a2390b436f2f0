//! A node.yaml that changes under a running node: on a real systemd and with a
//! real kubelet, what depends on the change restarts, and nothing else.

mod way_back;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::scenario::with_kubernetes;
use tests::wait;

const MASTER: &str = "master";
const MACHINES: [Machine; 1] = [Machine::new(MASTER, "master")];
const LIMIT: Duration = Duration::from_secs(180);
const NODE_CONFIG: &str = "/etc/knode/node.yaml";
/// Every service of a master, and knode.
const UNITS: [&str; 8] = [
    "knode",
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

/// F30, P30, P33, and the design's rule that only what depends on a change
/// restarts.
#[test]
fn a_changed_node_yaml_is_applied_and_only_what_depends_on_it_restarts() -> Result<()> {
    on_a_master("changes", scenario)
}

/// Runs a scenario on a cluster of one master.
fn on_a_master(name: &str, scenario: fn(&mut Cluster) -> Result<()>) -> Result<()> {
    with_kubernetes(
        name,
        || Cluster::new(&MACHINES),
        |cluster| boot(cluster).and_then(|()| scenario(cluster)),
    )
}

fn boot(cluster: &mut Cluster) -> Result<()> {
    cluster.boot(MASTER)?;
    cluster.import_images(MASTER, LIMIT)?;
    cluster.wait_until_ready(MASTER, LIMIT)
}

fn scenario(cluster: &mut Cluster) -> Result<()> {
    labels_come_and_go_and_nothing_restarts(cluster)?;
    taints_come_and_go(cluster)?;
    a_kubelets_configuration_restarts_the_kubelet_alone(cluster)?;
    a_bad_node_yaml_is_told_and_everything_goes_on(cluster)?;
    a_document_on_its_way_is_waited_for(cluster)?;
    the_networks_mode_changes(cluster)?;
    a_service_that_is_removed_is_stopped(cluster)?;
    a_restart_of_knode_restarts_nothing_else(cluster)
}

/// The machine's line in the settings.
fn set_machine(cluster: &Cluster, more: &str) -> Result<()> {
    let path = cluster.path("cluster.yaml");
    let text = fs::read_to_string(&path)?;
    let lines = text.lines().map(|line| match line.starts_with("- {name:") {
        true => format!("- {{name: {MASTER}, role: master, address: 10.99.0.11{more}}}\n"),
        false => format!("{line}\n"),
    });
    Ok(fs::write(&path, lines.collect::<String>())?)
}

fn main_pid(cluster: &mut Cluster, unit: &str) -> Result<String> {
    let node = cluster.node(MASTER)?;
    let said = node.sh(&format!(
        "systemctl show --property=MainPID --property=NRestarts {unit}"
    ))?;
    Ok(said.trim().replace('\n', " "))
}

/// Main process and restarts of every unit.
fn processes(cluster: &mut Cluster) -> Result<Vec<(&'static str, String)>> {
    let units = UNITS.into_iter();
    units
        .map(|unit| Ok((unit, main_pid(cluster, unit)?)))
        .collect()
}

/// Delivers the machine's new document, and waits until knode says that all of
/// it is brought about.
fn deliver(cluster: &mut Cluster) -> Result<()> {
    write(cluster)?;
    settled(cluster)
}

/// Writes the files of the machine's new document.
fn write(cluster: &mut Cluster) -> Result<()> {
    cluster.write_document(MASTER)
}

/// Waits until the node.yaml that is there is the one that was applied.
fn settled(cluster: &mut Cluster) -> Result<()> {
    cluster.wait_until_applied(MASTER, LIMIT)
}

/// Which units have another process, or were restarted.
fn restarted(
    cluster: &mut Cluster,
    before: &[(&'static str, String)],
) -> Result<Vec<&'static str>> {
    let now = processes(cluster)?;
    let pairs = before.iter().zip(&now);
    Ok(pairs
        .filter(|(before, now)| before != now)
        .map(|(before, _)| before.0)
        .collect())
}

/// P33.
fn labels_come_and_go_and_nothing_restarts(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    cluster
        .kubectl(&["label", "node", MASTER, "example.com/theirs=1"], "")?
        .ok()?;
    let label = |cluster: &Cluster, key: &str| -> Result<Value> {
        Ok(cluster.get(&["node", MASTER])?["metadata"]["labels"][key].clone())
    };
    set_machine(
        cluster,
        ", labels: {example.com/rack: a1, example.com/zone: z}",
    )?;
    deliver(cluster)?;
    ensure!(label(cluster, "example.com/rack")? == "a1");
    ensure!(label(cluster, "example.com/zone")? == "z");
    set_machine(cluster, ", labels: {example.com/rack: a2}")?;
    deliver(cluster)?;
    ensure!(label(cluster, "example.com/rack")? == "a2");
    ensure!(label(cluster, "example.com/zone")?.is_null());
    ensure!(label(cluster, "example.com/theirs")? == "1");
    ensure!(label(cluster, "kubernetes.io/hostname")? == MASTER);
    let restarted = restarted(cluster, &before)?;
    ensure!(restarted.is_empty(), "{restarted:?}");
    Ok(())
}

/// The kubelet is told too, for a Node that is made again.
fn taints_come_and_go(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    let taints = |cluster: &Cluster| -> Result<String> {
        Ok(cluster.get(&["node", MASTER])?["spec"]["taints"].to_string())
    };
    // A cluster of masters alone has none.
    ensure!(!taints(cluster)?.contains("example.com"));
    let theirs = "example.com/theirs=1:PreferNoSchedule";
    cluster
        .kubectl(&["taint", "node", MASTER, theirs], "")?
        .ok()?;
    set_machine(
        cluster,
        ", taints: [{key: example.com/gpu, effect: PreferNoSchedule}]",
    )?;
    deliver(cluster)?;
    let now = taints(cluster)?;
    ensure!(
        now.contains("example.com/gpu") && now.contains("example.com/theirs"),
        "{now}"
    );
    set_machine(cluster, ", taints: []")?;
    deliver(cluster)?;
    let now = taints(cluster)?;
    ensure!(
        !now.contains("example.com/gpu") && now.contains("example.com/theirs"),
        "{now}"
    );
    let restarted = restarted(cluster, &before)?;
    ensure!(restarted == ["kubelet"], "{restarted:?}");
    Ok(())
}

fn a_kubelets_configuration_restarts_the_kubelet_alone(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    let started = "journalctl --unit=kubelet --output=cat --no-pager | grep -c '^Started '";
    let count = |cluster: &mut Cluster| -> Result<u32> {
        Ok(cluster.node(MASTER)?.sh(started)?.trim().parse()?)
    };
    let starts = count(cluster)?;
    set_machine(cluster, ", taints: [], kubelet: {config: {maxPods: 42}}")?;
    deliver(cluster)?;
    let changed = restarted(cluster, &before)?;
    ensure!(changed == ["kubelet"], "{changed:?}");
    ensure!(count(cluster)? == starts + 1, "the kubelet restarted once");
    wait::until("a Node for 42 pods", LIMIT, || {
        let node = cluster.get(&["node", MASTER])?;
        Ok((node["status"]["capacity"]["pods"] == "42").then_some(()))
    })
}

/// F30: told by its code, on the Node too; and good again once it is mended.
fn a_bad_node_yaml_is_told_and_everything_goes_on(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    let good = cluster.node(MASTER)?.read_file(NODE_CONFIG)?;
    // As a whole, and as an editor would not.
    cluster.node(MASTER)?.sh(&format!(
        "(cat {NODE_CONFIG}; echo 'surprise: 1') >/etc/knode/new; mv /etc/knode/new {NODE_CONFIG}"
    ))?;
    let failure = |cluster: &mut Cluster| -> Result<Value> {
        Ok(cluster.status(MASTER)?.unwrap_or_default()["failure"].clone())
    };
    wait::until("E-CONFIG-INVALID", LIMIT, || {
        let told = failure(cluster)?;
        let message = told["message"].as_str().unwrap_or_default();
        let named = message.contains("surprise") && message.contains("goes on");
        Ok((told["code"] == "E-CONFIG-INVALID" && named).then_some(()))
    })?;
    wait::until("the Node's condition", LIMIT, || {
        let node = cluster.get(&["node", MASTER])?;
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let own = conditions.find(|condition| condition["type"] == "KnodeHealthy");
        Ok(own
            .filter(|own| own["reason"] == "E-CONFIG-INVALID")
            .map(|_| ()))
    })?;
    ensure!(cluster.status(MASTER)?.unwrap_or_default()["ready"] == true);
    cluster
        .node(MASTER)?
        .write_file(NODE_CONFIG, good.as_bytes())?;
    cluster.node(MASTER)?.sh("systemctl reload knode")?;
    wait::until("nothing wrong with it", LIMIT, || {
        Ok(failure(cluster)?.is_null().then_some(()))
    })?;
    let restarted = restarted(cluster, &before)?;
    ensure!(restarted.is_empty(), "{restarted:?}");
    Ok(())
}

/// F30: a file that is missing keeps all of the document from being applied.
fn a_document_on_its_way_is_waited_for(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    let good = cluster.node(MASTER)?.read_file(NODE_CONFIG)?;
    let path = "/etc/knode/on-its-way";
    let with = |text: &str, path: &str, digest: &str| -> Result<String> {
        let mut config: Value = serde_yaml::from_str(text)?;
        config["node"]["labels"]["example.com/rack"] = json!("late");
        let manifest = config["manifest"].as_array_mut().context("a manifest")?;
        manifest.push(json!({"path": path, "mode": "0644", "digest": digest}));
        // JSON is YAML.
        Ok(config.to_string())
    };
    // Of the two bytes "x\n".
    let digest = "sha256:73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac";
    let late = with(&good, path, digest)?;
    let node = cluster.node(MASTER)?;
    node.write_file(NODE_CONFIG, late.as_bytes())?;
    wait::until("E-CONFIG-ALTERED", LIMIT, || {
        let failure = &cluster.status(MASTER)?.unwrap_or_default()["failure"];
        let named = failure["message"].as_str().unwrap_or_default();
        let named = named.contains(path) && named.contains("is missing");
        Ok((failure["code"] == "E-CONFIG-ALTERED" && named).then_some(()))
    })?;
    let rack = |cluster: &Cluster| -> Result<Value> {
        let node = cluster.get(&["node", MASTER])?;
        Ok(node["metadata"]["labels"]["example.com/rack"].clone())
    };
    ensure!(rack(cluster)? != "late", "a part of it was applied");
    cluster.node(MASTER)?.write_file(path, b"x\n")?;
    settled(cluster)?;
    ensure!(rack(cluster)? == "late");
    // What the document brought goes with it.
    cluster
        .node(MASTER)?
        .write_file(NODE_CONFIG, good.as_bytes())?;
    settled(cluster)?;
    ensure!(!cluster.node(MASTER)?.exists(path)?, "{path} is left");
    let restarted = restarted(cluster, &before)?;
    ensure!(restarted.is_empty(), "{restarted:?}");
    Ok(())
}

/// P30: what one mode made goes with it.
fn the_networks_mode_changes(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    let good = cluster.node(MASTER)?.read_file(NODE_CONFIG)?;
    let set = |cluster: &mut Cluster, mode: &str| -> Result<()> {
        let mut config: Value = serde_yaml::from_str(&good)?;
        config["network"]["mode"] = json!(mode);
        let text = config.to_string();
        let node = cluster.node(MASTER)?;
        node.write_file(NODE_CONFIG, text.as_bytes())
    };
    let shown = |cluster: &mut Cluster| {
        cluster
            .node(MASTER)?
            .sh("ip link; ip route; nft list tables; ls /etc/cni/net.d")
    };
    set(cluster, "vxlan")?;
    settled(cluster)?;
    let now = shown(cluster)?;
    ensure!(now.contains("knode-vxlan") && now.contains("cbr0"), "{now}");
    set(cluster, "none")?;
    wait::until("nothing of the old mode", LIMIT, || {
        let step = cluster.step(MASTER, "network")?.to_string();
        let now = shown(cluster)?;
        let gone = ["knode-vxlan", "table inet knode", "10-knode.conflist"];
        let gone = !gone.iter().any(|thing| now.contains(thing));
        Ok((step.contains("left to the CNI") && gone).then_some(()))
    })?;
    cluster
        .node(MASTER)?
        .write_file(NODE_CONFIG, good.as_bytes())?;
    settled(cluster)?;
    let now = shown(cluster)?;
    ensure!(!now.contains("knode-vxlan"), "{now}");
    ensure!(
        now.contains("cbr0") && now.contains("10-knode.conflist"),
        "{now}"
    );
    let restarted = restarted(cluster, &before)?;
    ensure!(restarted.is_empty(), "{restarted:?}");
    Ok(())
}

fn a_service_that_is_removed_is_stopped(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    let good = cluster.node(MASTER)?.read_file(NODE_CONFIG)?;
    let unit = "/etc/systemd/system/kube-proxy.service";
    let kept = cluster.node(MASTER)?.read_file(unit)?;
    let mut config: Value = serde_yaml::from_str(&good)?;
    let list = |config: &mut Value, key: &str, keep: &dyn Fn(&Value) -> bool| {
        if let Some(list) = config[key].as_array_mut() {
            list.retain(|one| keep(one));
        }
    };
    list(&mut config, "services", &|service| service != "kube-proxy");
    list(&mut config, "manifest", &|entry| entry["path"] != unit);
    let text = config.to_string();
    cluster
        .node(MASTER)?
        .write_file(NODE_CONFIG, text.as_bytes())?;
    settled(cluster)?;
    let node = cluster.node(MASTER)?;
    let state = node.sh("systemctl show --property=ActiveState --property=LoadState kube-proxy")?;
    ensure!(
        state.contains("inactive") && state.contains("not-found"),
        "{state}"
    );
    ensure!(!node.exists(unit)?, "{unit} is left");
    let status = cluster.status(MASTER)?.unwrap_or_default();
    ensure!(!status["services"].to_string().contains("kube-proxy"));
    let changed = restarted(cluster, &before)?;
    ensure!(changed == ["kube-proxy"], "{changed:?}");
    // And back.
    let node = cluster.node(MASTER)?;
    node.write_file(unit, kept.as_bytes())?;
    node.write_file(NODE_CONFIG, good.as_bytes())?;
    settled(cluster)?;
    let state = cluster
        .node(MASTER)?
        .sh("systemctl is-active kube-proxy kubelet")?;
    ensure!(state == "active\nactive\n", "{state}");
    Ok(())
}

fn a_restart_of_knode_restarts_nothing_else(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster)?;
    cluster.node(MASTER)?.sh("systemctl restart knode")?;
    settled(cluster)?;
    let restarted = restarted(cluster, &before)?;
    ensure!(restarted == ["knode"], "{restarted:?}");
    Ok(())
}
