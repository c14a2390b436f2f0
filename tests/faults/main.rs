//! A master and a node to which happens what happens in the field, one thing after the
//! other, while a pod runs on the node: docs/failure-modes.md has the list.

mod network;
mod power;
mod services;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::node::Node;
use tests::scenario::with_kubernetes;
use tests::wait;

const MASTER: &str = "master";
const NODE: &str = "node-1";
const MACHINES: [Machine; 2] = [Machine::new(MASTER, "master"), Machine::new(NODE, "node")];
const LIMIT: Duration = Duration::from_secs(240);
/// What lives through all that is done to knode, the runtime and the network.
const SERVICES: [&str; 3] = ["kubelet", "kube-proxy", "containerd"];
/// A file of the test's for a unit; /run goes with the power.
const DROP_IN: &str = "99-test.conf";

#[test]
fn faults() -> Result<()> {
    with_kubernetes("faults", || Cluster::new(&MACHINES), one_after_the_other)
}

type Fault = fn(&mut Cluster) -> Result<()>;

fn one_after_the_other(cluster: &mut Cluster) -> Result<()> {
    let faults: [(&str, Fault); 11] = [
        (
            "b3_f12_power_lost_and_knode_killed_at_every_step_of_the_first_boot",
            power::b3_f12_power_lost_and_knode_killed_at_every_step_of_the_first_boot,
        ),
        ("a_pod_runs", a_pod_runs),
        (
            "f25_a_killed_knode_and_another_one_adopt_what_runs",
            services::f25_a_killed_knode_and_another_one_adopt_what_runs,
        ),
        (
            "f10_networkd_restarts_and_takes_nothing",
            network::f10_networkd_restarts_and_takes_nothing,
        ),
        (
            "f17_a_kubelet_that_is_slow_once_is_let_be",
            services::f17_a_kubelet_that_is_slow_once_is_let_be,
        ),
        (
            "f18_twenty_crashes_are_followed_by_a_start",
            services::f18_twenty_crashes_are_followed_by_a_start,
        ),
        (
            "f21_the_pause_image_alone_is_pinned",
            services::f21_the_pause_image_alone_is_pinned,
        ),
        (
            "f29_a_lost_api_server_stops_nothing_and_is_told_once",
            network::f29_a_lost_api_server_stops_nothing_and_is_told_once,
        ),
        (
            "f23_leases_of_lost_pods_use_up_the_range",
            power::f23_leases_of_lost_pods_use_up_the_range,
        ),
        (
            "f4_f13_f23_power_lost_files_emptied_and_a_slow_runtime",
            power::f4_f13_f23_power_lost_files_emptied_and_a_slow_runtime,
        ),
        (
            "nothing_was_restarted_by_knode",
            nothing_was_restarted_by_knode,
        ),
    ];
    for (name, fault) in faults {
        let began = Instant::now();
        fault(cluster).context(name)?;
        eprintln!("{name}: {:.1} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}

/// On the node, without the scheduler.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never"},
            ],
        },
    })
}

fn create(cluster: &Cluster, name: &str) -> Result<()> {
    wait::until(&format!("{name} accepted"), LIMIT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &pod(name).to_string())?;
        Ok(applied.success().then_some(()))
    })
}

/// Waits until it runs and answers, over the pods' network; says where.
fn answers(cluster: &mut Cluster, name: &str) -> Result<String> {
    wait::until(&format!("an answer of {name}"), LIMIT, || {
        let pod = cluster.get(&["pod", name])?;
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        if !ready || address.is_empty() {
            return Ok(None);
        }
        let url = format!("http://{address}:8080/");
        let node = cluster.node(MASTER)?;
        let said = node.sh(&format!("curl --silent --fail --max-time 3 {url}"))?;
        Ok(said
            .contains(&format!("hostname {name}"))
            .then(|| address.to_owned()))
    })
}

fn a_pod_runs(cluster: &mut Cluster) -> Result<()> {
    create(cluster, "web-1")?;
    answers(cluster, "web-1").map(|_| ())
}

/// A property of a unit, as systemd shows it.
fn property(node: &Node, unit: &str, name: &str) -> Result<String> {
    let shown = node.sh(&format!("systemctl show --property={name} --value {unit}"))?;
    Ok(shown.trim().to_owned())
}

/// Lays lines over a unit until the machine goes off; none removes them.
fn unit_file(node: &Node, unit: &str, text: &str) -> Result<()> {
    let path = format!("/run/systemd/system/{unit}.service.d/{DROP_IN}");
    node.write_file(&path, text.as_bytes())?;
    node.sh("systemctl daemon-reload").map(|_| ())
}

/// The process numbers of what must not be disturbed: services, the pod's
/// program, and what holds the pod.
fn processes(node: &Node) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for service in SERVICES {
        let number = property(node, service, "MainPID")?;
        ensure!(number != "0", "{service} does not run");
        all.push(format!("{service} {number}"));
    }
    for program in ["web", "pause"] {
        let numbers = node.sh(&format!("pidof {program} | tr ' ' '\\n' | sort -n"))?;
        all.push(format!("{program} {}", numbers.replace('\n', " ")));
    }
    Ok(all)
}

fn service(cluster: &mut Cluster, name: &str) -> Result<Value> {
    let status = cluster.status(NODE)?.unwrap_or_default();
    let services = status["services"].as_array();
    let found = services.into_iter().flatten().find(|s| s["name"] == name);
    Ok(found.cloned().unwrap_or_default())
}

/// F17, F29: whatever was done above, nothing that ran was held to be broken.
fn nothing_was_restarted_by_knode(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(NODE)?;
    let evidence = node.sh("ls /var/lib/knode/evidence 2>/dev/null || :")?;
    let of_crashes = |line: &&str| !line.ends_with("-kube-proxy");
    let other: Vec<&str> = evidence.lines().filter(of_crashes).collect();
    ensure!(other.is_empty(), "{other:?}");
    Ok(())
}
