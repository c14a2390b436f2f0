//! Processes that are killed, frozen, replaced, and crash.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::cluster::Cluster;
use tests::wait;

use super::{LIMIT, MASTER, NODE, SERVICES, answers, processes, property, service, unit_file};

/// The agent, killed and then another program.
pub fn f25_a_killed_knode_and_another_one_adopt_what_runs(cluster: &mut Cluster) -> Result<()> {
    let before = processes(cluster.node(NODE)?)?;
    for change in [
        "kill -KILL $(systemctl show --property=MainPID --value knode)",
        // Another file with other bytes, as a newer version is.
        "cp /opt/knode/bin/knode /opt/knode/bin/new; echo >>/opt/knode/bin/new; \
         mv /opt/knode/bin/new /opt/knode/bin/knode; systemctl restart --no-block knode",
    ] {
        let node = cluster.node(NODE)?;
        let old = property(node, "knode", "MainPID")?;
        node.sh(change)?;
        wait::until("another knode", LIMIT, || {
            let now = property(node, "knode", "MainPID")?;
            // READY=1 is told anew, when it has seen that all is well.
            let active = property(node, "knode", "ActiveState")? == "active";
            Ok((now != "0" && now != old && active).then_some(()))
        })?;
        let started = cluster.step(NODE, "start")?;
        ensure!(started["detail"] == "were running", "{started:#}");
        let after = processes(cluster.node(NODE)?)?;
        ensure!(after == before, "{before:?}, then {after:?}");
    }
    answers(cluster, "web-1").map(|_| ())
}

/// Longer than one question has time, and shorter than three.
pub fn f17_a_kubelet_that_is_slow_once_is_let_be(cluster: &mut Cluster) -> Result<()> {
    wait::until("a healthy kubelet", LIMIT, || {
        Ok((service(cluster, "kubelet")?["condition"] == "healthy").then_some(()))
    })?;
    let before = processes(cluster.node(NODE)?)?;
    let kubelet = property(cluster.node(NODE)?, "kubelet", "MainPID")?;
    cluster.node(NODE)?.sh(&format!("kill -STOP {kubelet}"))?;
    let noticed = wait::until("doubt", Duration::from_secs(25), || {
        Ok((service(cluster, "kubelet")?["condition"] == "doubtful").then_some(()))
    });
    cluster.node(NODE)?.sh(&format!("kill -CONT {kubelet}"))?;
    noticed?;
    wait::until("a healthy kubelet again", LIMIT, || {
        Ok((service(cluster, "kubelet")?["condition"] == "healthy").then_some(()))
    })?;
    let told = service(cluster, "kubelet")?;
    ensure!(told["restarted"] == 0, "{told:#}");
    let after = processes(cluster.node(NODE)?)?;
    ensure!(after == before, "{before:?}, then {after:?}");
    Ok(())
}

/// As fast as it can crash, so that any limit there were would be met.
pub fn f18_twenty_crashes_are_followed_by_a_start(cluster: &mut Cluster) -> Result<()> {
    let of_masters = [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ];
    let of_all = ["knode", "knode-bootstrap"].into_iter().chain(SERVICES);
    for unit in of_masters.into_iter().chain(of_all) {
        let limit = property(cluster.node(MASTER)?, unit, "StartLimitIntervalUSec")?;
        ensure!(limit == "0", "{unit} has a start limit: {limit}");
    }
    let node = cluster.node(NODE)?;
    let broken = "[Service]\nRestartSteps=0\nRestartSec=50ms\nExecStart=\n\
        ExecStart=/bin/sh -c 'test -e /run/cured || exit 7; exec /opt/kubernetes/bin/kube-proxy \
        --config=/etc/kubernetes/kube-proxy.yaml $$KUBE_PROXY_ARGS'\n";
    unit_file(node, "kube-proxy", broken)?;
    node.sh("systemctl restart kube-proxy")?;
    wait::until("twenty crashes", LIMIT, || {
        let crashes: u32 = property(node, "kube-proxy", "NRestarts")?.parse()?;
        let state = property(node, "kube-proxy", "ActiveState")?;
        ensure!(state != "failed", "given up after {crashes} crashes");
        Ok((crashes >= 20).then_some(()))
    })?;
    wait::until("the crash loop named", LIMIT, || {
        let told = service(cluster, "kube-proxy")?;
        Ok((told["failure"]["code"] == "E-CRASH-LOOP").then_some(()))
    })?;
    // Nobody starts it: only the cause goes.
    let node = cluster.node(NODE)?;
    node.sh("touch /run/cured")?;
    wait::until("kube-proxy well again", LIMIT, || {
        let asked = node.exec(&["curl", "--silent", "--fail", "http://127.0.0.1:10256/livez"])?;
        Ok(asked.success().then_some(()))
    })?;
    unit_file(node, "kube-proxy", "")?;
    node.sh("systemctl restart kube-proxy").map(|_| ())
}

/// The kubelet's own collection measures the disk, which it cannot in these machines; what
/// keeps an image from it is that the runtime says it is pinned.
pub fn f21_the_pause_image_alone_is_pinned(cluster: &mut Cluster) -> Result<()> {
    let images = cluster
        .node(NODE)?
        .sh("ctr --namespace=k8s.io images list | tail -n +2")?;
    let is_pinned = |name: &str| -> Result<bool> {
        let mut lines = images.lines();
        let line = lines.find(|line| line.starts_with(name));
        let line = line.with_context(|| format!("no {name} in {images}"))?;
        Ok(line.contains("io.cri-containerd.pinned=pinned"))
    };
    ensure!(is_pinned("registry.k8s.io/pause:")?, "{images}");
    ensure!(!is_pinned("knode.test/web:")?, "{images}");
    Ok(())
}
