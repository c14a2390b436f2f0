//! Three dedicated etcd machines, one master, two nodes: members start in any
//! order, and the master waits for its ring.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Machine};
use tests::scenario::on_cluster;
use tests::{report, wait};

const MACHINES: [Machine; 6] = [
    Machine::new("etcd-1", "etcd"),
    Machine::new("etcd-2", "etcd"),
    Machine::new("etcd-3", "etcd"),
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
    Machine::new("node-2", "node"),
];
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn p37_a_ring_of_three_dedicated_members() -> Result<()> {
    on_cluster(
        "p37_a_ring_of_three_dedicated_members",
        || Cluster::new(&MACHINES),
        ring,
    )
}

fn ring(cluster: &mut Cluster) -> Result<()> {
    // The master first, and the members backwards.
    for name in ["master", "etcd-3", "etcd-1", "etcd-2", "node-1", "node-2"] {
        cluster.boot(name)?;
    }
    for name in ["etcd-1", "etcd-2", "etcd-3"] {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    let pki = "/etc/kubernetes/pki/etcd";
    let members = cluster.node("etcd-1")?.sh(&format!(
        "ETCDCTL_API=3 /opt/kubernetes/bin/etcdctl --endpoints=https://127.0.0.1:2379 \
         --cacert={pki}/ca.crt --cert={pki}/healthcheck-client.crt \
         --key={pki}/healthcheck-client.key member list"
    ))?;
    ensure!(members.matches("started").count() == 3, "{members}");
    ensure!(members.matches("https://").count() >= 6, "{members}");
    let node = cluster.node("etcd-1")?;
    ensure!(!node.exists("/opt/kubernetes/bin/kubelet")?);
    ensure!(
        !node.exists("/etc/kubernetes/pki/ca.key")?,
        "the cluster's key on an etcd machine"
    );
    if !cluster.has_kubernetes() {
        report::skip(
            "p37_a_master_on_a_dedicated_ring",
            "no Kubernetes binaries in $KUBE_BIN_DIR; the ring itself was tested",
        );
        return Ok(());
    }
    for name in ["master", "node-1", "node-2"] {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    // One member may go, as a majority is left.
    cluster.node("etcd-2")?.kill()?;
    // Its leader may be the one: what was on the way then is refused, as etcd says.
    wait::until("a write with one member of three gone", LIMIT, || {
        let write = ["create", "configmap", "after-the-loss"];
        let created = cluster.kubectl(&write, "")?;
        let said = &created.stderr;
        ensure!(
            created.code() == 0 || said.contains("timed out") || said.contains("AlreadyExists"),
            "{said}"
        );
        Ok((created.code() == 0 || said.contains("AlreadyExists")).then_some(()))
    })
}
