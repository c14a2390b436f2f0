//! Three masters without anything before them, and two nodes: each machine's
//! balancer is its way to all of them (B7).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Machine};
use tests::node::Node;
use tests::scenario::with_kubernetes;
use tests::wait;

const MACHINES: [Machine; 5] = [
    Machine::new("master-1", "master"),
    Machine::new("master-2", "master"),
    Machine::new("master-3", "master"),
    Machine::new("node-1", "node"),
    Machine::new("node-2", "node"),
];
const LIMIT: Duration = Duration::from_secs(300);
/// Longer than the controller manager waits for a kubelet's word: 50 s.
const WATCHED: Duration = Duration::from_secs(70);
/// What the operator's machine speaks to, which has no balancer.
const SURVIVOR: &str = "--server=https://10.99.0.12:6443";

/// Writes one object after the other through the node's balancer. A write that
/// is not acknowledged is tried again, as every client of Kubernetes does.
const WRITER: &str = r#"
cd /run/writer
number=0
while [ ! -e stop ]; do
  number=$((number + 1))
  body='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"w-'$number'"}}'
  while :; do
    code=$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 15 \
      --cacert ca.crt --cert client.crt --key client.key \
      --header 'Content-Type: application/json' --data "$body" \
      https://127.0.0.1:7443/api/v1/namespaces/default/configmaps) || true
    case $code in
      201|409) break ;;
      *) echo "$(date +%s.%N) w-$number $code" >>retries; sleep 0.2 ;;
    esac
  done
  echo "$(date +%s.%N) w-$number" >>acknowledged
done
"#;

#[test]
fn b7_three_masters_without_an_endpoint() -> Result<()> {
    const NAME: &str = "b7_three_masters_without_an_endpoint";
    with_kubernetes(NAME, || Cluster::new(&MACHINES), masters)
}

