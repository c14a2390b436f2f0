//! What a machine does when downloads and documents are not what they should be:
//! it says so by name, uses nothing of it, and goes on by itself once it can.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::Value;
use tests::artifact_server::Fault;
use tests::cluster::{Cluster, Machine};
use tests::document::Document;
use tests::scenario::on_cluster;
use tests::{report, wait};

const MACHINES: [Machine; 4] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
    Machine::new("node-2", "node"),
    Machine::new("node-3", "node"),
];
/// The machine that boots, mostly; it waits for its master, which never does.
const NODE: &str = "node-1";
const LIMIT: Duration = Duration::from_secs(120);
const NODE_YAML: &str = "/etc/knode/node.yaml";
const CA: &str = "/etc/kubernetes/pki/ca.crt";

fn with_cluster(name: &str, way: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    on_cluster(name, || Cluster::new(&MACHINES), way)
}

/// F1, F3, P21: mirrors that lack a file, have another one, or cut it.
#[test]
fn bad_downloads() -> Result<()> {
    with_cluster("bad_downloads", |cluster| {
        let version = kubernetes_version(cluster)?;
        let kubelet = format!("/{version}/kubelet");
        let proxy = format!("/{version}/kube-proxy");
        cluster
            .server
            .set_fault("/knode", Fault::Status(StatusCode::NOT_FOUND));
        cluster
            .server
            .set_fault("/cni-plugins.tgz", Fault::WrongBytes);
        if cluster.has_kubernetes() {
            let server = &cluster.server;
            server.set_fault(&kubelet, Fault::Status(StatusCode::NOT_FOUND));
            server.set_fault_times(&proxy, Fault::CutAfter(1 << 20), 2);
        }
        cluster.boot(NODE)?;
        knode_itself(cluster)?;
        without_curl(cluster)?;
        artifacts(cluster, &kubelet, &proxy)
    })
}

