//! The power goes, and what is left then.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::cluster::Cluster;
use tests::image::Image;
use tests::killer::Killer;
use tests::wait;

use super::{DROP_IN, LIMIT, MACHINES, MASTER, NODE, SERVICES, answers, create, property};

/// B3, F12: the machine loses its power in its first boot; after that knode is killed
/// whenever a step tells something new, and at moments by chance in between.
pub fn b3_f12_power_lost_and_knode_killed_at_every_step_of_the_first_boot(
    cluster: &mut Cluster,
) -> Result<()> {
    cluster.boot(MASTER)?;
    let node = cluster.boot(NODE)?;
    wait::until("knode's first word", LIMIT, || {
        Ok(node.exists("/run/knode/status.json")?.then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(fastrand::u64(..1500)));
    node.kill()?;
    // systemd's pauses between many restarts would make this a long test.
    let hasty = format!("etc/systemd/system/knode.service.d/{DROP_IN}");
    let on_disk = node.disk().join(&hasty);
    fs::create_dir_all(on_disk.parent().context("in no folder")?)?;
    fs::write(on_disk, "[Service]\nRestartSteps=0\nRestartSec=200ms\n")?;
    node.start()?;
    let killer = Killer::start(node.init().context("off")?, 8);
    cluster.import_images(MASTER, LIMIT)?;
    let images = [Image::pause()?, Image::web()?];
    let node = cluster.node(NODE)?;
    wait::until("containerd", LIMIT, || {
        let asked = node.exec(&["ctr", "--connect-timeout=1s", "version"])?;
        Ok(asked.success().then_some(()))
    })?;
    images.iter().try_for_each(|image| node.import(image))?;
    wait::until("the last step done", LIMIT, || {
        Ok(killer.is_done().then_some(()))
    })?;
    let killed = killer.finish()?;
    for machine in MACHINES {
        cluster.wait_until_ready(machine.name, LIMIT)?;
    }
    eprintln!(
        "knode killed {} times at steps and {} times by chance: {:?}",
        killed.at.len(),
        killed.by_chance,
        killed.at
    );
    let steps = cluster.status(NODE)?.unwrap_or_default();
    for step in steps["steps"].as_array().into_iter().flatten() {
        let name = step["name"].as_str().unwrap_or_default();
        // Two of its states may follow each other too closely to be told apart.
        let at = killed.at.iter().any(|(step, _)| *step == name);
        ensure!(at, "not killed in step {name}");
    }
    let node = cluster.node(NODE)?;
    // Every artifact by its checksum, and no part of one left.
    let verified = node.sh("/opt/knode/bin/knode fetch --verify; ls -A /opt/knode/store")?;
    ensure!(
        verified.contains(" 0 MB fetched") && !verified.contains(".partial"),
        "{verified}"
    );
    let cut = node.sh(
        "find /etc/kubernetes /etc/knode /etc/cni /var/lib/knode -type f -size 0 \
         ! -path '*/evidence/*'",
    )?;
    ensure!(cut.is_empty(), "empty files: {cut}");
    for service in SERVICES {
        let restarts = property(node, service, "NRestarts")?;
        ensure!(restarts == "0", "{service} was restarted {restarts} times");
    }
    let kubelet = node.journal("kubelet.service")?;
    let started = kubelet.matches("Started kubelet.service").count();
    ensure!(started == 1, "the kubelet was started {started} times");
    // knode forgives itself its restarts after ten minutes.
    node.sh(&format!(
        "rm /{hasty}; systemctl daemon-reload; systemctl reset-failed knode"
    ))
    .map(|_| ())
}

/// Where the CNI plugin keeps who has which address.
const LEASES: &str = "/run/knode/cni/knode";

/// As after many pods that nobody could take down in order.
pub fn f23_leases_of_lost_pods_use_up_the_range(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(NODE)?;
    node.sh(&format!(
        "cd {LEASES}; for last in $(seq 2 254); do \
           [ -e 10.244.1.$last ] || printf 'lost-%s\\neth0' $last >10.244.1.$last; done"
    ))?;
    create(cluster, "web-2")?;
    wait::until("the range used up", LIMIT, || {
        let events = cluster.get(&["events", "--field-selector=involvedObject.name=web-2"])?;
        Ok(events
            .to_string()
            .contains("no IP addresses available")
            .then_some(()))
    })
}

/// The power goes again, and what was being written is empty: F13. The runtime's unit is
/// up long before it answers: F4. The leases are gone with the pods: F23.
pub fn f4_f13_f23_power_lost_files_emptied_and_a_slow_runtime(cluster: &mut Cluster) -> Result<()> {
    const SLOW: u64 = 8;
    let node = cluster.node(NODE)?;
    node.kill()?;
    let emptied = node
        .exec_off(
            &[
                "sh",
                "-euc",
                "find /var/lib/knode /opt/knode/store /opt/knode/bin /etc/cni/net.d \
                   /etc/kubernetes/containerd.toml -type f -size +0 \
                   -exec truncate --size=0 {} + -print",
            ],
            b"",
        )?
        .ok()?;
    for file in ["/kubelet", "/knode", "containerd.toml", "/etc/cni/net.d/"] {
        ensure!(emptied.contains(file), "no {file} in {emptied}");
    }
    let slow = format!(
        "[Service]\nType=simple\nExecStart=\nExecStart=/bin/sh -c 'sleep {SLOW}; \
         exec /usr/bin/containerd --config /etc/kubernetes/containerd.toml'\n"
    );
    let folder = node.disk().join("etc/systemd/system/containerd.service.d");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(DROP_IN), slow)?;
    node.start()?;
    cluster.wait_until_ready(NODE, LIMIT)?;
    for name in ["web-1", "web-2"] {
        let address = answers(cluster, name)?;
        eprintln!("{name} answers at {address}");
    }
    let node = cluster.node(NODE)?;
    let leases = node.sh(&format!("ls {LEASES} | grep -c '^10[.]'"))?;
    ensure!(leases.trim() == "2", "{leases} leases for two pods");
    let started = |unit: &str| -> Result<u64> {
        let name = "ExecMainStartTimestampMonotonic";
        Ok(property(node, unit, name)?.parse()?)
    };
    let waited = started("kubelet")?.saturating_sub(started("containerd")?);
    ensure!(
        waited >= SLOW * 1_000_000,
        "the kubelet was started {waited} µs after a runtime that was not ready"
    );
    for service in SERVICES {
        let restarts = property(node, service, "NRestarts")?;
        ensure!(restarts == "0", "{service} was restarted {restarts} times");
    }
    let verified = node.sh("/opt/knode/bin/knode fetch --verify")?;
    ensure!(verified.contains(" 0 MB fetched"), "{verified}");
    Ok(())
}
