//! One master and two nodes, from `kgen --role …` to pods that reach each
//! other, on real systemd, cloud-init, containerd, etcd and Kubernetes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::node::System;
use tests::scenario::{in_turn, on_cluster};
use tests::{report, wait};

const MACHINES: [Machine; 3] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
    Machine::new("node-2", "node"),
];
const BOOT: Duration = Duration::from_secs(120);

#[test]
fn three_nodes() -> Result<()> {
    with_cluster("three_nodes", "host-gw", whole_way)
}

/// P30, B6: the default network, which needs nothing of the one beneath.
#[test]
fn three_nodes_on_vxlan() -> Result<()> {
    with_cluster("three_nodes_on_vxlan", "vxlan", |cluster| {
        if !cluster.has_kubernetes() {
            report::skip(
                "three_nodes_on_vxlan",
                "no Kubernetes binaries in $KUBE_BIN_DIR",
            );
            return Ok(());
        }
        the_others_boot(cluster, &["node-1", "master", "node-2"])?;
        all_are_ready(cluster)?;
        let node = cluster.node("node-1")?;
        let routes = node.sh("ip -4 route")?;
        ensure!(
            routes
                .lines()
                .any(|r| r.starts_with("10.244.2.0/24") && r.contains("knode-vxlan")),
            "{routes}"
        );
        ensure!(
            !routes.contains("via 10.99.0.13"),
            "a direct route: {routes}"
        );
        pods_reach_each_other(cluster)
    })
}

fn with_cluster(
    name: &str,
    mode: &str,
    work: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let make = || Cluster::with_mode(&MACHINES, mode);
    in_turn(|| on_cluster(name, make, work))
}

fn whole_way(cluster: &mut Cluster) -> Result<()> {
    a_node_boots_before_its_master_and_waits(cluster)?;
    the_others_boot(cluster, &["master", "node-2"])?;
    the_store_of_the_cluster_runs(cluster)?;
    if !cluster.has_kubernetes() {
        report::skip(
            "three_nodes_ready",
            "no Kubernetes binaries in $KUBE_BIN_DIR; went as far as etcd, containerd and cbr0",
        );
        return Ok(());
    }
    all_are_ready(cluster)?;
    the_operator_waits(cluster)?;
    the_network_is_as_wanted(cluster)?;
    the_operator_tries_the_cluster_out(cluster)?;
    pods_reach_each_other(cluster)?;
    what_knode_says(cluster)?;
    a_reboot_fetches_nothing(cluster)
}

/// P55: any machine at any time, in any order.
fn a_node_boots_before_its_master_and_waits(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("node-1")?;
    boots_cleanly(cluster, "node-1")?;
    cluster.import_images("node-1", BOOT)?;
    wait::until("node-1 waiting for the API", BOOT, || {
        let step = cluster.step("node-1", "wait")?;
        let detail = step["detail"].as_str().unwrap_or_default();
        let says =
            detail.contains("https://10.99.0.11:6443") && detail.contains("E-API-UNREACHABLE");
        Ok((step["state"] == "running" && says).then_some(()))
    })?;
    let node = cluster.node("node-1")?;
    let shown = node.exec(&["/opt/knode/bin/knode", "status"])?;
    ensure!(
        shown.code() != 0,
        "not Ready, but exit status 0: {}",
        shown.stdout
    );
    ensure!(
        shown.stdout.contains("E-API-UNREACHABLE"),
        "{}",
        shown.stdout
    );
    let phases = node.exec(&["/opt/knode/bin/knode", "check", "--phase=nodes"])?;
    ensure!(
        phases.code() == 4 && phases.stdout.contains("E-API-UNREACHABLE"),
        "{}: {}",
        phases.code(),
        phases.stdout
    );
    let systemd = node.sh("systemctl show --property=StatusText,ActiveState knode.service")?;
    ensure!(systemd.contains("ActiveState=activating"), "{systemd}");
    ensure!(
        systemd.contains("E-API-UNREACHABLE") || systemd.contains("E-FETCH"),
        "{systemd}"
    );
    Ok(())
}

fn the_others_boot(cluster: &mut Cluster, names: &[&str]) -> Result<()> {
    for name in names {
        cluster.boot(name)?;
    }
    for name in names {
        boots_cleanly(cluster, name)?;
        cluster.import_images(name, BOOT)?;
    }
    Ok(())
}

