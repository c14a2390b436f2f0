//! A node's boot with everything downloaded (R7), and knode at rest (R8).
//!
//! `cargo bench --profile dev --package tests --bench boot` prints a table (the
//! programs are from the release profile all the same); `-- --json` prints
//! JSON. Needs what the tests on nodes need, and `$KUBE_BIN_DIR`.
//!
//! The peer is what people put into user-data: a shell script that makes the
//! same bridge, overlay, rules and CNI list, waits for the same answers,
//! registers the same labels and starts the same kubelet, on the same machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::{report, wait};

const MASTER: &str = "master";
const NODE: &str = "node-1";
const MACHINES: [Machine; 2] = [Machine::new(MASTER, "master"), Machine::new(NODE, "node")];
const LIMIT: Duration = Duration::from_secs(300);
/// Boots of each, the first of which is not counted.
const BOOTS: usize = 6;
const SETTLED: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_secs(120);

/// Stands where knode stands; `peer.sh` is beside this file.
const PEER_UNIT: &str = "\
[Unit]
After=knode-bootstrap.service network.target
[Service]
Type=oneshot
ExecStart=/bin/sh /root/peer.sh
[Install]
WantedBy=multi-user.target
";
const PEER: &str = include_str!("boot/peer.sh");

fn main() -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip("boot", &reason);
        return Ok(());
    }
    let mut cluster = Cluster::new(&MACHINES)?;
    if !cluster.has_kubernetes() {
        report::skip("boot", "no Kubernetes binaries in $KUBE_BIN_DIR");
        return Ok(());
    }
    for machine in [MASTER, NODE] {
        cluster.boot(machine)?;
        cluster.import_images(machine, LIMIT)?;
    }
    for machine in [MASTER, NODE] {
        cluster.wait_until_ready(machine, LIMIT)?;
    }
    std::thread::sleep(SETTLED);
    let (master, node) = (at_rest(&mut cluster, MASTER)?, at_rest(&mut cluster, NODE)?);
    let mut ours = Vec::new();
    let mut worked = Vec::new();
    for _ in 0..BOOTS {
        let boot = reboot(&mut cluster, "knode.service")?;
        cluster.wait_until_ready(NODE, LIMIT)?;
        let status = cluster.status(NODE)?.unwrap_or_default();
        worked.push(status["worked"].as_f64().context("no word of its work")? * 1000.0);
        ours.push(boot);
    }
    the_peer_stands_in(&mut cluster)?;
    let mut peer = Vec::new();
    for _ in 0..BOOTS {
        peer.push(reboot(&mut cluster, "peer.service")?);
    }
    let outcome = json!({
        "R7": {
            "knodeMilliseconds": median(&ours),
            "shellMilliseconds": median(&peer),
            "knodeProcessorMilliseconds": median(&worked),
            "goalMilliseconds": 150,
            "boots": BOOTS - 1,
        },
        "R8": {"master": master, "node": node, "goal": {"mebibytes": 12, "percentOfACore": 0.1}},
    });
    if std::env::args().any(|argument| argument == "--json") {
        println!("{outcome:#}");
        return Ok(());
    }
    println!("| | knode | shell script | goal |\n|---|---|---|---|");
    println!(
        "| R7: exec to the kubelet's exec, everything downloaded | {:.0} ms | {:.0} ms | 150 ms |",
        median(&ours),
        median(&peer)
    );
    println!(
        "| R7: knode's own processor time until Ready | {:.0} ms | - | - |",
        median(&worked)
    );
    for (name, rest) in [("master", &master), ("node", &node)] {
        println!(
            "| R8: at rest on a {name}, {} s | {:.1} MiB, {:.3} % of a core | - | 12 MiB, 0.1 % |",
            REST.as_secs(),
            rest["mebibytes"].as_f64().unwrap_or_default(),
            rest["percentOfACore"].as_f64().unwrap_or_default()
        );
    }
    Ok(())
}

/// Milliseconds from a unit's exec to the kubelet's, by systemd's own clock.
fn reboot(cluster: &mut Cluster, unit: &str) -> Result<f64> {
    cluster.node(NODE)?.reboot()?;
    let node = cluster.node(NODE)?;
    let show = "systemctl show --value --property=ExecMainStartTimestampMonotonic";
    let began = wait::until("the kubelet's exec", LIMIT, || {
        let said = node.sh(&format!("{show} {unit} && {show} kubelet.service"))?;
        let times: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
        Ok(match times[..] {
            [unit, kubelet] if kubelet > unit && unit > 0 => Some(kubelet - unit),
            _ => None,
        })
    })?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "minutes at most, in microseconds"
    )]
    Ok(began as f64 / 1000.0)
}

/// From now on the script boots the machine, with what only knode can know
/// written into it.
fn the_peer_stands_in(cluster: &mut Cluster) -> Result<()> {
    let pod_range = cluster.get(&["node", NODE])?["spec"]["podCIDR"].clone();
    let pod_range = pod_range.as_str().context("the Node has no range")?;
    let (base, _) = pod_range.rsplit_once('.').context("no IPv4 range")?;
    let node = cluster.node(NODE)?;
    let server = node.sh("sed -n 's/^ *server: *//p' /etc/kubernetes/kubelet.conf")?;
    let script = PEER
        .replace("@POD_RANGE@", pod_range)
        .replace("@BRIDGE@", &format!("{base}.1"))
        .replace("@SERVER@", server.trim())
        .replace("@NAME@", NODE);
    node.write_file("/root/peer.sh", script.as_bytes())?;
    node.write_file("/etc/systemd/system/peer.service", PEER_UNIT.as_bytes())?;
    node.sh(
        "cp /run/knode/kubelet.env /run/knode/kube-proxy.env /root/; \
         systemctl disable knode.service; rm /etc/systemd/system/knode.service; \
         systemctl mask knode.service; systemctl enable peer.service",
    )?;
    Ok(())
}

/// Memory now, and the processor's time over [`REST`].
fn at_rest(cluster: &mut Cluster, machine: &str) -> Result<Value> {
    let node = cluster.node(machine)?;
    let pid = node.sh("systemctl show --value --property=MainPID knode.service")?;
    let pid = pid.trim().to_owned();
    // Nanoseconds on a processor. Source: kernel doc, scheduler/sched-stats.
    let used = || -> Result<f64> {
        let text = node.read_file(&format!("/proc/{pid}/schedstat"))?;
        let first = text.split(' ').next().unwrap_or_default();
        first.parse().context("reading schedstat")
    };
    let (before, began) = (used()?, Instant::now());
    std::thread::sleep(REST);
    let share = (used()? - before) / 1e9 / began.elapsed().as_secs_f64();
    let memory = node.sh(&format!(
        "awk '/^VmRSS:/ {{ print $2 }}' /proc/{pid}/status"
    ))?;
    let memory: f64 = memory.trim().parse().context("reading VmRSS")?;
    ensure!(share > 0.0, "it used no time at all");
    Ok(json!({"mebibytes": memory / 1024.0, "percentOfACore": share * 100.0}))
}

/// Without the first, which warms what is cached.
fn median(all: &[f64]) -> f64 {
    let mut counted = all.get(1..).unwrap_or_default().to_vec();
    counted.sort_by(f64::total_cmp);
    counted.get(counted.len() / 2).copied().unwrap_or(f64::NAN)
}
