//! IPv4 and IPv6 side by side on real machines: two ranges on cbr0, routes,
//! masquerade, the kubelet's addresses, pods and services of both families
//! (P26 to P28, P30, B6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::scenario::{in_turn, with_kubernetes};
use tests::wait;

const MACHINES: [Machine; 2] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
];
const LIMIT: Duration = Duration::from_secs(300);
/// Where a test listens outside the cluster.
const OUTSIDE: [&str; 2] = ["10.99.0.1:8081", "[fd00:99::1]:8081"];

#[test]
fn b6_both_families_over_vxlan() -> Result<()> {
    with_mode("b6_both_families_over_vxlan", "vxlan")
}

#[test]
fn b6_both_families_over_direct_routes() -> Result<()> {
    with_mode("b6_both_families_over_direct_routes", "host-gw")
}

fn with_mode(name: &str, mode: &str) -> Result<()> {
    let make = || Cluster::dual_stack(&MACHINES, mode);
    in_turn(|| with_kubernetes(name, make, |cluster| scenario(cluster, mode)))
}

fn scenario(cluster: &mut Cluster, mode: &str) -> Result<()> {
    for Machine { name, .. } in MACHINES {
        cluster.boot(name)?;
    }
    for Machine { name, .. } in MACHINES {
        cluster.import_images(name, LIMIT)?;
        cluster.wait_until_ready(name, LIMIT)?;
    }
    the_node_has_both(cluster)?;
    the_kernel_has_both(cluster, mode)?;
    pods_have_both(cluster)?;
    pods_reach_each_other_by_both(cluster)?;
    what_leaves_the_cluster_is_masqueraded(cluster)
}

/// The Node object, from what the settings and `--node-ip` say.
fn the_node_has_both(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.get(&["node", "node-1"])?;
    ensure!(
        node["spec"]["podCIDRs"] == json!(["10.244.1.0/24", "fd00:244:0:1::/64"]),
        "{:#}",
        node["spec"]
    );
    let addresses = node["status"]["addresses"].as_array().cloned();
    let internal: Vec<Value> = addresses
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .map(|address| address["address"].clone())
        .collect();
    ensure!(
        internal == [json!("10.99.0.12"), json!("fd00:99::12")],
        "{internal:?}"
    );
    let arguments = cluster
        .node("node-1")?
        .read_file("/run/knode/kubelet.env")?;
    ensure!(
        arguments.contains("--node-ip=10.99.0.12,fd00:99::12"),
        "{arguments}"
    );
    Ok(())
}

fn the_kernel_has_both(cluster: &mut Cluster, mode: &str) -> Result<()> {
    let node = cluster.node("node-1")?;
    let addresses = node.sh("ip -oneline address show dev cbr0 scope global")?;
    for address in ["10.244.1.1/24", "fd00:244:0:1::1/64"] {
        ensure!(addresses.contains(address), "no {address} in {addresses}");
    }
    let routes = node.sh("ip -4 route; ip -6 route")?;
    let wanted = match mode {
        "host-gw" => [
            "10.244.0.0/24 via 10.99.0.11",
            "fd00:244::/64 via fd00:99::11",
        ],
        _ => [
            "10.244.0.0/24 via 10.244.0.0 dev",
            "fd00:244::/64 via fe80:",
        ],
    };
    for route in wanted {
        ensure!(routes.contains(route), "no {route} in {routes}");
    }
    let rules = node.sh("nft list table inet knode")?;
    for range in ["ip saddr 10.244.1.0/24", "ip6 saddr fd00:244:0:1::/64"] {
        let masquerades = |line: &str| line.contains(range) && line.contains("masquerade fully");
        ensure!(rules.lines().any(masquerades), "{range}: {rules}");
    }
    Ok(())
}

