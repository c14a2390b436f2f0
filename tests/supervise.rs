//! knode supervises a real master under a real systemd: what is killed, what
//! is frozen, and what cannot stay up; and what knode tells of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Machine};
use tests::scenario::with_kubernetes;
use tests::wait;

const MASTER: &str = "master";
const MACHINES: [Machine; 1] = [Machine::new(MASTER, "master")];
const LIMIT: Duration = Duration::from_secs(180);
const EVIDENCE: &str = "/var/lib/knode/evidence";

/// P32, P34, P59, B4, R9, F16 to F18, F27.
#[test]
fn what_is_killed_frozen_or_crashes_comes_back_and_is_told() -> Result<()> {
    let name = "supervise";
    with_kubernetes(name, || Cluster::new(&MACHINES), scenario)
}

fn scenario(cluster: &mut Cluster) -> Result<()> {
    cluster.boot(MASTER)?;
    cluster.import_images(MASTER, LIMIT)?;
    wait::until("the master Ready", LIMIT, || {
        let status = cluster.status(MASTER)?.unwrap_or_default();
        Ok((status["ready"] == true).then_some(()))
    })?;
    for service in [
        "containerd",
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
    ] {
        healthy(cluster, service)?;
    }
    at_rest(cluster)?;
    let pod = a_pod_runs(cluster)?;
    the_node_says_so(cluster, "True", "NothingFails")?;
    a_killed_kubelet_is_back_at_once(cluster)?;
    a_killed_runtime_is_back_and_the_kubelet_goes_on(cluster)?;
    a_frozen_kubelet_is_restarted_with_evidence(cluster)?;
    of_a_frozen_runtime_the_runtime_is_restarted(cluster)?;
    let now = cluster.node(MASTER)?.sh("pidof web")?;
    ensure!(now == pod, "the pod was process {pod} and is {now}");
    a_proxy_that_cannot_stay_up_is_named(cluster)?;
    the_report_has_it_all_and_no_secret(cluster)?;
    a_reboot_is_mostly_waiting_for_others(cluster)
}

/// R7, with everything downloaded: knode's own share, and what it waited for.
fn a_reboot_is_mostly_waiting_for_others(cluster: &mut Cluster) -> Result<()> {
    cluster.node(MASTER)?.reboot()?;
    cluster.wait_until_ready(MASTER, LIMIT)?;
    let status = cluster.status(MASTER)?.unwrap_or_default();
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let (after, worked) = (number(&status["readyAfter"]), number(&status["worked"]));
    ensure!(worked > 0.0, "no word of its own work: {status:#}");
    let steps = status["steps"].as_array().into_iter().flatten();
    let steps: Vec<String> = steps
        .map(|step| {
            let took = number(&step["took"]) * 1000.0;
            format!("{} {took:.0}", step["name"].as_str().unwrap_or_default())
        })
        .collect();
    eprintln!(
        "R7: Ready {after:.2} s after knode's start, {:.0} ms of them knode's own work; \
         its steps, in ms: {}",
        worked * 1000.0,
        steps.join(", ")
    );
    Ok(())
}

fn service(cluster: &mut Cluster, name: &str) -> Result<Value> {
    let status = cluster.status(MASTER)?.unwrap_or_default();
    let services = status["services"].as_array();
    let found = services.into_iter().flatten().find(|s| s["name"] == name);
    Ok(found.cloned().unwrap_or_default())
}

fn healthy(cluster: &mut Cluster, name: &str) -> Result<()> {
    wait::until(&format!("{name} healthy"), LIMIT, || {
        Ok((service(cluster, name)?["condition"] == "healthy").then_some(()))
    })
    .with_context(|| format!("{:#}", service(cluster, name).unwrap_or_default()))
}

fn pid(cluster: &mut Cluster, unit: &str) -> Result<String> {
    let node = cluster.node(MASTER)?;
    let said = node.sh(&format!("systemctl show --property=MainPID --value {unit}"))?;
    Ok(said.trim().to_owned())
}

/// R8, as far as a machine shared with others can tell.
fn at_rest(cluster: &mut Cluster) -> Result<()> {
    let knode = pid(cluster, "knode")?;
    let node = cluster.node(MASTER)?;
    // What boot itself leaves to be done is not rest.
    std::thread::sleep(Duration::from_secs(20));
    let used = |node: &tests::node::Node| -> Result<f64> {
        let stat = node.read_file(&format!("/proc/{knode}/stat"))?;
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
        let ticks = |text: Option<&str>| text.unwrap_or_default().parse::<f64>();
        // proc_pid_stat(5): utime is the 14th field, stime the 15th.
        let user = ticks(fields.nth(12))?;
        Ok((user + ticks(fields.next())?) / 100.0)
    };
    let (before, began) = (used(node)?, Instant::now());
    std::thread::sleep(Duration::from_secs(60));
    let share = (used(node)? - before) / began.elapsed().as_secs_f64();
    let memory = node.sh(&format!(
        "awk '/^(VmRSS|RssAnon|RssFile|VmHWM):/ {{ printf \"%s %.1f MiB, \", $1, $2 / 1024 }}' \
         /proc/{knode}/status"
    ))?;
    eprintln!(
        "R8: knode at rest: {memory}{:.2} % of a core",
        share * 100.0
    );
    Ok(())
}

