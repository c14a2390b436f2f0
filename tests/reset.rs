//! `knode reset` on real machines: what the document brought is gone, what was
//! there before is as it was, and the same document boots again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Machine};
use tests::node::Meta;
use tests::scenario::with_kubernetes;
use tests::wait;

const MACHINES: [Machine; 2] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
];
const LIMIT: Duration = Duration::from_secs(180);
/// Files and folders of the machine itself: not what every running system
/// writes, nor what cloud-init keeps of its boots.
const FILES: &str = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run \
    -o -path /tmp -o -path /var/tmp -o -path /var/log/journal -o -path /var/lib/cloud \
    -o -path /var/lib/systemd -o -path /var/lib/containerd -o -path /var/cache \
    -o -path /etc/ssh -o -path /root \\) -prune -o -print | sort";

/// Where somebody else's route leads.
const THEIRS: &str = "192.0.2.0/24";

/// What is compared before and after.
#[derive(Debug)]
struct State {
    files: BTreeSet<String>,
    hosts: String,
    links: String,
    routes: String,
    mounts: BTreeSet<String>,
    enabled: String,
}

fn state(cluster: &mut Cluster, name: &str) -> Result<State> {
    let node = cluster.node(name)?;
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    Ok(State {
        files: lines(node.sh(FILES)?),
        hosts: node.read_file("/etc/hosts")?,
        links: node.sh("ls /sys/class/net")?,
        routes: node.sh(&format!(
            "ip route | grep -v {THEIRS}; ip -6 route | grep -v fe80 || :"
        ))?,
        mounts: lines(node.sh("findmnt --raw --noheadings --output TARGET | sort")?),
        enabled: node.sh(
            "systemctl list-unit-files --state=enabled --no-legend --no-pager | cut -d ' ' -f 1",
        )?,
    })
}

#[test]
fn a_machine_is_what_it_was_before_its_document() -> Result<()> {
    let name = "reset";
    with_kubernetes(name, || Cluster::new(&MACHINES), scenario)
}

fn scenario(cluster: &mut Cluster) -> Result<()> {
    let mut before = Vec::new();
    for Machine { name, .. } in MACHINES {
        // As the distribution made it.
        let node = cluster.boot_with(name, b"#cloud-config\n{}\n")?;
        node.wait_for_cloud_init(LIMIT)?;
        node.wait_for_system(LIMIT)?;
        // What is somebody else's, in the places where ours is.
        node.sh("mkdir -p /etc/kubernetes /opt/cni/bin; \
             echo mine >/etc/kubernetes/mine; echo mine >/opt/cni/bin/mine")?;
        before.push((name, state(cluster, name)?));
    }
    for Machine { name, .. } in MACHINES {
        document(cluster, name, 2)?;
    }
    for Machine { name, .. } in MACHINES {
        cluster.import_images(name, LIMIT)?;
        cluster.wait_until_ready(name, LIMIT)?;
    }
    a_pod_runs(cluster)?;
    it_asks_first(cluster)?;
    let (_, node_before) = before.pop().context("two machines")?;
    the_plan_changes_nothing(cluster)?;
    let told = reset(cluster, "node-1")?;
    ensure!(told["complete"] == true, "{told:#}");
    let remarks = told["remarks"].to_string();
    ensure!(remarks.contains("kubectl delete node node-1"), "{remarks}");
    is_as_before(cluster, "node-1", &node_before)?;
    nothing_is_left_to_do(cluster, "node-1")?;
    // The others go on, and know that it is gone.
    wait::until("node-1 NotReady", LIMIT, || {
        let node = cluster.get(&["node", "node-1"])?;
        let conditions = node["status"]["conditions"].as_array().cloned();
        let mut conditions = conditions.unwrap_or_default().into_iter();
        let ready = conditions.find(|condition| condition["type"] == "Ready");
        Ok(ready.filter(|ready| ready["status"] != "True").map(|_| ()))
    })?;
    cluster.kubectl(&["delete", "node", "node-1"], "")?.ok()?;
    again(cluster, "node-1")?;
    // The cluster itself, which ends with its only member of etcd.
    let (_, master_before) = before.pop().context("two machines")?;
    let told = reset(cluster, "master")?;
    ensure!(told["complete"] == true, "{told:#}");
    let remarks = told["remarks"].to_string();
    ensure!(remarks.contains("the only member of etcd"), "{remarks}");
    let node = cluster.node("master")?;
    // Beside its place, or within it where that is a disk of its own.
    let actions = told["actions"].as_array().context("no list")?;
    let mut kept = actions.iter().filter(|action| action["action"] == "keep");
    let message = kept.next().map(|action| &action["message"]);
    let message = message.and_then(Value::as_str).unwrap_or_default();
    let aside = message.strip_prefix("it is in ");
    let aside = aside.with_context(|| format!("{told:#}"))?;
    node.sh(&format!("find {aside} -path '*/snap/db' | grep ."))?;
    ensure!(remarks.contains("the audit log stays"), "{remarks}");
    let snapshots = "/var/lib/etcd-snapshots";
    let stay = format!("snapshots of etcd stay in {snapshots}");
    ensure!(remarks.contains(&stay), "{remarks}");
    node.sh(&format!(
        "rm -r {aside} /var/log/kubernetes; rm -rf {snapshots}"
    ))?;
    is_as_before(cluster, "master", &master_before)?;
    nothing_is_left_to_do(cluster, "master")?;
    again(cluster, "master")
}

