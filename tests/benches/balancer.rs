//! What a node's balancer costs before a real API server (R10).
//!
//! `cargo bench --profile dev --package tests --bench balancer` prints a table
//! (the programs are from the release profile all the same); `-- --json` prints
//! JSON. Needs what the tests on nodes need, and `$KUBE_BIN_DIR`.
//!
//! One client on a node asks its master directly and by the balancer's port, by
//! turns, over a connection that is kept: many small answers for the latency, and
//! long lists for the throughput. The peer is HAProxy on the same node, with one
//! thread and splice(2) as well. `cargo bench -p knode --bench balancer` is the
//! same without an API server: what is passed on there comes as fast as this
//! machine's memory gives it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::node::Node;
use tests::{report, wait};

const MASTER: &str = "master";
const NODE: &str = "node-1";
const MACHINES: [Machine; 2] = [Machine::new(MASTER, "master"), Machine::new(NODE, "node")];
const LIMIT: Duration = Duration::from_secs(300);
const SETTLED: Duration = Duration::from_secs(30);
const BALANCER: &str = "127.0.0.1:7443";
const PEER: &str = "127.0.0.1:7444";
const PEER_CONFIG: &str = "\
global
 nbthread 1
defaults
 mode tcp
 option splice-auto
 timeout connect 2s
 timeout client 60s
 timeout server 60s
listen peer
 bind @PEER@
 server master @MASTER@
";
/// How often each way is measured.
const RUNS: usize = 15;
/// Small answers of one run.
const SMALL: usize = 500;
/// Lists of one run.
const LISTS: usize = 3;
/// What is listed: so many ConfigMaps of so many bytes.
const OBJECTS: usize = 400;
const BYTES: usize = 50_000;
/// Where the client's credentials are.
const FOLDER: &str = "/run/operator";

fn main() -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip("balancer", &reason);
        return Ok(());
    }
    let mut cluster = Cluster::new(&MACHINES)?;
    if !cluster.has_kubernetes() {
        report::skip("balancer", "no Kubernetes binaries in $KUBE_BIN_DIR");
        return Ok(());
    }
    cluster.configure("balancer: true\n")?;
    cluster.install(&["haproxy"]);
    for machine in [MASTER, NODE] {
        cluster.boot(machine)?;
    }
    for machine in [MASTER, NODE] {
        cluster.import_images(machine, LIMIT)?;
        cluster.wait_until_ready(machine, LIMIT)?;
    }
    let objects = objects();
    cluster.kubectl(&["create", "-f", "-"], &objects)?.ok()?;
    cluster.operator_on(NODE, FOLDER)?;
    let master = format!("{}:6443", cluster.node(MASTER)?.address());
    let node = cluster.node(NODE)?;
    let config = PEER_CONFIG.replace("@PEER@", PEER);
    let config = config.replace("@MASTER@", &master);
    node.write_file("/run/operator/haproxy.cfg", config.as_bytes())?;
    node.sh("systemd-run --unit=peer haproxy -db -f /run/operator/haproxy.cfg")?;
    wait::until("an API server behind the peer", LIMIT, || {
        Ok(small(node, PEER).ok())
    })?;
    wait::until("a healthy API server behind the balancer", LIMIT, || {
        Ok(small(node, BALANCER).ok())
    })?;
    std::thread::sleep(SETTLED);
    let latency = by_turns(|server| small(node, server), &master)?;
    let throughput = by_turns(|server| lists(node, server), &master)?;
    let outcome = json!({
        "runs": RUNS,
        "latencyMicroseconds": latency,
        "throughputMegabytesPerSecond": throughput,
        "goal": {"moreMicroseconds": 50, "ofDirect": 0.9},
    });
    if std::env::args().any(|argument| argument == "--json") {
        println!("{outcome:#}");
        return Ok(());
    }
    println!(
        "| R10, a real API server | direct | balanced | more | of direct | by HAProxy | more | of direct | goal |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    row("latency of a small answer, µs", &latency, "50 µs more");
    row("throughput of lists, MB/s", &throughput, "0.9 of direct");
    Ok(())
}

/// ConfigMaps, as JSON.
fn objects() -> String {
    let items: Vec<Value> = (0..OBJECTS)
        .map(|number| {
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": format!("listed-{number}")},
                "data": {"text": "0123456789".repeat(BYTES / 10)},
            })
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Medians of all ways, measured by turns.
fn by_turns(measure: impl Fn(&str) -> Result<f64>, master: &str) -> Result<Value> {
    let (mut direct, mut balanced, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        direct.push(measure(master)?);
        balanced.push(measure(BALANCER)?);
        peer.push(measure(PEER)?);
    }
    Ok(json!({
        "direct": median(direct)?,
        "balanced": median(balanced)?,
        "haproxy": median(peer)?,
    }))
}

/// The median time of small answers, in microseconds, once there is a connection.
fn small(node: &Node, server: &str) -> Result<f64> {
    // Answered without etcd, whose disk would be measured.
    let path = format!("/livez/ping?n=[1-{SMALL}]");
    let times = asked(node, server, &path, "%{time_total}\\n")?;
    let times: Vec<f64> = times.lines().filter_map(|line| line.parse().ok()).collect();
    ensure!(times.len() == SMALL, "{} answers", times.len());
    // The first of them makes the connection.
    Ok(median(times.get(1..).unwrap_or_default().to_vec())? * 1e6)
}

/// How fast lists come, in megabytes a second, once there is a connection.
fn lists(node: &Node, server: &str) -> Result<f64> {
    // From the API server's memory, as controllers list.
    let path = format!("/api/v1/namespaces/default/configmaps?resourceVersion=0&n=[0-{LISTS}]");
    let told = asked(node, server, &path, "%{size_download} %{time_total}\\n")?;
    let rates = told.lines().map(|line| {
        let (bytes, seconds) = line.split_once(' ').context("two numbers")?;
        let (bytes, seconds): (f64, f64) = (bytes.parse()?, seconds.parse()?);
        ensure!(bytes > (OBJECTS * BYTES) as f64, "a list of {bytes} bytes");
        Ok(bytes / seconds / 1e6)
    });
    let rates: Vec<f64> = rates.collect::<Result<_>>()?;
    median(rates.get(1..).unwrap_or_default().to_vec())
}

/// Gets all that the path stands for, over one connection; a line of each.
fn asked(node: &Node, server: &str, path: &str, told: &str) -> Result<String> {
    node.sh(&format!(
        "curl --silent --show-error --fail --http1.1 --output /dev/null --cacert {FOLDER}/ca.crt \
         --cert {FOLDER}/client.crt --key {FOLDER}/client.key --write-out '{told}' 'https://{server}{path}'"
    ))
}

fn row(what: &str, outcome: &Value, goal: &str) {
    let number = |key: &str| outcome[key].as_f64().unwrap_or_default();
    let direct = number("direct");
    let way = |key: &str| {
        let value = number(key);
        format!("{value:.1} | {:.1} | {:.2}", value - direct, value / direct)
    };
    println!(
        "| {what} | {direct:.1} | {} | {} | {goal} |",
        way("balanced"),
        way("haproxy")
    );
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied();
    middle.context("nothing was measured")
}
