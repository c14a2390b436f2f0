//! A cluster of one master becomes one of three, and loses one for good.

use std::fs;

use tests::scenario::with_kubernetes;

use super::*;

const MASTERS: [Machine; 3] = [
    Machine::new("master-1", "master"),
    Machine::new("master-2", "master"),
    Machine::new("master-3", "master"),
];

#[test]
fn p35_masters_are_added_to_a_cluster_that_runs() -> Result<()> {
    const NAME: &str = "p35_masters_are_added_to_a_cluster_that_runs";
    with_kubernetes(NAME, || Cluster::new(&MASTERS), grow)
}

fn grow(cluster: &mut Cluster) -> Result<()> {
    let settings = cluster.path("cluster.yaml");
    let three = fs::read_to_string(&settings)?;
    let of_later = |line: &&str| !line.contains("master-2") && !line.contains("master-3");
    let one: Vec<&str> = three.lines().filter(of_later).collect();
    fs::write(&settings, one.join("\n") + "\n")?;
    cluster.boot("master-1")?;
    cluster.wait_until_ready("master-1", LIMIT)?;
    cluster
        .kubectl(&["create", "configmap", "before"], "")?
        .ok()?;
    let etcd = pid(cluster)?;

    // docs/operations.md: the new settings, the new document of the master that
    // is there, and then the new machines.
    fs::write(
        &settings,
        format!("etcd:\n  config: {{initial-cluster-state: existing}}\n{three}"),
    )?;
    cluster.deliver("master-1", LIMIT)?;
    ensure!(pid(cluster)? == etcd, "etcd was restarted");
    for name in ["master-2", "master-3"] {
        cluster.boot(name)?;
    }
    for name in ["master-2", "master-3"] {
        cluster
            .wait_until_ready(name, LIMIT)
            .with_context(|| steps(cluster, name))?;
    }
    ensure!(voters(cluster, "master-1")? == 3);
    ensure!(pid(cluster)? == etcd, "etcd was restarted");

    // Each of the new API servers has everything, and the machines know all.
    for last in [12, 13] {
        let server = format!("--server=https://10.99.0.{last}:6443");
        let get = ["get", "configmap", "before", server.as_str()];
        cluster.kubectl(&get, "")?.ok()?;
    }
    for Machine { name, .. } in MASTERS {
        wait::until("three healthy API servers", LIMIT, || {
            let status = cluster.status(name)?.unwrap_or_default();
            let servers = status["apiServers"].as_array().cloned();
            let servers = servers.unwrap_or_default();
            let healthy = servers.iter().filter(|s| s["health"] == "healthy");
            Ok((healthy.count() == 3).then_some(()))
        })?;
    }

    // The first one is gone for good.
    cluster.node("master-1")?.kill()?;
    let node = cluster.node("master-2")?;
    wait::until("master-1 out of the ring", LIMIT, || {
        let removed = knode(node, &["remove", "master-1", "--yes"])?;
        ensure!(removed.code() == 0, "{}", removed.stderr);
        Ok(Some(()))
    })?;
    let survivor = "--server=https://10.99.0.12:6443";
    wait::until("a write without master-1", LIMIT, || {
        let write = ["create", "configmap", "after", survivor];
        let created = cluster.kubectl(&write, "")?;
        let there = created.stderr.contains("AlreadyExists");
        Ok((created.code() == 0 || there).then_some(()))
    })?;
    ensure!(voters(cluster, "master-2")? == 2);
    Ok(())
}

fn pid(cluster: &mut Cluster) -> Result<String> {
    let node = cluster.node("master-1")?;
    node.sh("systemctl show --property=MainPID --value etcd")
}