/// Boots the machine's document, as another instance than before.
fn document(cluster: &mut Cluster, name: &'static str, instance: u32) -> Result<()> {
    let user_data = cluster.user_data(name, "cloud-init")?;
    let mut meta = Meta::new(name);
    meta.instance_id = format!("i-{name}-{instance}");
    let node = cluster.node(name)?;
    node.seed(user_data.as_bytes(), &meta)?;
    node.reboot()
}

fn a_pod_runs(cluster: &mut Cluster) -> Result<()> {
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never",
                "ports": [{"containerPort": 8080, "hostPort": 8081}],
                "volumeMounts": [{"name": "memory", "mountPath": "/memory"}]}]}}"#;
    wait::until("the pod accepted", LIMIT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], pod)?;
        Ok(applied.success().then_some(()))
    })?;
    wait::until("the pod running", LIMIT, || {
        let pod = cluster.get(&["pod", "web"])?;
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok(ready.then_some(()))
    })
}

fn it_asks_first(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("node-1")?;
    let asked = node.exec(&["/opt/knode/bin/knode", "reset"])?;
    ensure!(asked.code() == 1, "{}", asked.code());
    ensure!(asked.stderr.contains("E-RESET"), "{}", asked.stderr);
    // A terminal, and somebody who does not know which machine this is.
    let typed = node.exec(&[
        "sh",
        "-c",
        "echo node-2 | script -qec '/opt/knode/bin/knode reset' /dev/null",
    ])?;
    ensure!(typed.code() == 1, "{}", typed.stdout);
    ensure!(typed.stdout.contains("type node-1"), "{}", typed.stdout);
    ensure!(
        cluster.status("node-1")?.unwrap_or_default()["ready"] == true,
        "something was done"
    );
    Ok(())
}

fn the_plan_changes_nothing(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("node-1")?;
    let files = node.sh("find /etc /opt | sort")?;
    let plan = node.sh("/opt/knode/bin/knode reset --dry-run")?;
    for part in [
        "stop     kubelet.service",
        "default/web",
        "the link cbr0",
        "unmount  /var/lib/kubelet/pods/",
        "remove   /etc/kubernetes/kubelet.yaml",
        "restart  containerd.service",
        "kubectl drain",
    ] {
        ensure!(plan.contains(part), "no {part:?} in\n{plan}");
    }
    let after = node.sh("find /etc /opt | sort")?;
    ensure!(files == after, "a plan changed files");
    let active = node.sh("systemctl is-active knode kubelet containerd")?;
    ensure!(active == "active\nactive\nactive\n", "{active}");
    Ok(())
}

