//! The machine's network manager restarts, and the API server is away.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::Cluster;
use tests::node::Node;
use tests::wait;

use super::{LIMIT, MACHINES, MASTER, NODE, answers, processes, property, service};

/// networkd forgets nothing of ours: no route and no address is removed, not for a moment.
pub fn f10_networkd_restarts_and_takes_nothing(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(NODE)?;
    let look = "ip route; ip -oneline address show dev cbr0 | sed 's/ *valid_lft.*//'";
    let before = node.sh(look)?;
    ensure!(
        before.contains("10.244.0.0/24 via 10.99.0.11") && before.contains("10.244.1.1/24"),
        "{before}"
    );
    node.sh("systemd-run --unit=ear --collect sh -c 'exec ip monitor address route >/run/heard'")?;
    let old = property(node, "systemd-networkd", "MainPID")?;
    for restart in ["networkctl reload", "systemctl restart systemd-networkd"] {
        node.sh(restart)?;
        node.sh("/usr/lib/systemd/systemd-networkd-wait-online --interface=host0 --timeout=30")?;
        std::thread::sleep(Duration::from_secs(2));
    }
    ensure!(property(node, "systemd-networkd", "MainPID")? != old);
    let heard = node.sh("systemctl stop ear; cat /run/heard")?;
    let lost = |line: &&str| line.contains("Deleted") && line.contains("10.244.");
    let lost: Vec<&str> = heard.lines().filter(lost).collect();
    ensure!(lost.is_empty(), "{lost:?}");
    let after = node.sh(look)?;
    for line in before.lines().filter(|line| line.contains("10.244.")) {
        ensure!(after.contains(line), "no {line} in {after}");
    }
    let bridge = node.sh("networkctl list cbr0 --no-legend")?;
    ensure!(bridge.contains("unmanaged"), "{bridge}");
    answers(cluster, "web-1").map(|_| ())
}

/// What knode wrote to its journal since a moment of the machine's clock.
fn lines_since(node: &Node, since: &str) -> Result<Vec<String>> {
    let journal = format!("journalctl --no-pager --output=cat -u knode --since='{since}'");
    Ok(node.sh(&journal)?.lines().map(str::to_owned).collect())
}

fn now(node: &Node) -> Result<String> {
    let now = node.sh("date '+%F %T'")?;
    Ok(now.trim().to_owned())
}

/// The only master loses its power; the node's knode is killed meanwhile, too.
pub fn f29_a_lost_api_server_stops_nothing_and_is_told_once(cluster: &mut Cluster) -> Result<()> {
    const AWAY: Duration = Duration::from_secs(40);
    wait::until("kube-proxy well again", LIMIT, || {
        Ok((service(cluster, "kube-proxy")?["condition"] != "starting").then_some(()))
    })?;
    cluster.wait_until_ready(NODE, LIMIT)?;
    let address = answers(cluster, "web-1")?;
    let before = processes(cluster.node(NODE)?)?;
    let began = now(cluster.node(NODE)?)?;
    cluster.node(MASTER)?.kill()?;
    std::thread::sleep(AWAY);
    let node = cluster.node(NODE)?;
    let later = now(node)?;
    std::thread::sleep(AWAY);
    let first = lines_since(node, &began)?;
    let second = lines_since(node, &later)?;
    eprintln!(
        "without an API server knode wrote {} lines, {} of them in the second half",
        first.len(),
        second.len()
    );
    ensure!(first.len() <= 20, "too much is told: {first:#?}");
    ensure!(second.len() <= 6, "it is told again and again: {second:#?}");
    let told = first.iter().any(|line| line.contains("E-API-UNREACHABLE"));
    ensure!(told, "nobody says why: {first:#?}");
    ensure!(
        processes(node)? == before,
        "{before:?}, then {:?}",
        processes(node)?
    );
    // Nor does a new knode, which cannot ask anybody, take what runs for wrong.
    node.sh("kill -KILL $(systemctl show --property=MainPID --value knode)")?;
    wait::until("a new knode that waits", LIMIT, || {
        let step = cluster.step(NODE, "wait")?;
        let detail = step["detail"].as_str().unwrap_or_default();
        Ok((step["state"] == "running" && detail.contains("E-API-UNREACHABLE")).then_some(()))
    })?;
    let node = cluster.node(NODE)?;
    std::thread::sleep(Duration::from_secs(5));
    let pod = node.sh(&format!(
        "ip route show 10.244.0.0/24; curl --silent --fail --max-time 3 http://{address}:8080/"
    ))?;
    ensure!(
        pod.contains("10.99.0.11") && pod.contains("hostname web-1"),
        "{pod}"
    );
    cluster.node(MASTER)?.start()?;
    for machine in MACHINES {
        cluster.wait_until_ready(machine.name, LIMIT)?;
    }
    let after = processes(cluster.node(NODE)?)?;
    ensure!(after == before, "{before:?}, then {after:?}");
    answers(cluster, "web-1").map(|_| ())
}
