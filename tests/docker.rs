//! The distribution's Docker daemon on a machine of its own, reached over TLS
//! by a real client from outside (P19).

use std::fs;
use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Machine};
use tests::command::{Output, run_within};
use tests::document::Document;
use tests::scenario::on_cluster;
use tests::{artifacts, image, wait};

const NODE: &str = "node-1";
const MACHINES: [Machine; 2] = [Machine::new("master", "master"), Machine::new(NODE, "node")];
const HOST: &str = "tcp://10.99.0.12:2376";
const LIMIT: Duration = Duration::from_secs(240);
/// What comes with the daemon: Debian's own packages.
const PACKAGES: [&str; 1] = ["docker.io"];

/// Needs no Kubernetes: Docker waits for no master.
#[test]
fn p19_docker_answers_its_operator_and_nobody_else() -> Result<()> {
    const NAME: &str = "p19_docker_answers_its_operator_and_nobody_else";
    on_cluster(
        NAME,
        || Cluster::new(&MACHINES),
        |cluster| {
            cluster.install(&PACKAGES);
            cluster.configure("docker: {expose: true}\n")?;
            scenario(cluster)
        },
    )
}

fn scenario(cluster: &mut Cluster) -> Result<()> {
    cluster.kgen(&["render", "-o", "out"])?.ok()?;
    cluster.boot(NODE)?;
    let step = cluster.wait_for_step(NODE, "docker", LIMIT)?;
    let told = step["detail"].as_str().unwrap_or_default();
    ensure!(told.contains("its certificate is good for 36"), "{step:#}");
    the_operator_is_let_in(cluster)?;
    nobody_else_is(cluster)?;
    the_key_is_for_root_alone(cluster)?;
    a_killed_daemon_is_back(cluster)?;
    a_frozen_daemon_is_restarted_with_evidence(cluster)?;
    a_new_certificate_is_served(cluster)
}

/// Runs the client with what `docker.env` says, or with something else.
fn docker(cluster: &Cluster, folder: Option<&str>, arguments: &[&str]) -> Result<Output> {
    let script = cluster.path(&format!("out/{NODE}/docker.env"));
    let mut shell = cluster.network().command("sh");
    shell
        .args([
            "-euc",
            ". \"$1\"; [ -z \"$2\" ] || DOCKER_CERT_PATH=$2; shift 2; exec \"$@\"",
            "sh",
        ])
        .arg(script)
        .arg(folder.unwrap_or_default())
        .arg(artifacts::docker_client()?)
        .args(arguments)
        .env("HOME", cluster.path("home"));
    run_within(&mut shell, b"", Duration::from_secs(60))
}

fn the_operator_is_let_in(cluster: &Cluster) -> Result<()> {
    let version = ["version", "--format", "{{json .Server}}"];
    let server: Value = serde_json::from_str(&docker(cluster, None, &version)?.ok()?)?;
    ensure!(server["Os"] == "linux", "{server:#}");
    // A container goes in, and runs.
    let layer = cluster.path("web.tar");
    fs::write(&layer, layer_of(&image::Image::web()?)?)?;
    let layer = layer.to_string_lossy();
    let entry = r#"--change=ENTRYPOINT ["/web"]"#;
    docker(cluster, None, &["import", entry, &layer, "web:1"])?.ok()?;
    let run = ["run", "--detach", "--network=none", "--name=web", "web:1"];
    docker(cluster, None, &run)?.ok()?;
    wait::until("the container's first words", LIMIT, || {
        let logs = docker(cluster, None, &["logs", "web"])?.ok()?;
        Ok(logs.contains("listening on").then_some(()))
    })?;
    docker(cluster, None, &["rm", "--force", "web"])?.ok()?;
    Ok(())
}

/// The one layer of an image: it is by far the largest of its blobs.
fn layer_of(image: &image::Image) -> Result<Vec<u8>> {
    let archive = fs::read(image.archive())?;
    let mut layer = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries()? {
        let mut entry = entry?;
        if entry.size() > layer.len() as u64 {
            layer.clear();
            entry.read_to_end(&mut layer)?;
        }
    }
    Ok(layer)
}