/// A machine that has neither curl nor wget has python3: the same bytes come.
fn without_curl(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(NODE)?;
    let said = node.sh(
        "set -e; ! command -v wget; mv /usr/bin/curl /usr/bin/curl.away\n\
         cp /opt/knode/bin/knode /root/knode; rm /opt/knode/bin/knode\n\
         sh /etc/knode/bootstrap.sh 2>&1; mv /usr/bin/curl.away /usr/bin/curl\n\
         cmp /root/knode /opt/knode/bin/knode; rm /root/knode",
    )?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

/// The bootstrap script: 404, then wrong bytes, then the right ones.
fn knode_itself(cluster: &mut Cluster) -> Result<()> {
    let url = cluster.server.url("/knode");
    told_by_bootstrap(cluster, &format!("E-BOOTSTRAP-DOWNLOAD: {url}: "), "404")?;
    cluster.server.set_fault("/knode", Fault::WrongBytes);
    told_by_bootstrap(
        cluster,
        &format!("E-BOOTSTRAP-HASH: {url} has "),
        "not used",
    )?;
    let node = cluster.node(NODE)?;
    let left = node.sh("find /opt -type f -perm /111; ls -A /opt/knode/bin")?;
    ensure!(
        left.is_empty() || left.trim().starts_with("knode.part."),
        "left after a bad download: {left}"
    );
    let status = node.wait_for_cloud_init(LIMIT)?;
    ensure!(
        status.is_clean(),
        "the boot waits for no mirror: {status:?}"
    );
    let bootstrap = node.sh("systemctl show --property=ActiveState knode-bootstrap.service")?;
    ensure!(bootstrap.trim() == "ActiveState=activating", "{bootstrap}");
    ensure!(
        !node.exists("/run/knode/status.json")?,
        "knode runs, but there is none"
    );

    cluster.server.clear_fault("/knode");
    let node = cluster.node(NODE)?;
    wait::until("knode's own status", LIMIT, || {
        Ok(node.exists("/run/knode/status.json")?.then_some(()))
    })?;
    let bin = node.sh("ls -A /opt/knode/bin; stat --format=%a /opt/knode/bin/knode")?;
    ensure!(bin == "knode\n755\n", "{bin}");
    // 2, 4, 8 s between rounds: a mirror in trouble gets no storm.
    let asked = cluster.server.requests("/knode");
    ensure!((3..=6).contains(&asked), "{asked} requests for knode");
    Ok(())
}

/// Waits until the bootstrap's journal has a line with both, which has to be
/// on the console too, and looks that there is no knode.
fn told_by_bootstrap(cluster: &mut Cluster, what: &str, also: &str) -> Result<()> {
    let node = cluster.node(NODE)?;
    let tells = |text: &str| {
        text.lines()
            .any(|line| line.contains(what) && line.contains(also))
    };
    wait::until(&format!("{what:?} in the journal"), LIMIT, || {
        Ok(tells(&node.journal("knode-bootstrap.service")?).then_some(()))
    })?;
    ensure!(
        !node.exists("/opt/knode/bin/knode")?,
        "{what}, but it is there"
    );
    told_on_console(cluster, NODE, what, also)
}

/// knode's own downloads: wrong bytes, 404 and a cut one, at once.
fn artifacts(cluster: &mut Cluster, kubelet: &str, proxy: &str) -> Result<()> {
    let cni_url = cluster.server.url("/cni-plugins.tgz");
    let complete = cluster.has_kubernetes();
    told_by_knode(cluster, "E-FETCH-HASH", &cni_url, Where::Journal)?;
    if complete {
        let url = cluster.server.url(kubelet);
        told_by_knode(cluster, "E-FETCH-HTTP", &url, Where::Journal)?;
        let url = cluster.server.url(proxy);
        told_by_knode(cluster, "E-FETCH-SIZE", &url, Where::Journal)?;
        cluster.server.clear_fault(kubelet);
    }
    // Now the wrong bytes alone are in the way (kube-proxy's mirror mends itself).
    if complete {
        told_by_knode(cluster, "E-FETCH-HASH", &cni_url, Where::Everywhere)?;
    }
    // Each artifact has attempts of its own; the step's count is of all.
    wait::until("four attempts", LIMIT, || {
        let step = cluster.step(NODE, "fetch")?;
        let asked = cluster.server.requests("/cni-plugins.tgz");
        Ok((asked >= 4 && step["state"] == "failed").then_some(()))
    })?;
    let node = cluster.node(NODE)?;
    let mut left = String::new();
    wait::until("nothing to be left of a bad download", LIMIT, || {
        // Between two attempts; during one there is what has come so far.
        left = node.sh("ls -A /opt/cni/bin 2>/dev/null || :
             find /opt/knode/store -name '.partial-*' -o -name bridge -o -name portmap")?;
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| left.clone())?;
    if complete {
        let good = node.sh("stat --dereference --format=%a /opt/kubernetes/bin/kubelet")?;
        ensure!(good == "755\n", "{good}");
    }
    grows(cluster, "/cni-plugins.tgz")?;

    cluster.server.clear_fault("/cni-plugins.tgz");
    if !complete {
        let node = cluster.node(NODE)?;
        wait::until("the CNI plugins", LIMIT, || {
            Ok(node.exists("/opt/cni/bin/bridge")?.then_some(()))
        })?;
        report::skip(
            "bad_downloads_all_fetched",
            "no Kubernetes binaries in $KUBE_BIN_DIR; the CNI plugins came in the end",
        );
        return Ok(());
    }
    let fetch = cluster.wait_for_step(NODE, "fetch", LIMIT)?;
    ensure!(fetch["failure"].is_null(), "{fetch:#}");
    let plugin = cluster
        .node(NODE)?
        .sh("/opt/cni/bin/bridge </dev/null 2>&1 | head -n 1; ls -A /opt/knode/store | grep partial || :")?;
    ensure!(
        plugin.contains("CNI") && !plugin.contains("partial"),
        "{plugin}"
    );
    let log = cluster.server.log();
    let answered = |path: &str, status: StatusCode| {
        let asked = log.iter().filter(|asked| asked.path == path);
        asked.filter(|asked| asked.status == Some(status)).count()
    };
    ensure!(
        answered(kubelet, StatusCode::OK) == 1 && answered(proxy, StatusCode::OK) == 1,
        "what was right is downloaded once, whatever becomes of others: {log:#?}"
    );
    // B2: the two that were cut went on where they had ended.
    ensure!(
        answered(proxy, StatusCode::PARTIAL_CONTENT) == 2,
        "{log:#?}"
    );
    let (code, status) = knode_status(cluster)?;
    ensure!(
        code == 3,
        "nothing fails now, and it is not Ready: {code} {status:#}"
    );
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In the journal, among others.
    Journal,
    /// It is the first failure: in the status, the table, the console too.
    Everywhere,
}

/// Waits until knode tells this code with this in its message.
fn told_by_knode(cluster: &mut Cluster, code: &str, what: &str, place: Where) -> Result<()> {
    let tells = |text: &str| {
        text.lines()
            .any(|line| line.contains(code) && line.contains(what))
    };
    wait::until(&format!("{code} with {what} in the journal"), LIMIT, || {
        Ok(tells(&cluster.node(NODE)?.journal("knode.service")?).then_some(()))
    })
    .with_context(|| {
        let status = cluster.status(NODE).ok().flatten().unwrap_or_default();
        format!("status: {status:#}")
    })?;
    if place == Where::Journal {
        return Ok(());
    }
    let seen = wait::until(&format!("{code} in the status"), LIMIT, || {
        let (exit, status) = knode_status(cluster)?;
        let failure = first_failure(&status);
        let message = failure["message"].as_str().unwrap_or_default();
        let found = exit == 4 && failure["code"] == code && message.contains(what);
        Ok(found.then_some(failure))
    })?;
    let cure = seen["cure"].as_str().unwrap_or_default();
    ensure!(!cure.is_empty(), "{seen:#}");
    let node = cluster.node(NODE)?;
    let table = node.exec(&["/opt/knode/bin/knode", "status"])?;
    ensure!(table.code() == 4, "{}: {}", table.code(), table.stdout);
    for part in [code, what, cure] {
        ensure!(table.stdout.contains(part), "no {part}: {}", table.stdout);
    }
    let message = seen["message"].as_str().unwrap_or_default();
    ensure!(!message.contains('\n'), "not one line: {message}");
    wait::until(&format!("{code} in systemd's status"), LIMIT, || {
        let systemd = node.sh("systemctl show --property=StatusText knode.service")?;
        Ok(tells(&systemd).then_some(()))
    })?;
    // One line, the cure with it.
    let line = format!("{code}: {message}");
    told_on_console(cluster, NODE, &line, cure)
}

/// Waits until a line with both is on the console: the one thing that an
/// operator sees of a machine that nobody can log in to.
fn told_on_console(cluster: &mut Cluster, name: &str, what: &str, also: &str) -> Result<()> {
    let node = cluster.node(name)?;
    wait::until(&format!("{what:?} on the console"), LIMIT, || {
        let console = node.console()?;
        let mut lines = console.lines();
        let told = lines.any(|line| line.contains(what) && line.contains(also));
        Ok(told.then_some(()))
    })
    .with_context(|| node.console().unwrap_or_default())
}

/// `knode status --json` and its exit status.
fn knode_status(cluster: &mut Cluster) -> Result<(i32, Value)> {
    let shown = cluster
        .node(NODE)?
        .exec(&["/opt/knode/bin/knode", "status", "--json"])?;
    let status = serde_json::from_str(&shown.stdout).with_context(|| shown.stderr.clone())?;
    Ok((shown.code(), status))
}

fn first_failure(status: &Value) -> Value {
    let steps = status["steps"].as_array().into_iter().flatten();
    let failures = [&status["failure"]]
        .into_iter()
        .chain(steps.map(|step| &step["failure"]));
    let mut failures = failures.filter(|failure| !failure.is_null());
    failures.next().cloned().unwrap_or_default()
}

/// F3: pauses get longer, so that a mirror in trouble gets no storm.
fn grows(cluster: &Cluster, path: &str) -> Result<()> {
    let log = cluster.server.log();
    let times: Vec<Instant> = log
        .iter()
        .filter(|asked| asked.path == path)
        .map(|asked| asked.at)
        .collect();
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The n-th pause is between a quarter and a half of 2^n seconds, and a
    // download on a busy machine takes its time; two steps on it is clear.
    let growing = pauses.windows(3).all(|three| three[2] > three[0]);
    ensure!(pauses.len() >= 3 && growing, "{path}: {pauses:?}");
    println!("{path}: asked again after {pauses:?}");
    Ok(())
}

/// F26, F30: a file of the document that is not as kgen wrote it, and a
/// node.yaml that knode cannot read; each mended while it runs.
#[test]
fn bad_documents() -> Result<()> {
    with_cluster("bad_documents", |cluster| {
        let whole = Document::new(cluster.user_data(NODE, "cloud-init")?);
        let node_yaml = whole.content(NODE_YAML)?;
        let authority = whole.content(CA)?;
        let mut damaged = whole.clone();
        damaged.replace(CA, &one_byte_changed(&authority)?)?;
        damaged.replace(NODE_YAML, &format!("{node_yaml}nonsense: true\n"))?;
        let node = cluster.boot_with(NODE, damaged.as_bytes())?;
        let status = node.wait_for_cloud_init(LIMIT)?;
        ensure!(status.is_clean(), "cloud-init cannot notice: {status:?}");
        wait::until("knode's own status", LIMIT, || {
            Ok(node.exists("/run/knode/status.json")?.then_some(()))
        })?;
        told_by_knode(cluster, "E-CONFIG-INVALID", "nonsense", Where::Everywhere)?;
        told_by_knode(cluster, "E-CONFIG-INVALID", NODE_YAML, Where::Everywhere)?;

        let half = &node_yaml[..node_yaml.len() / 2];
        cluster.node(NODE)?.write_file(NODE_YAML, half.as_bytes())?;
        wait::until("the other reason", LIMIT, || {
            let (exit, status) = knode_status(cluster)?;
            let failure = first_failure(&status);
            let message = failure["message"].as_str().unwrap_or_default();
            let other = failure["code"] == "E-CONFIG-INVALID" && !message.contains("nonsense");
            Ok((exit == 4 && other && message.contains(NODE_YAML)).then_some(()))
        })?;
        let nothing = cluster
            .node(NODE)?
            .sh("ls -A /opt/knode/store 2>/dev/null || :")?;
        ensure!(nothing.is_empty(), "it did something: {nothing}");

        let node = cluster.node(NODE)?;
        node.write_file(NODE_YAML, node_yaml.as_bytes())?;
        told_by_knode(cluster, "E-CONFIG-ALTERED", CA, Where::Everywhere)?;
        let waits = cluster.step(NODE, "wait")?;
        ensure!(
            waits["state"] == "pending",
            "with an altered authority: {waits:#}"
        );

        cluster.node(NODE)?.write_file(CA, authority.as_bytes())?;
        let identity = cluster.wait_for_step(NODE, "identity", LIMIT)?;
        ensure!(identity["failure"].is_null(), "{identity:#}");
        let restarts = cluster
            .node(NODE)?
            .sh("systemctl show --property=NRestarts knode.service")?;
        ensure!(restarts.trim() == "NRestarts=0", "{restarts}");
        Ok(())
    })
}

/// Another letter in the middle of a PEM text.
fn one_byte_changed(text: &str) -> Result<String> {
    let middle = text.len() / 2;
    let place = text[middle..].find(|c: char| c.is_ascii_alphanumeric());
    let place = middle + place.context("no letter")?;
    let other = if text.as_bytes()[place] == b'A' {
        "B"
    } else {
        "A"
    };
    let mut changed = text.to_owned();
    changed.replace_range(place..=place, other);
    Ok(changed)
}

/// The version that the settings name.
fn kubernetes_version(cluster: &Cluster) -> Result<String> {
    let settings = std::fs::read_to_string(cluster.path("cluster.yaml"))?;
    let line = settings
        .lines()
        .find_map(|line| line.strip_prefix("kubernetesVersion: "));
    Ok(line.context("no version in the settings")?.to_owned())
}

/// F30: an upload that was cut, within a file that is plain text and within one
/// that is packed, and one with another byte in a packed file. Whatever of the
/// document arrives first has to be enough to say so.
#[test]
fn f30_cut_documents_are_named() -> Result<()> {
    with_cluster("f30_cut_documents_are_named", |cluster| {
        let mut damaged = Vec::new();
        for (name, file, cut) in [
            ("node-1", "/etc/kubernetes/pki/kubelet.key", true),
            ("node-2", "/etc/kubernetes/kubelet.yaml", true),
            ("node-3", "/etc/kubernetes/kubelet.yaml", false),
        ] {
            let mut text = cluster.user_data(name, "cloud-init")?;
            let entry = text
                .find(&format!("- path: {file}\n"))
                .context("no entry")?;
            let content = text[entry..].find("  content: ").context("no content")?;
            let place = entry + content + 120;
            if cut {
                text.truncate(place);
            } else {
                let other = if text.as_bytes()[place] == b'A' {
                    "B"
                } else {
                    "A"
                };
                text.replace_range(place..=place, other);
            }
            cluster.boot_with(name, text.as_bytes())?;
            damaged.push((name, file));
        }
        for (name, file) in damaged {
            cluster.node(name)?.wait_for_cloud_init(LIMIT)?;
            let failure = wait::until(
                &format!("{name}: a failure"),
                Duration::from_secs(30),
                || {
                    let failure = first_failure(&cluster.status(name)?.unwrap_or_default());
                    Ok((!failure.is_null()).then_some(failure))
                },
            )?;
            let message = failure["message"].as_str().unwrap_or_default();
            ensure!(
                failure["code"] == "E-CONFIG-ALTERED" && message.contains(file),
                "{name}: {failure:#}"
            );
            told_on_console(cluster, name, "E-CONFIG-ALTERED", file)?;
        }
        Ok(())
    })
}