/// The real cloud-init took the document without a complaint, systemd has no
/// failed unit, knode is the one that was pinned, and nobody may read secrets.
fn boots_cleanly(cluster: &mut Cluster, name: &str) -> Result<()> {
    let node = cluster.node(name)?;
    let status = node.wait_for_cloud_init(BOOT)?;
    ensure!(status.is_clean(), "{name}: {status:?}");
    let schema = node.exec(&["cloud-init", "schema", "--system"])?;
    let said = format!("{}{}", schema.stdout, schema.stderr);
    ensure!(
        schema.success() && said.contains("Valid schema") && !complains(&said),
        "{name}: {said}"
    );
    let failed = node.failed_units()?;
    ensure!(failed.is_empty(), "{name}: {failed:?}");
    wait::until("knode's status", BOOT, || {
        Ok(node.exists("/run/knode/status.json")?.then_some(()))
    })
    .with_context(|| node.journal("knode-bootstrap.service").unwrap_or_default())?;
    let world_readable = node.sh("find /etc/kubernetes /etc/knode -type f -perm /077 \
         \\( -name '*.key' -o -name '*.conf' -o -name 'encryption.yaml' -o -name node.yaml \\)")?;
    ensure!(
        world_readable.is_empty(),
        "{name}: secrets that others may read: {world_readable}"
    );
    let network = cluster.wait_for_step(name, "network", BOOT)?;
    ensure!(network["failures"] == 0, "{network:#}");
    Ok(())
}

/// cloud-init's schema check exits with 0 where it only warns.
fn complains(said: &str) -> bool {
    let said = said.to_lowercase();
    ["warning", "deprecat", "invalid", "error"]
        .iter()
        .any(|word| said.contains(word))
}

fn the_store_of_the_cluster_runs(cluster: &mut Cluster) -> Result<()> {
    cluster.wait_for_step("master", "etcd", BOOT)?;
    let pki = "/etc/kubernetes/pki/etcd";
    let health = cluster.node("master")?.sh(&format!(
        "ETCDCTL_API=3 /opt/kubernetes/bin/etcdctl --endpoints=https://127.0.0.1:2379 \
         --cacert={pki}/ca.crt --cert={pki}/healthcheck-client.crt \
         --key={pki}/healthcheck-client.key endpoint health"
    ))?;
    ensure!(health.contains("is healthy"), "{health}");
    let anonymous = cluster.node("master")?.exec(&[
        "curl",
        "--silent",
        "--cacert",
        &format!("{pki}/ca.crt"),
        "https://127.0.0.1:2379/health",
    ])?;
    ensure!(
        !anonymous.success(),
        "etcd answers without a client certificate: {}",
        anonymous.stdout
    );
    Ok(())
}

/// P55, P57: every phase is met, and each can be asked for alone.
fn the_operator_waits(cluster: &mut Cluster) -> Result<()> {
    let said = cluster.kgen_wait(&["--timeout", "2m"])?.ok()?;
    for part in [
        "API servers              ok       1 of 1: master",
        "kube-scheduler           ok       led by master",
        "node-2                   ok       Ready",
        "node-1                   ok       10.244.1.0/24",
    ] {
        ensure!(said.contains(part), "{part}:\n{said}");
    }
    ensure!(!said.contains("NOT YET"), "{said}");
    let said = cluster.kgen_wait(&["--for", "network", "--json"])?.ok()?;
    let said: Value = serde_json::from_str(&said)?;
    let criteria = said["criteria"].as_array().context("no list")?;
    ensure!(said["ready"] == true && criteria.len() == 3, "{said:#}");
    let said = cluster.kgen_wait(&["--for", "certificates"])?.ok()?;
    ensure!(said.contains("no request waits"), "{said}");
    let missing = cluster.kgen_wait(&["--for=nodes", "--nodes=4", "--timeout=1s"])?;
    ensure!(
        missing.code() == 3,
        "{}: {}",
        missing.code(),
        missing.stdout
    );
    ensure!(
        missing.stdout.contains("NOT YET  3 of 4"),
        "{}",
        missing.stdout
    );
    Ok(())
}