fn masters(cluster: &mut Cluster) -> Result<()> {
    for Machine { name, .. } in MACHINES {
        cluster.boot(name)?;
    }
    for Machine { name, .. } in MACHINES {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    all_servers_healthy(cluster, "node-1")?;
    f16_a_half_open_watch_ends_in_time(cluster)?;
    a_writer_begins(cluster)?;
    a_restart_of_knode_refuses_nobody(cluster)?;
    a_master_vanishes(cluster)?;
    it_comes_back(cluster)?;
    every_acknowledged_write_is_there(cluster)
}

/// The node knows the three of the settings, and that they are all.
fn all_servers_healthy(cluster: &mut Cluster, name: &str) -> Result<()> {
    wait::until("three healthy API servers", LIMIT, || {
        let status = cluster.status(name)?.unwrap_or_default();
        let servers = status["apiServers"].as_array().cloned();
        let servers = servers.unwrap_or_default();
        let healthy = servers.iter().filter(|s| s["health"] == "healthy").count();
        Ok((healthy == 3 && servers.len() == 3).then_some(()))
    })?;
    // What the cluster says of itself is kept for a boot without these masters.
    let kept = wait::until("the list of API servers", LIMIT, || {
        let path = "/var/lib/knode/api-servers.json";
        let node = cluster.node(name)?;
        if !node.exists(path)? {
            return Ok(None);
        }
        let kept: Vec<String> = serde_json::from_str(&node.read_file(path)?)?;
        Ok((kept.len() == 3).then_some(kept))
    })?;
    ensure!(kept.contains(&"10.99.0.13:6443".to_owned()), "{kept:?}");
    Ok(())
}

/// No packet of one master comes or goes any more, and nobody is told: what was open through the
/// balancer ends, so that its client asks another one, and the rest stays open.
fn f16_a_half_open_watch_ends_in_time(cluster: &mut Cluster) -> Result<()> {
    const WATCHES: usize = 6;
    /// Noticed after 3 seconds without an answer and a second look; then closed.
    const CLOSED: Duration = Duration::from_secs(20);
    cluster.operator_on("node-1", "/run/writer")?;
    let node = cluster.node("node-1")?;
    node.sh(&format!(
        "cd /run/writer; for number in $(seq {WATCHES}); do \
           systemd-run --quiet --unit=watch-$number --collect \
             curl --silent --no-buffer --output watch-$number \
             --cacert $PWD/ca.crt --cert $PWD/client.crt --key $PWD/client.key \
             'https://127.0.0.1:7443/api/v1/configmaps?watch=1&timeoutSeconds=600'; \
         done"
    ))?;
    let runs = |node: &Node| -> Result<usize> {
        let list = node.sh("systemctl list-units --plain --no-legend 'watch-*'")?;
        Ok(list.lines().count())
    };
    let to = |node: &Node, address: &str| -> Result<usize> {
        let open = format!("ss -Htn state established dst {address} dport = :6443");
        Ok(node.sh(&open)?.lines().count())
    };
    // Six watches, and what kubelet and kube-proxy have open.
    wait::until("watches at every master", LIMIT, || {
        let mut all = 0;
        for address in ["10.99.0.11", "10.99.0.12", "10.99.0.13"] {
            let open = to(node, address)?;
            ensure!(open > 1, "{open} connections to {address}");
            all += open;
        }
        Ok((all >= WATCHES + 2 && runs(node)? == WATCHES).then_some(()))
    })?;
    node.sh("nft add table inet cut; \
         nft add chain inet cut out '{ type filter hook output priority 0; }'; \
         nft add rule inet cut out ip daddr 10.99.0.11 drop; \
         nft add chain inet cut in '{ type filter hook input priority 0; }'; \
         nft add rule inet cut in ip saddr 10.99.0.11 drop")?;
    let cut = Instant::now();
    // A socket that the kernel goes on trying to close is no longer of this state.
    wait::until("the end of what was open to it", CLOSED, || {
        Ok((to(node, "10.99.0.11")? == 0).then_some(()))
    })?;
    let left = runs(node)?;
    eprintln!(
        "half open connections closed {:.1} s after the cut; {left} of {WATCHES} watches go on",
        cut.elapsed().as_secs_f64()
    );
    ensure!(left < WATCHES, "no watch ended");
    ensure!(left > 0, "the others' watches ended too");
    let asked = node.sh(
        "curl --silent --max-time 5 --cacert /run/writer/ca.crt https://127.0.0.1:7443/readyz",
    )?;
    ensure!(asked == "ok", "{asked}");
    node.sh("nft delete table inet cut; systemctl stop 'watch-*'")?;
    all_servers_healthy(cluster, "node-1")
}

/// The operator's identity, where the node's curl finds it.
fn a_writer_begins(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("node-1")?;
    node.write_file("/run/writer/writer.sh", WRITER.as_bytes())?;
    node.sh("systemd-run --unit=writer --collect sh -eu /run/writer/writer.sh")?;
    wait::until("twenty writes", LIMIT, || {
        Ok((acknowledged(cluster)?.len() >= 20).then_some(()))
    })
}

/// When, and which.
fn acknowledged(cluster: &mut Cluster) -> Result<Vec<(f64, String)>> {
    let node = cluster.node("node-1")?;
    let text = node.sh("cat /run/writer/acknowledged 2>/dev/null || true")?;
    let line = |line: &str| {
        let (when, name) = line.split_once(' ')?;
        Some((when.parse().ok()?, name.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// systemd keeps the balancer's port open while there is no knode.
fn a_restart_of_knode_refuses_nobody(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("node-1")?;
    let refused = node.sh(r#"
        systemctl restart knode.service --no-block
        refused=0
        for number in $(seq 30); do
          status=0
          curl --silent --output /dev/null --max-time 10 --cacert /run/writer/ca.crt \
            https://127.0.0.1:7443/readyz || status=$?
          # curl(1): 7, failed to connect to host.
          [ "$status" != 7 ] || refused=$((refused + 1))
          sleep 0.02
        done
        echo "$refused""#)?;
    ensure!(refused.trim() == "0", "refused {} times", refused.trim());
    let shown = node.sh("systemctl show --property=NFileDescriptorStore knode.service")?;
    ensure!(shown.trim() == "NFileDescriptorStore=1", "{shown}");
    cluster.wait_until_ready("node-1", LIMIT)
}

/// Without a word: no packet of it is ever seen again.
fn a_master_vanishes(cluster: &mut Cluster) -> Result<()> {
    let before = acknowledged(cluster)?.len();
    cluster.node("master-1")?.kill()?;
    let gone = Instant::now();
    let survivors = ["master-2", "master-3", "node-1", "node-2"];
    while gone.elapsed() < WATCHED {
        if let Ok(nodes) = cluster.get(&["nodes", SURVIVOR]) {
            for node in nodes["items"].as_array().into_iter().flatten() {
                let name = node["metadata"]["name"].as_str().unwrap_or_default();
                ensure!(
                    !survivors.contains(&name) || is_ready(node),
                    "{name} is not Ready {:?} after the loss: {node:#}",
                    gone.elapsed()
                );
            }
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    let writes = acknowledged(cluster)?;
    ensure!(writes.len() > before + 20, "{} writes", writes.len());
    let pause = writes.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let longest = pause.fold(0.0, f64::max);
    let node = cluster.node("node-1")?;
    let retries = node.sh("cat /run/writer/retries 2>/dev/null || true")?;
    eprintln!(
        "a master vanished: {} writes since, the longest pause {longest:.1} s, {} retries",
        writes.len() - before,
        retries.lines().count()
    );
    // etcd elects in about a second, the balancer tries elsewhere after two.
    ensure!(
        longest < 30.0,
        "{longest} s without a write; retries: {retries}"
    );
    let shown = node.exec(&["/opt/knode/bin/knode", "status"])?;
    ensure!(
        shown.stdout.contains("10.99.0.11:6443  OUT"),
        "{}",
        shown.stdout
    );
    Ok(())
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn it_comes_back(cluster: &mut Cluster) -> Result<()> {
    cluster.node("master-1")?.start()?;
    cluster.wait_until_ready("master-1", LIMIT)?;
    all_servers_healthy(cluster, "node-1")
}

fn every_acknowledged_write_is_there(cluster: &mut Cluster) -> Result<()> {
    cluster.node("node-1")?.sh("touch /run/writer/stop")?;
    let writes = acknowledged(cluster)?;
    let list = cluster.get(&["configmaps", SURVIVOR])?;
    let there: BTreeSet<&str> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    let lost: Vec<&str> = writes
        .iter()
        .map(|(_, name)| name.as_str())
        .filter(|name| !there.contains(name))
        .collect();
    ensure!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    Ok(())
}