/// P59, B4: the Node itself tells.
fn the_node_says_so(cluster: &mut Cluster, status: &str, reason: &str) -> Result<()> {
    let mut last = Value::Null;
    wait::until(&format!("KnodeHealthy={status} ({reason})"), LIMIT, || {
        let node = cluster.get(&["node", MASTER])?;
        let conditions = node["status"]["conditions"].as_array();
        let own = conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "KnodeHealthy");
        last = own.cloned().unwrap_or_default();
        let as_wanted = last["status"] == status && last["reason"] == reason;
        Ok(as_wanted.then_some(()))
    })
    .with_context(|| format!("{last:#}"))
}

/// A pod that has to live through all that is done to runtime and kubelet; its process.
fn a_pod_runs(cluster: &mut Cluster) -> Result<String> {
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {
            "nodeName": MASTER,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never"},
            ],
        },
    });
    wait::until("the pod accepted", LIMIT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &pod.to_string())?;
        Ok(applied.success().then_some(()))
    })?;
    let node = cluster.node(MASTER)?;
    wait::until("the pod's process", LIMIT, || {
        node.sh("pidof web").map(Some)
    })
}

/// R9: systemd needs nobody for that.
fn a_killed_kubelet_is_back_at_once(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(MASTER)?;
    let measured = node.sh(
        "old=$(systemctl show --property=MainPID --value kubelet); began=$(date +%s%N); \
         kill -KILL $old; new=0; \
         while [ $new = 0 ] || [ $new = $old ]; do \
           new=$(systemctl show --property=MainPID --value kubelet); done; \
         echo $(( ($(date +%s%N) - began) / 1000000 ))",
    )?;
    let milliseconds: u64 = measured.trim().parse().context(measured)?;
    eprintln!("R9: kubelet killed: started again after {milliseconds} ms");
    ensure!(milliseconds <= 1000, "{milliseconds} ms");
    let began = Instant::now();
    healthy(cluster, "kubelet")?;
    eprintln!("kubelet killed: healthy after {:?}", began.elapsed());
    Ok(())
}

fn a_killed_runtime_is_back_and_the_kubelet_goes_on(cluster: &mut Cluster) -> Result<()> {
    let (kubelet, runtime) = (pid(cluster, "kubelet")?, pid(cluster, "containerd")?);
    cluster.node(MASTER)?.sh(&format!("kill -KILL {runtime}"))?;
    wait::until("another containerd", LIMIT, || {
        let now = pid(cluster, "containerd")?;
        Ok((now != "0" && now != runtime).then_some(()))
    })?;
    healthy(cluster, "containerd")?;
    ensure!(
        pid(cluster, "kubelet")? == kubelet,
        "the kubelet was restarted"
    );
    Ok(())
}

/// R9, F17: noticed by our probe, with a goroutine dump, within 40 seconds.
fn a_frozen_kubelet_is_restarted_with_evidence(cluster: &mut Cluster) -> Result<()> {
    healthy(cluster, "kubelet")?;
    let frozen = pid(cluster, "kubelet")?;
    let began = Instant::now();
    cluster.node(MASTER)?.sh(&format!("kill -STOP {frozen}"))?;
    wait::until("another kubelet", LIMIT, || {
        let now = pid(cluster, "kubelet")?;
        Ok((now != "0" && now != frozen).then_some(()))
    })?;
    let took = began.elapsed();
    eprintln!(
        "R9: kubelet frozen: noticed, evidence saved, another one after {:.1} s",
        took.as_secs_f64()
    );
    ensure!(took <= Duration::from_secs(40), "{took:?}");
    let node = cluster.node(MASTER)?;
    let saved = wait::until("evidence of the kubelet", LIMIT, || {
        let found = node.sh(&format!("ls -d {EVIDENCE}/*-kubelet"))?;
        Ok(found.lines().last().map(str::to_owned))
    })?;
    let journal = node.read_file(&format!("{saved}/journal.txt"))?;
    ensure!(journal.contains("goroutine "), "no dump in {saved}");
    let process = node.read_file(&format!("{saved}/process.txt"))?;
    ensure!(process.contains("T (stopped)"), "{process}");
    ensure!(
        node.read_file(&format!("{saved}/reason.txt"))?
            .contains("not")
    );
    healthy(cluster, "kubelet")?;
    let told = service(cluster, "kubelet")?;
    ensure!(told["restarted"] == 1, "{told:#}");
    // Fields that a journal can be searched by.
    let node = cluster.node(MASTER)?;
    let told =
        node.sh("journalctl --no-pager --output=cat KNODE_CODE=E-UNHEALTHY KNODE_SERVICE=kubelet")?;
    ensure!(told.contains(&saved), "{told}");
    let steps = node.sh("journalctl --no-pager --output=cat KNODE_STEP=runtime")?;
    ensure!(steps.contains("runtime: done"), "{steps}");
    Ok(())
}