/// P57, P44: a pod runs, a Service is reached by ClusterIP and NodePort, and
/// nothing of it is left.
fn the_operator_tries_the_cluster_out(cluster: &mut Cluster) -> Result<()> {
    let said = cluster.kgen_wait(&["--probe", "--timeout", "3m"])?.ok()?;
    for part in [
        "pods          a pod",
        "services      ClusterIP",
        "services      NodePort of master",
        "services      NodePort of node-2",
        "from here",
    ] {
        ensure!(said.contains(part), "{part}:\n{said}");
    }
    ensure!(!said.contains("NOT YET"), "{said}");
    wait::until("the probe's namespace gone", BOOT, || {
        let namespaces = cluster.get(&[
            "namespaces",
            "--selector=app.kubernetes.io/managed-by=kgen-wait",
        ])?;
        let none = namespaces["items"].as_array().is_some_and(Vec::is_empty);
        Ok(none.then_some(()))
    })?;
    // An image that is nowhere to be had: told why, and taken away all the same.
    let before = std::fs::read_to_string(cluster.path("cluster.yaml"))?;
    let other = before.replace("knode.test/web:1", "knode.test/nowhere:1");
    std::fs::write(cluster.path("cluster.yaml"), other)?;
    let said = cluster.kgen_wait(&["--for=pods", "--timeout=20s"])?;
    std::fs::write(cluster.path("cluster.yaml"), before)?;
    ensure!(said.code() == 3, "{}: {}", said.code(), said.stdout);
    ensure!(
        said.stdout.contains("ImagePull") && said.stdout.contains("nowhere"),
        "{}",
        said.stdout
    );
    Ok(())
}

fn all_are_ready(cluster: &mut Cluster) -> Result<()> {
    for Machine { name, .. } in MACHINES {
        let began = cluster.node(name)?.started();
        wait::until(&format!("{name} Ready"), BOOT, || {
            let status = cluster.status(name)?.unwrap_or_default();
            Ok((status["ready"] == true).then_some(()))
        })
        .with_context(|| {
            format!(
                "status: {:#}",
                cluster.status(name).ok().flatten().unwrap_or_default()
            )
        })?;
        let status = cluster.status(name)?.unwrap_or_default();
        eprintln!(
            "{name}: seen Ready {:.1} s after power-on; {}",
            began.elapsed().as_secs_f64(),
            timing(&status)
        );
    }
    let nodes = cluster.get(&["nodes"])?;
    let items = nodes["items"].as_array().context("no list")?;
    ensure!(items.len() == 3, "{} nodes", items.len());
    for node in items {
        let ready = node["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        ensure!(ready, "not Ready: {node:#}");
    }
    let label = |node: &Value, label: &str| node["metadata"]["labels"].get(label).is_some();
    let master = cluster.get(&["node", "master"])?;
    ensure!(
        master["spec"]["podCIDR"] == "10.244.0.0/24",
        "{:#}",
        master["spec"]
    );
    let taints = master["spec"]["taints"]
        .as_array()
        .context("the master has no taint")?;
    ensure!(
        taints
            .iter()
            .any(|t| t["key"] == "node-role.kubernetes.io/control-plane"
                && t["effect"] == "NoSchedule"),
        "{taints:#?}"
    );
    wait::until("role labels", BOOT, || {
        let master = cluster.get(&["node", "master"])?;
        let node = cluster.get(&["node", "node-2"])?;
        let both = label(&master, "node-role.kubernetes.io/control-plane")
            && label(&node, "node-role.kubernetes.io/node");
        Ok(both.then_some(()))
    })
}

/// P26 to P29, B10: what the kernel of each machine holds.
fn the_network_is_as_wanted(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("node-1")?;
    let addresses = node.sh("ip -4 -oneline address show dev cbr0")?;
    ensure!(addresses.contains("10.244.1.1/24"), "{addresses}");
    let routes = node.sh("ip -4 route")?;
    for route in [
        "10.244.0.0/24 via 10.99.0.11",
        "10.244.2.0/24 via 10.99.0.13",
    ] {
        ensure!(routes.contains(route), "no {route} in {routes}");
    }
    let rules = node.sh("nft list table inet knode")?;
    ensure!(
        rules.contains("masquerade") && rules.contains("169.254.169.254"),
        "{rules}"
    );
    ensure!(node.read_file("/proc/sys/net/ipv4/ip_forward")?.trim() == "1");
    Ok(())
}

fn pods_reach_each_other(cluster: &mut Cluster) -> Result<()> {
    let pod = |name: &str, node: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never"}],
            },
        })
    };
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let list = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [pod("web-1", "node-1"), pod("web-2", "node-2"), service],
    });
    // The controller manager makes the service account that pods need.
    wait::until("objects accepted", BOOT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &list.to_string())?;
        Ok(applied.success().then_some(()))
    })?;
    let address = |cluster: &Cluster, name: &str| {
        wait::until(&format!("{name} running"), BOOT, || {
            let pod = cluster.get(&["pod", name])?;
            let running = pod["status"]["containerStatuses"][0]["ready"] == true;
            Ok(running.then(|| {
                pod["status"]["podIP"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            }))
        })
        .with_context(|| {
            cluster
                .kubectl(&["describe", "pod", name], "")
                .map(|o| o.stdout)
                .unwrap_or_default()
        })
    };
    let first = address(cluster, "web-1")?;
    let second = address(cluster, "web-2")?;
    ensure!(
        first.starts_with("10.244.1.") && second.starts_with("10.244.2."),
        "{first} {second}"
    );
    let get = |cluster: &Cluster, url: &str| {
        wait::until(
            &format!("{url} from a pod"),
            Duration::from_secs(30),
            || {
                let got = cluster.kubectl(&["exec", "web-1", "--", "/web", "get", url], "")?;
                Ok(got.success().then_some(got.stdout))
            },
        )
    };
    let answer = get(cluster, &format!("http://{second}:8080/"))?;
    ensure!(answer.contains("hostname web-2"), "{answer}");
    ensure!(
        answer.contains(&format!("client {first}")),
        "masqueraded between pods: {answer}"
    );
    let service = cluster.get(&["service", "web"])?;
    let virtual_ip = service["spec"]["clusterIP"]
        .as_str()
        .context("no cluster IP")?;
    let answer = get(cluster, &format!("http://{virtual_ip}/"))?;
    ensure!(answer.contains("hostname web-"), "{answer}");
    let logs = cluster.kubectl(&["logs", "web-2"], "")?.ok()?;
    ensure!(logs.contains("listening on"), "{logs}");
    Ok(())
}

