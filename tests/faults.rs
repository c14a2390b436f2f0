//! A master and a node to which happens what happens in the field, one thing after the
//! other, while a pod runs on the node: docs/failure-modes.md has the list.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::image::Image;
use tests::killer::Killer;
use tests::node::Node;
use tests::{artifacts, report, wait};

const MASTER: &str = "master";
const NODE: &str = "node-1";
const MACHINES: [Machine; 2] = [
    Machine {
        name: MASTER,
        role: "master",
    },
    Machine {
        name: NODE,
        role: "node",
    },
];
const LIMIT: Duration = Duration::from_secs(240);
/// What lives through all that is done to knode, the runtime and the network.
const SERVICES: [&str; 3] = ["kubelet", "kube-proxy", "containerd"];
/// A file of the test's for a unit; /run goes with the power.
const DROP_IN: &str = "99-test.conf";

#[test]
fn faults() -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip("faults", &reason);
        return Ok(());
    }
    let mut cluster = Cluster::new(&MACHINES)?;
    if !cluster.has_kubernetes() {
        report::skip("faults", "no Kubernetes binaries in $KUBE_BIN_DIR");
        return Ok(());
    }
    let outcome = one_after_the_other(&mut cluster);
    if outcome.is_err() {
        let evidence = tests::scope::base().join("evidence").join("faults");
        cluster.evidence(&evidence)?;
        eprintln!("the machines' logs are in {}", evidence.display());
    }
    outcome
}

type Fault = fn(&mut Cluster) -> Result<()>;

fn one_after_the_other(cluster: &mut Cluster) -> Result<()> {
    let faults: [(&str, Fault); 11] = [
        (
            "b3_f12_power_lost_and_knode_killed_at_every_step_of_the_first_boot",
            b3_f12_power_lost_and_knode_killed_at_every_step_of_the_first_boot,
        ),
        ("a_pod_runs", a_pod_runs),
        (
            "f25_a_killed_knode_and_another_one_adopt_what_runs",
            f25_a_killed_knode_and_another_one_adopt_what_runs,
        ),
        (
            "f10_networkd_restarts_and_takes_nothing",
            f10_networkd_restarts_and_takes_nothing,
        ),
        (
            "f17_a_kubelet_that_is_slow_once_is_let_be",
            f17_a_kubelet_that_is_slow_once_is_let_be,
        ),
        (
            "f18_twenty_crashes_are_followed_by_a_start",
            f18_twenty_crashes_are_followed_by_a_start,
        ),
        (
            "f21_the_pause_image_outlives_the_collection",
            f21_the_pause_image_outlives_the_collection,
        ),
        (
            "f29_a_lost_api_server_stops_nothing_and_is_told_once",
            f29_a_lost_api_server_stops_nothing_and_is_told_once,
        ),
        (
            "f23_leases_of_lost_pods_use_up_the_range",
            f23_leases_of_lost_pods_use_up_the_range,
        ),
        (
            "f4_f13_f23_power_lost_files_emptied_and_a_slow_runtime",
            f4_f13_f23_power_lost_files_emptied_and_a_slow_runtime,
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

/// B3, F12: the machine loses its power in its first boot; after that knode is killed
/// whenever a step tells something new, and at moments by chance in between.
fn b3_f12_power_lost_and_knode_killed_at_every_step_of_the_first_boot(
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
    let cut = node.sh("find /etc/kubernetes /etc/knode /etc/cni /var/lib/knode -type f -size 0")?;
    ensure!(cut.is_empty(), "empty files: {cut}");
    for service in SERVICES {
        let restarts = property(node, service, "NRestarts")?;
        ensure!(restarts == "0", "{service} was restarted {restarts} times");
    }
    let kubelet = node.journal("kubelet.service")?;
    let started = kubelet.matches("Started kubelet.service").count();
    ensure!(started == 1, "the kubelet was started {started} times");
    node.sh(&format!("rm /{hasty}; systemctl daemon-reload"))
        .map(|_| ())
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

/// The agent, killed and then another program.
fn f25_a_killed_knode_and_another_one_adopt_what_runs(cluster: &mut Cluster) -> Result<()> {
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

/// networkd forgets nothing of ours: no route and no address is removed, not for a moment.
fn f10_networkd_restarts_and_takes_nothing(cluster: &mut Cluster) -> Result<()> {
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

/// Longer than one question has time, and shorter than three.
fn f17_a_kubelet_that_is_slow_once_is_let_be(cluster: &mut Cluster) -> Result<()> {
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

fn service(cluster: &mut Cluster, name: &str) -> Result<Value> {
    let status = cluster.status(NODE)?.unwrap_or_default();
    let services = status["services"].as_array();
    let found = services.into_iter().flatten().find(|s| s["name"] == name);
    Ok(found.cloned().unwrap_or_default())
}

/// As fast as it can crash, so that any limit there were would be met.
fn f18_twenty_crashes_are_followed_by_a_start(cluster: &mut Cluster) -> Result<()> {
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

/// The kubelet collects at its start whatever no container uses, when the disk is as
/// full as it is told here.
fn f21_the_pause_image_outlives_the_collection(cluster: &mut Cluster) -> Result<()> {
    let unused = Image::of_program("knode.test/unused:1", &artifacts::kubectl()?)?;
    let node = cluster.node(NODE)?;
    node.import(&unused)?;
    let images = |node: &Node| node.sh("ctr --namespace=k8s.io images list --quiet");
    ensure!(images(node)?.contains("knode.test/unused"), "not imported");
    // No pod at all: only that it is pinned speaks for the image.
    cluster
        .kubectl(&["delete", "pod", "web-1", "--wait"], "")?
        .ok()?;
    let node = cluster.node(NODE)?;
    let full = "[Service]\nExecStart=\nExecStart=/opt/kubernetes/bin/kubelet \
        --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.conf \
        --cert-dir=/var/lib/kubelet/pki --image-gc-high-threshold=2 \
        --image-gc-low-threshold=1 --minimum-image-ttl-duration=1s $KUBELET_ARGS\n";
    unit_file(node, "kubelet", full)?;
    node.sh("systemctl restart kubelet")?;
    wait::until("the unused image collected", LIMIT, || {
        Ok((!images(node)?.contains("knode.test/unused")).then_some(()))
    })?;
    let left = images(node)?;
    ensure!(left.contains("registry.k8s.io/pause"), "{left}");
    unit_file(node, "kubelet", "")?;
    node.sh("systemctl restart kubelet")?;
    node.import(&Image::web()?)?;
    a_pod_runs(cluster)
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
fn f29_a_lost_api_server_stops_nothing_and_is_told_once(cluster: &mut Cluster) -> Result<()> {
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

/// Where the CNI plugin keeps who has which address.
const LEASES: &str = "/run/knode/cni/knode";

/// As after many pods that nobody could take down in order.
fn f23_leases_of_lost_pods_use_up_the_range(cluster: &mut Cluster) -> Result<()> {
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
fn f4_f13_f23_power_lost_files_emptied_and_a_slow_runtime(cluster: &mut Cluster) -> Result<()> {
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

/// F17, F29: whatever was done above, nothing that ran was held to be broken.
fn nothing_was_restarted_by_knode(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(NODE)?;
    let evidence = node.sh("ls /var/lib/knode/evidence 2>/dev/null || :")?;
    let of_crashes = |line: &&str| !line.ends_with("-kube-proxy");
    let other: Vec<&str> = evidence.lines().filter(of_crashes).collect();
    ensure!(other.is_empty(), "{other:?}");
    Ok(())
}