/// F27; that containers live through it is looked at after it.
fn of_a_frozen_runtime_the_runtime_is_restarted(cluster: &mut Cluster) -> Result<()> {
    let (kubelet, frozen) = (pid(cluster, "kubelet")?, pid(cluster, "containerd")?);
    let began = Instant::now();
    cluster.node(MASTER)?.sh(&format!("kill -STOP {frozen}"))?;
    wait::until("another containerd", LIMIT, || {
        let now = pid(cluster, "containerd")?;
        Ok((now != "0" && now != frozen).then_some(()))
    })?;
    let took = began.elapsed();
    eprintln!(
        "containerd frozen: another one after {:.1} s",
        took.as_secs_f64()
    );
    ensure!(took <= Duration::from_secs(40), "{took:?}");
    healthy(cluster, "containerd")?;
    ensure!(
        pid(cluster, "kubelet")? == kubelet,
        "the kubelet was restarted"
    );
    ensure!(service(cluster, "containerd")?["restarted"] == 1);
    Ok(())
}

/// With its exit status and its last words; on the Node too.
fn a_proxy_that_cannot_stay_up_is_named(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(MASTER)?;
    let drop_in = "/run/systemd/system/kube-proxy.service.d/99-test.conf";
    let broken = "[Service]\nExecStart=\n\
        ExecStart=/bin/sh -c 'sleep 0.2; echo the mode is unknown; exit 7'\n";
    node.write_file(drop_in, broken.as_bytes())?;
    node.sh("systemctl daemon-reload; systemctl restart kube-proxy")?;
    wait::until("the crash loop named", LIMIT, || {
        let told = service(cluster, "kube-proxy")?;
        let message = told["failure"]["message"].as_str().unwrap_or_default();
        let named = told["condition"] == "crashing"
            && told["failure"]["code"] == "E-CRASH-LOOP"
            && message.contains("exit status 7")
            && message.contains("the mode is unknown");
        Ok(named.then_some(()))
    })
    .with_context(|| format!("{:#}", service(cluster, "kube-proxy").unwrap_or_default()))?;
    the_node_says_so(cluster, "False", "E-CRASH-LOOP")?;
    let node = cluster.node(MASTER)?;
    let shown = node.exec(&["/opt/knode/bin/knode", "status"])?.stdout;
    ensure!(shown.contains("kube-proxy: CRASHES"), "{shown}");
    node.sh(&format!("ls -d {EVIDENCE}/*-kube-proxy"))?;
    wait::until("metrics that name it", LIMIT, || {
        let metrics = node.read_file("/run/knode/metrics.prom")?;
        let line = "knode_failure{place=\"kube-proxy\",code=\"E-CRASH-LOOP\"} 1";
        Ok(metrics.contains(line).then_some(()))
    })?;
    node.sh(&format!(
        "rm {drop_in}; systemctl daemon-reload; systemctl restart kube-proxy"
    ))?;
    healthy(cluster, "kube-proxy")?;
    the_node_says_so(cluster, "True", "NothingFails")
}

fn the_report_has_it_all_and_no_secret(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(MASTER)?;
    node.sh("cd /root && /opt/knode/bin/knode report && mkdir report && tar -C report -xzf knode-report.tar.gz")?;
    let size = node.sh("stat --format=%s /root/knode-report.tar.gz")?;
    ensure!(size.trim().parse::<u64>()? <= 8 * 1024 * 1024, "{size}");
    let files = node.sh("cd /root/report/knode-report && find . -type f")?;
    for wanted in [
        "./checks.txt",
        "./files/etc/knode/node.yaml",
        "./files/run/knode/status.json",
        "./journal/kubelet.txt",
        "./network/knode.txt",
    ] {
        ensure!(
            files.lines().any(|file| file == wanted),
            "no {wanted} in {files}"
        );
    }
    ensure!(files.contains("./files/var/lib/knode/evidence/"), "{files}");
    // The second line of each key of this machine is nowhere in it.
    let leaks = node.sh(
        "cd /root/report; for key in $(find /etc/kubernetes/pki -name '*.key'); do \
           grep -rFl -e \"$(sed -n 2p $key)\" . || true; done; \
         grep -rFl 'PRIVATE KEY-----' . || true; grep -rl 'client-key-data: [A-Za-z0-9]' . || true",
    )?;
    ensure!(leaks.is_empty(), "secrets in {leaks}");
    Ok(())
}