fn pods_have_both(cluster: &Cluster) -> Result<()> {
    let pod = |name: &str, node: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "tolerations": [{"operator": "Exists"}],
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never"},
                ],
            },
        })
    };
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": "web-1"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    });
    let items = [pod("web-0", "master"), pod("web-1", "node-1"), service];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    wait::until("objects accepted", LIMIT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &list.to_string())?;
        Ok(applied.success().then_some(()))
    })?;
    for (name, ranges) in [
        ("web-0", ["10.244.0.", "fd00:244::"]),
        ("web-1", ["10.244.1.", "fd00:244:0:1::"]),
    ] {
        let ips = addresses(cluster, name)?;
        let both = ips.len() == 2 && ips.iter().zip(ranges).all(|(ip, at)| ip.starts_with(at));
        ensure!(both, "{name}: {ips:?}");
    }
    Ok(())
}

/// A running pod's addresses, in its families' order.
fn addresses(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let ips = wait::until(&format!("{name} running"), LIMIT, || {
        let pod = cluster.get(&["pod", name])?;
        let running = pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok(running.then(|| pod["status"]["podIPs"].clone()))
    })
    .with_context(|| {
        let described = cluster.kubectl(&["describe", "pod", name], "");
        described.map(|output| output.stdout).unwrap_or_default()
    })?;
    let ips = ips.as_array().into_iter().flatten();
    let ips = ips.filter_map(|ip| ip["ip"].as_str().map(str::to_owned));
    Ok(ips.collect())
}

fn ask(cluster: &Cluster, at: SocketAddr) -> Result<String> {
    let url = format!("http://{at}/");
    wait::until(&format!("{url} from a pod"), LIMIT, || {
        let got = cluster.kubectl(&["exec", "web-0", "--", "/web", "get", &url], "")?;
        Ok(got.success().then_some(got.stdout))
    })
}

fn pods_reach_each_other_by_both(cluster: &Cluster) -> Result<()> {
    let (own, others) = (addresses(cluster, "web-0")?, addresses(cluster, "web-1")?);
    for (own, other) in own.iter().zip(&others) {
        let answer = ask(cluster, SocketAddr::new(other.parse()?, 8080))?;
        ensure!(answer.contains("hostname web-1"), "{answer}");
        ensure!(
            answer.contains(&format!("client {own}")),
            "masqueraded between pods: {answer}"
        );
    }
    let service = cluster.get(&["service", "web"])?;
    let virtual_ips = service["spec"]["clusterIPs"].as_array().cloned();
    let virtual_ips = virtual_ips.context("no cluster IPs")?;
    ensure!(virtual_ips.len() == 2, "{virtual_ips:?}");
    for ip in virtual_ips {
        let ip: IpAddr = ip.as_str().context("no address")?.parse()?;
        let answer = ask(cluster, SocketAddr::new(ip, 80))?;
        ensure!(answer.contains("hostname web-1"), "{answer}");
    }
    Ok(())
}

/// P28: outside, a pod is seen as its machine.
fn what_leaves_the_cluster_is_masqueraded(cluster: &Cluster) -> Result<()> {
    for (outside, machine) in OUTSIDE.into_iter().zip(["10.99.0.11", "fd00:99::11"]) {
        let at: SocketAddr = outside.parse()?;
        let listener = cluster.network().inside(|| {
            std::net::TcpListener::bind(at).with_context(|| format!("listening at {at}"))
        })?;
        let seen = std::thread::spawn(move || listener.accept().map(|(_, peer)| peer.ip()));
        // Nobody answers there: to be seen is all.
        let url = format!("http://{at}/");
        let asked = cluster.kubectl(&["exec", "web-0", "--", "/web", "get", &url], "")?;
        wait::until(&format!("{url} asked"), Duration::from_secs(30), || {
            Ok(seen.is_finished().then_some(()))
        })
        .with_context(|| asked.stderr)?;
        let seen = seen.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        ensure!(seen == machine.parse::<IpAddr>()?, "seen as {seen}");
    }
    Ok(())
}