fn reset(cluster: &mut Cluster, name: &str) -> Result<Value> {
    let node = cluster.node(name)?;
    // Of the same kinds as ours, and gone with a reboot.
    node.sh(&format!(
        "nft add table inet theirs; ip route add {THEIRS} dev lo"
    ))?;
    let command = ["/opt/knode/bin/knode", "reset", "--yes", "--json"];
    let said = node.exec_within(&command, b"", LIMIT)?;
    let told: Value = serde_json::from_str(&said.stdout)
        .with_context(|| format!("{}{}", said.stdout, said.stderr))?;
    ensure!(said.code() == 0, "{}: {told:#}", said.code());
    Ok(told)
}

fn is_as_before(cluster: &mut Cluster, name: &str, before: &State) -> Result<()> {
    let now = state(cluster, name)?;
    let differ = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
        one.difference(other).cloned().collect()
    };
    let left = differ(&now.files, &before.files);
    ensure!(left.is_empty(), "{name}: left behind: {left:#?}");
    let gone = differ(&before.files, &now.files);
    ensure!(gone.is_empty(), "{name}: somebody else's: {gone:#?}");
    ensure!(now.hosts == before.hosts, "{name}: {}", now.hosts);
    ensure!(now.links == before.links, "{name}: {}", now.links);
    ensure!(now.routes == before.routes, "{name}: {}", now.routes);
    let left = differ(&now.mounts, &before.mounts);
    ensure!(left.is_empty(), "{name}: still mounted: {left:#?}");
    ensure!(now.enabled == before.enabled, "{name}: {}", now.enabled);
    let node = cluster.node(name)?;
    let rules = node.sh("nft list ruleset 2>/dev/null")?;
    ensure!(
        rules.contains("table inet theirs"),
        "{name}: somebody else's table: {rules}"
    );
    let routes = node.sh("ip route")?;
    ensure!(routes.contains(THEIRS), "{name}: somebody else's: {routes}");
    for ours in ["KUBE-", "table inet knode", "kube-proxy"] {
        ensure!(!rules.contains(ours), "{name}: {ours} in {rules}");
    }
    let processes = node.sh("ps -eo comm=")?;
    for ours in ["kube", "etcd", "knode", "containerd-shim", "web"] {
        let mut lines = processes.lines();
        ensure!(
            !lines.any(|line| line.starts_with(ours)),
            "{name}: {ours} still runs: {processes}"
        );
    }
    let failed = node.failed_units()?;
    ensure!(failed.is_empty(), "{name}: {failed:?}");
    let containerd = node.sh("systemctl is-active containerd")?;
    ensure!(containerd == "active\n", "{name}: {containerd}");
    let line = node.sh("tr '\\0' ' ' </proc/$(pgrep -x containerd)/cmdline")?;
    ensure!(!line.contains("/etc/kubernetes"), "{name}: {line}");
    Ok(())
}

/// A second reset has nothing to do, by a knode from elsewhere.
fn nothing_is_left_to_do(cluster: &mut Cluster, name: &str) -> Result<()> {
    let knode = std::fs::read(&cluster.programs().knode)?;
    let node = cluster.node(name)?;
    let script = "cat >/tmp/knode; chmod +x /tmp/knode; /tmp/knode reset --yes; rm /tmp/knode";
    let said = node.exec_within(&["sh", "-euc", script], &knode, LIMIT)?;
    let said = said.ok()?;
    ensure!(said == "nothing of knode is on this machine\n", "{said}");
    Ok(())
}

/// The same document makes it a node again.
fn again(cluster: &mut Cluster, name: &'static str) -> Result<()> {
    document(cluster, name, 3)?;
    cluster.import_images(name, LIMIT)?;
    cluster.wait_until_ready(name, LIMIT)
}