/// No certificate, and one of another authority: kubelets are no clients.
fn nobody_else_is(cluster: &Cluster) -> Result<()> {
    let (ca, stranger) = (cluster.path("out/docker/ca.pem"), cluster.path("stranger"));
    fs::create_dir(&stranger)?;
    for (from, to) in [
        (ca.clone(), "ca.pem"),
        (cluster.path("pki/admin.crt"), "cert.pem"),
        (cluster.path("pki/admin.key"), "key.pem"),
    ] {
        fs::copy(&from, stranger.join(to))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    let refused = docker(cluster, Some(&stranger.to_string_lossy()), &["ps"])?;
    ensure!(!refused.success(), "another authority's client was let in");
    ensure!(
        refused.stderr.contains("tls: ") || refused.stderr.contains("certificate"),
        "{}",
        refused.stderr
    );
    let mut without = cluster.network().command(artifacts::docker_client()?);
    without
        .args(["--host", HOST, "--tls", "--tlscacert"])
        .arg(&ca)
        .arg("ps")
        .env("HOME", cluster.path("home"));
    let refused = run_within(&mut without, b"", Duration::from_secs(60))?;
    ensure!(
        !refused.success(),
        "a client without a certificate was let in"
    );
    ensure!(
        refused.stderr.contains("certificate required"),
        "{}",
        refused.stderr
    );
    let mut plain: Command = cluster.network().command("curl");
    plain.args(["--silent", "--fail", "http://10.99.0.12:2376/_ping"]);
    let plain = run_within(&mut plain, b"", Duration::from_secs(60))?;
    ensure!(!plain.success(), "it answers without TLS");
    Ok(())
}

fn the_key_is_for_root_alone(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(NODE)?;
    let modes =
        node.sh("stat --format='%a %U %n' /etc/docker/tls/server.key; ls /etc/docker/tls")?;
    let expected = "600 root /etc/docker/tls/server.key\nca.crt\nserver.crt\nserver.key\n";
    ensure!(modes == expected, "{modes}");
    Ok(())
}

fn service(cluster: &mut Cluster) -> Result<Value> {
    let status = cluster.status(NODE)?.unwrap_or_default();
    let services = status["services"].as_array();
    let found = services
        .into_iter()
        .flatten()
        .find(|s| s["name"] == "docker");
    Ok(found.cloned().unwrap_or_default())
}

fn healthy(cluster: &mut Cluster) -> Result<()> {
    wait::until("docker healthy", LIMIT, || {
        Ok((service(cluster)?["condition"] == "healthy").then_some(()))
    })
    .with_context(|| format!("{:#}", service(cluster).unwrap_or_default()))
}

fn pid(cluster: &mut Cluster) -> Result<String> {
    let node = cluster.node(NODE)?;
    node.sh("systemctl show --property=MainPID --value docker")
}

fn another_daemon(cluster: &mut Cluster, before: &str) -> Result<()> {
    wait::until("another daemon that answers", LIMIT, || {
        let now = pid(cluster)?;
        let another = now != before && now.trim() != "0";
        Ok((another && docker(cluster, None, &["ps"])?.success()).then_some(()))
    })
}

fn a_killed_daemon_is_back(cluster: &mut Cluster) -> Result<()> {
    healthy(cluster)?;
    let before = pid(cluster)?;
    cluster.node(NODE)?.sh("kill -KILL $(pidof dockerd)")?;
    another_daemon(cluster, &before)
}

/// P34, F17: what lives and does not answer is restarted, its state kept before.
fn a_frozen_daemon_is_restarted_with_evidence(cluster: &mut Cluster) -> Result<()> {
    healthy(cluster)?;
    let before = pid(cluster)?;
    cluster.node(NODE)?.sh("kill -STOP $(pidof dockerd)")?;
    another_daemon(cluster, &before)?;
    let node = cluster.node(NODE)?;
    let reason = node.sh("cat /var/lib/knode/evidence/*-docker/reason.txt")?;
    ensure!(reason.contains("docker"), "{reason}");
    healthy(cluster)
}

/// What a new document brings is served without anybody's doing; its
/// node.yaml is what knode looks at, so it comes last.
fn a_new_certificate_is_served(cluster: &mut Cluster) -> Result<()> {
    let before = pid(cluster)?;
    cluster.kgen(&["certs", "renew", "docker/server"])?.ok()?;
    let document = Document::new(cluster.user_data(NODE, "cloud-init")?);
    for path in [
        "/etc/docker/tls/server.key",
        "/etc/docker/tls/server.crt",
        "/etc/knode/node.yaml",
    ] {
        // The file that is there keeps its mode.
        let node = cluster.node(NODE)?;
        node.write_file(path, document.content(path)?.as_bytes())?;
    }
    another_daemon(cluster, &before)
}