fn what_knode_says(cluster: &mut Cluster) -> Result<()> {
    for Machine { name, .. } in MACHINES {
        let node = cluster.node(name)?;
        let shown = node.exec(&["/opt/knode/bin/knode", "status"])?;
        ensure!(shown.code() == 0, "{name}: {}", shown.stdout);
        eprint!("{}", shown.stdout);
        // P55: each phase alone, by its own criterion.
        for phase in [
            "certificates",
            "masters",
            "nodes",
            "network",
            "daemons",
            "add-ons",
        ] {
            let command = ["/opt/knode/bin/knode", "check", "--phase", phase];
            let shown = node.exec(&command)?;
            ensure!(shown.code() == 0, "{name}: {phase}: {}", shown.stdout);
        }
        // READY=1 came, so systemd has nothing more to start.
        let system = node.wait_for_system(BOOT)?;
        ensure!(system == System::Running, "{name}: {system:?}");
        let state = node.sh("systemctl is-active knode.service kubelet.service kube-proxy.service containerd.service")?;
        ensure!(
            state.lines().all(|line| line == "active"),
            "{name}: {state}"
        );
        let restarts =
            node.sh("systemctl show --property=NRestarts knode.service kubelet.service")?;
        ensure!(
            !restarts.contains(|c: char| ('1'..='9').contains(&c)),
            "{name}: {restarts}"
        );
    }
    Ok(())
}

/// F12: nothing depends on the first run, and nothing is downloaded twice.
fn a_reboot_fetches_nothing(cluster: &mut Cluster) -> Result<()> {
    let asked = cluster.server.log().len();
    let began = Instant::now();
    cluster.node("node-1")?.reboot()?;
    wait::until("node-1 Ready after its reboot", BOOT, || {
        let status = cluster.status("node-1")?.unwrap_or_default();
        Ok((status["ready"] == true).then_some(()))
    })?;
    let status = cluster.status("node-1")?.unwrap_or_default();
    eprintln!(
        "node-1: rebooted and Ready in {:.1} s; {}",
        began.elapsed().as_secs_f64(),
        timing(&status)
    );
    ensure!(
        cluster.server.log().len() == asked,
        "downloaded again: {:?}",
        cluster.server.log()
    );
    Ok(())
}

/// Where the time went, from the node's own status.
fn timing(status: &Value) -> String {
    let steps = status["steps"].as_array();
    let spans: Vec<String> = steps
        .into_iter()
        .flatten()
        .map(|s| {
            format!(
                "{} {:.1}+{:.1}",
                s["name"].as_str().unwrap_or_default(),
                s["began"].as_f64().unwrap_or_default(),
                s["took"].as_f64().unwrap_or_default()
            )
        })
        .collect();
    format!(
        "knode {:.1} s ({})",
        status["readyAfter"].as_f64().unwrap_or_default(),
        spans.join(", ")
    )
}
