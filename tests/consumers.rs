//! The documents in the hands of their real readers: cloud-init's schema, PyYAML and
//! cloud-init's own decoding, systemd's reading of the units, coreos-cloudinit.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tests::cluster::{Cluster, Machine};
use tests::command::run;
use tests::network::Network;
use tests::node::{Meta, Node};
use tests::programs::Programs;
use tests::{report, wait};
use units::NodeConfig;

const LIMIT: Duration = Duration::from_secs(120);
/// Prints what cloud-init's reader makes of a document.
const READ: &str = include_str!("consumers.py");
/// A ring of etcd of its own.
const RING: &str = "\
name: test
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: node-1, role: node, address: 10.0.0.11, labels: {example.com/rack: a1}}
- {name: node-2, role: node, address: 10.0.0.12}
- {name: etcd-1, role: etcd, address: 10.0.0.21}
- {name: etcd-2, role: etcd, address: 10.0.0.22}
- {name: etcd-3, role: etcd, address: 10.0.0.23}
";
/// containerd of the distribution, and what needs quoting somewhere.
const ODD: &str = "\
name: test
runtime: {source: distribution}
apiServer: {extraArgs: {v: \"2\", authorization-webhook-version: 'v1 $HOME 50% \"q\"'}}
kubelet: {config: {a: \"$private_ipv4 {{ x }}\", b: 'yes', c: \"MIME-Version: 1\"}}
nodes:
- {name: 'off', role: master, address: 10.0.0.10}
- {name: '1234', role: node, address: 10.0.0.11, taints: [{key: a, value: 'yes', effect: NoExecute}]}
";

/// The operating system's side.
const SURROUNDED: &str = "\
name: test
proxy: {http: 'http://u:p%40@proxy:3128', https: 'http://proxy:3128'}
ntp: {servers: [time.example.com]}
ssh: {authorizedKeys: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBZbfAqJaC5IZUUG35d9b9SRRvo82jvYblSpYtQtbVq1 ops@example.com']}
registries:
- host: docker.io
  mirrors: [{url: 'https://m:5000', login: {username: u, password: p}}]
files: [{path: /etc/motd, content: \"$private_ipv4\\n\"}]
units:
- {name: own.service, start: true, content: \"[Service]\\nExecStart=/bin/true\\n\"}
- {name: kubelet.service, dropIns: [{name: 30-nice.conf, content: \"[Service]\\nNice=-5\\n\"}]}
hooks: {beforeKnode: \"#!/bin/sh\\ntrue\\n\", afterReady: \"#!/bin/sh\\ntrue\\n\"}
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: node-1, role: node, address: 10.0.0.11}
";

/// One document: the settings it is of, its role and machine.
#[derive(Debug, Clone, Copy)]
struct Case {
    settings: Option<&'static str>,
    role: &'static str,
    name: Option<&'static str>,
}

/// Every role of a cluster with a ring, both of the built-in one, of an odd one, and
/// one that brings more than Kubernetes.
const CASES: [Case; 9] = [
    case(Some(RING), "master", Some("master")),
    case(Some(RING), "node", Some("node-1")),
    case(Some(RING), "etcd", Some("etcd-2")),
    case(None, "master", None),
    case(None, "node", None),
    case(Some(ODD), "master", None),
    case(Some(ODD), "node", Some("1234")),
    case(Some(SURROUNDED), "master", None),
    case(Some(SURROUNDED), "node", None),
];

const fn case(
    settings: Option<&'static str>,
    role: &'static str,
    name: Option<&'static str>,
) -> Case {
    Case {
        settings,
        role,
        name,
    }
}

/// A document, the folder it was made in, and a disk with Debian's programs.
struct Subject {
    case: Case,
    text: String,
    folder: TempDir,
    disk: Node,
}

/// What cloud-init's reader sees.
#[derive(Debug, Deserialize)]
struct Read {
    document: Value,
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
struct File {
    path: String,
    permissions: String,
    quoted: bool,
    mode: u32,
    owner: String,
    text: String,
    /// Blobs within the text, decoded.
    inner: Vec<String>,
}

impl Subject {
    fn new(case: Case, format: &str, network: &Network, programs: &Programs) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        if let Some(settings) = case.settings {
            fs::write(folder.path().join("cluster.yaml"), settings)?;
        }
        // Masters come first: then all keys are there that others must not have.
        let mut kgen = Command::new(&programs.kgen);
        run(kgen.current_dir(folder.path()).args(["--role", "master"]))?;
        let mut kgen = Command::new(&programs.kgen);
        kgen.current_dir(folder.path())
            .args(["--format", format, "--role", case.role])
            .args(case.name.map(|name| format!("--name={name}")));
        let text = run(&mut kgen)?;
        let disk = Node::new(network, "reader", Ipv4Addr::new(10, 99, 0, 11))?;
        fs::write(disk.disk().join("mnt/user-data"), &text)?;
        Ok(Self {
            case,
            text,
            folder,
            disk,
        })
    }

    /// Through PyYAML and cloud-init's own decoding.
    fn read(&self) -> Result<Read> {
        let arguments = ["python3", "-", "/mnt/user-data"];
        let output = self.disk.exec_off(&arguments, READ.as_bytes())?;
        ensure!(output.stderr.is_empty(), "{}", output.stderr);
        serde_json::from_str(&output.ok()?).context("reading what Python printed")
    }
}

/// Does the same with every document of a format.
fn each(name: &str, format: &str, look: impl Fn(&Subject) -> Result<()>) -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip(name, &reason);
        return Ok(());
    }
    let programs = Programs::build()?;
    for case in CASES {
        // One network each: a disk belongs to a network, and is named once there.
        let network = Network::new("10.99.0.1/24".parse()?)?;
        let subject = Subject::new(case, format, &network, &programs)?;
        look(&subject).with_context(|| format!("{format}: {case:?}"))?;
    }
    Ok(())
}

#[test]
fn cloud_init_finds_nothing_wrong() -> Result<()> {
    each("cloud_init_finds_nothing_wrong", "cloud-init", |subject| {
        let arguments = ["cloud-init", "schema", "--config-file", "/mnt/user-data"];
        let output = subject.disk.exec_off(&arguments, b"")?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.success(), "{said}");
        ensure!(said.trim() == "Valid schema /mnt/user-data", "{said}");
        let annotated = ["cloud-init", "schema", "--annotate", "-c", "/mnt/user-data"];
        let said = subject.disk.exec_off(&annotated, b"")?.ok()?;
        ensure!(!said.contains("# Deprecations"), "{said}");
        let read = subject.read()?;
        files_are_as_meant(&read)?;
        secrets_are_kept(subject, &read)?;
        units_are_understood(subject, &read)?;
        let document = read.document.as_object().context("no mapping")?;
        let keys: Vec<_> = document.keys().map(String::as_str).collect();
        let own = ["hostname", "preserve_hostname", "runcmd", "write_files"];
        ensure!(
            keys.iter()
                .all(|key| own.contains(key) || *key == "ssh_authorized_keys")
                && own.iter().all(|key| keys.contains(key)),
            "{keys:?}"
        );
        let commands = document["runcmd"].as_array().context("no list")?;
        for command in commands {
            let words = command
                .as_array()
                .context("a string: a shell would read it")?;
            ensure!(words.iter().all(Value::is_string), "{command}");
            // The boot waits for this stage, and the stage must not wait for the boot.
            ensure!(
                words.contains(&"daemon-reload".into()) || words.contains(&"--no-block".into()),
                "{command}"
            );
        }
        Ok(())
    })
}

#[test]
fn coreos_cloudinit_knows_every_key() -> Result<()> {
    each("coreos_cloudinit_knows_every_key", "coreos", |subject| {
        let text = &subject.text;
        ensure!(
            text.starts_with("#cloud-config\n"),
            "{:?}",
            text.lines().next()
        );
        for token in ["$private_", "$public_"] {
            ensure!(!text.contains(token), "{token} would be replaced");
        }
        let read = subject.read()?;
        files_are_as_meant(&read)?;
        secrets_are_kept(subject, &read)?;
        units_are_understood(subject, &read)?;
        only_known_keys(&read.document)?;
        let mut keys = BTreeSet::new();
        collect_keys(&read.document, &mut keys);
        let hyphenated: Vec<_> = keys.iter().filter(|key| key.contains('-')).collect();
        ensure!(hyphenated.is_empty(), "dropped silently: {hyphenated:?}");
        Ok(())
    })
}

/// Both dialects of a machine put the same bytes in the same places.
#[test]
fn both_readers_get_the_same_files() -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip("both_readers_get_the_same_files", &reason);
        return Ok(());
    }
    let programs = Programs::build()?;
    let network = Network::new("10.99.0.1/24".parse()?)?;
    let subject = Subject::new(CASES[0], "cloud-init", &network, &programs)?;
    let placed = |read: &Read| {
        let files = read.files.iter();
        let mut all: Vec<_> = files
            .map(|f| (f.path.clone(), f.mode, f.text.clone()))
            .collect();
        all.extend(coreos_units(&read.document));
        all.sort();
        all
    };
    let first = placed(&subject.read()?);
    let mut kgen = Command::new(&programs.kgen);
    kgen.current_dir(subject.folder.path());
    let other = run(kgen.args(["--role", "master", "--format", "coreos"]))?;
    fs::write(subject.disk.disk().join("mnt/user-data"), other)?;
    let second = placed(&subject.read()?);
    for (one, other) in first.iter().zip(&second) {
        ensure!(one == other, "{} and {} differ", one.0, other.0);
    }
    ensure!(
        first.len() == second.len() && first.len() > 20,
        "{}",
        first.len()
    );
    Ok(())
}

fn files_are_as_meant(read: &Read) -> Result<()> {
    let mut paths = BTreeSet::new();
    for file in &read.files {
        let path = &file.path;
        ensure!(paths.insert(path), "{path} twice");
        ensure!(path.starts_with("/etc/"), "{path}: not where this belongs");
        ensure!(
            file.quoted,
            "{path}: the mode {} is a number",
            file.permissions
        );
        let octal = |text: &str| text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        ensure!(
            file.permissions.len() == 4
                && file.permissions.starts_with('0')
                && octal(&file.permissions),
            "{path}: {}",
            file.permissions
        );
        let mode = u32::from_str_radix(&file.permissions, 8)?;
        ensure!(file.mode == mode, "{path}: read as {:o}", file.mode);
        ensure!(file.owner == "root:root", "{path}: of {}", file.owner);
        ensure!(file.text.ends_with('\n'), "{path}: cut");
        let entries = read.document["write_files"].as_array().context("no list")?;
        let entry = entries.iter().find(|entry| entry["path"] == path.as_str());
        let entry = entry.and_then(Value::as_object).context("no entry")?;
        let known = ["path", "permissions", "owner", "encoding", "content"];
        for key in entry.keys() {
            ensure!(known.contains(&key.as_str()), "{path}: {key}");
        }
    }
    Ok(())
}

fn secrets_are_kept(subject: &Subject, read: &Read) -> Result<()> {
    let mut secrets = 0;
    for file in &read.files {
        let all = || [&file.text].into_iter().chain(&file.inner);
        let kubeconfig = file.text.contains("kind: Config\n");
        let secret = kubeconfig
            || all().any(|text| text.contains("PRIVATE KEY"))
            || file.text.contains("kind: EncryptionConfiguration");
        ensure!(
            !secret || file.mode == 0o600,
            "{}: {:o}",
            file.path,
            file.mode
        );
        ensure!(
            file.mode == 0o600 || !file.path.ends_with(".key"),
            "{}: {:o}",
            file.path,
            file.mode
        );
        ensure!(
            !kubeconfig || file.inner.iter().any(|text| text.contains("PRIVATE KEY")),
            "{}: no key found in a kubeconfig: is this check blind?",
            file.path
        );
        secrets += usize::from(secret);
    }
    ensure!(secrets >= 3, "only {secrets} secrets: is this check blind?");
    // The keys of the whole cluster: workers have none.
    for key in ["ca.key", "front-proxy-ca.key", "etcd/ca.key", "sa.key"] {
        let text = fs::read_to_string(subject.folder.path().join("pki").join(key))?;
        let body = text
            .lines()
            .nth(1)
            .with_context(|| format!("{key} is empty"))?;
        let holders: Vec<&str> = read
            .files
            .iter()
            .filter(|file| {
                [&file.text]
                    .into_iter()
                    .chain(&file.inner)
                    .any(|text| text.contains(body))
            })
            .map(|file| file.path.as_str())
            .collect();
        // Members of etcd renew their own certificates.
        let holds = match subject.case.role {
            "master" => true,
            "etcd" => key == "etcd/ca.key",
            _ => false,
        };
        let wanted = holds.then(|| format!("/etc/kubernetes/pki/{key}"));
        let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
        ensure!(holders == wanted, "{key} is in {holders:?}");
    }
    Ok(())
}

/// The units that coreos-cloudinit writes by itself.
fn coreos_units(document: &Value) -> Vec<(String, u32, String)> {
    let units = document["coreos"]["units"].as_array().into_iter().flatten();
    let place = |unit: &Value| {
        let name = unit["name"].as_str().unwrap_or_default();
        let text = unit["content"].as_str().unwrap_or_default();
        (
            format!("/etc/systemd/system/{name}"),
            0o644,
            text.to_owned(),
        )
    };
    units.map(place).collect()
}

/// Lays the files onto the disk, with stand-ins for exactly those programs that
/// knode would bring, and has systemd verify all units.
fn units_are_understood(subject: &Subject, read: &Read) -> Result<()> {
    let root = subject.disk.disk();
    let mut units = Vec::new();
    let files = read
        .files
        .iter()
        .map(|file| (file.path.clone(), file.mode, file.text.clone()));
    for (path, mode, text) in files.chain(coreos_units(&read.document)) {
        place(&root, &path, mode, &text)?;
        if let Some(name) = path.strip_prefix("/etc/systemd/system/") {
            // A drop-in is read with its unit.
            units.push(name.split(".d/").next().unwrap_or(name).to_owned());
        }
    }
    units.sort();
    units.dedup();
    ensure!(units.len() >= 4, "{units:?}");
    let config = read
        .files
        .iter()
        .find(|file| file.path == units::paths::NODE_CONFIG);
    let config: NodeConfig = serde_yaml::from_str(&config.context("no node.yaml")?.text)?;
    let brought = config.artifacts.iter().flat_map(|artifact| &artifact.files);
    for path in brought
        .map(|file| file.path.as_str())
        .chain([units::paths::KNODE])
    {
        place(&root, path, 0o755, "#!/bin/sh\n")?;
    }
    let mut arguments = vec!["systemd-analyze", "verify", "--man=no"];
    arguments.extend(units.iter().map(String::as_str));
    let output = subject.disk.exec_off(&arguments, b"")?;
    ensure!(
        output.success() && output.stderr.is_empty() && output.stdout.is_empty(),
        "{units:?}: {}{}",
        output.stdout,
        output.stderr
    );
    // The check itself can fail.
    place(
        &root,
        "/etc/systemd/system/knode.service.d/99.conf",
        0o644,
        "[Service]\nNoSuchKey=1\n",
    )?;
    let output = subject.disk.exec_off(&arguments, b"")?;
    ensure!(output.stderr.contains("NoSuchKey"), "{}", output.stderr);
    Ok(())
}

fn place(root: &Path, path: &str, mode: u32, text: &str) -> Result<()> {
    let target = root.join(path.trim_start_matches('/'));
    let folder = target.parent().context("no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(&target, text).with_context(|| format!("writing {}", target.display()))?;
    fs::set_permissions(&target, Permissions::from_mode(mode))?;
    Ok(())
}

/// Source: coreos-cloudinit's config/config.go and what it includes.
fn only_known_keys(document: &Value) -> Result<()> {
    let known = |what: &str, value: &Value, keys: &[&str]| -> Result<()> {
        for key in value
            .as_object()
            .with_context(|| format!("{what}: no mapping"))?
            .keys()
        {
            ensure!(keys.contains(&key.as_str()), "{what}: {key}");
        }
        Ok(())
    };
    known(
        "document",
        document,
        &[
            "coreos",
            "ssh_authorized_keys",
            "hostname",
            "users",
            "write_files",
            "manage_etc_hosts",
        ],
    )?;
    known(
        "coreos",
        &document["coreos"],
        &["units", "update", "locksmith", "flannel", "oem"],
    )?;
    let encodings = [
        "b64",
        "base64",
        "gz",
        "gzip",
        "gz+b64",
        "gz+base64",
        "gzip+b64",
        "gzip+base64",
    ];
    for file in document["write_files"].as_array().context("no files")? {
        known(
            "file",
            file,
            &["path", "content", "owner", "permissions", "encoding"],
        )?;
        let encoding = file["encoding"].as_str();
        ensure!(
            encoding.is_none_or(|it| encodings.contains(&it)),
            "{encoding:?}"
        );
    }
    for unit in document["coreos"]["units"].as_array().context("no units")? {
        let keys = [
            "name", "mask", "enable", "runtime", "content", "command", "drop_ins",
        ];
        known("unit", unit, &keys)?;
        // It waits for each; only what has no ordering after what it wants returns.
        let name = unit["name"].as_str().unwrap_or_default();
        ensure!(
            name.ends_with(".target") && unit["command"] == "start",
            "{unit}"
        );
        ensure!(unit["enable"] == true, "{unit}");
    }
    Ok(())
}

fn collect_keys(value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                keys.insert(key.clone());
                collect_keys(value, keys);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

/// The real coreos-cloudinit executes a document; a machine with cloud-init executes
/// the same machine's other document; what lands is the same.
#[test]
fn coreos_cloudinit_does_the_same_as_cloud_init() -> Result<()> {
    const NAME: &str = "coreos_cloudinit_does_the_same_as_cloud_init";
    let binary = env::var_os("COREOS_CLOUDINIT").filter(|it| !it.is_empty());
    let Some(binary) = binary.map(PathBuf::from) else {
        report::skip(NAME, "no $COREOS_CLOUDINIT");
        return Ok(());
    };
    if let Some(reason) = report::nodes_missing() {
        report::skip(NAME, &reason);
        return Ok(());
    }
    let machine = Machine::new;
    let mut cluster = Cluster::new(&[machine("master", "master"), machine("node-1", "node")])?;
    cluster.boot("node-1")?;
    let document = cluster.user_data("node-1", "coreos")?;
    let mut other = Node::new(cluster.network(), "flatcar", Ipv4Addr::new(10, 99, 0, 99))?;
    let copy = other.disk().join("root/coreos-cloudinit");
    fs::copy(&binary, &copy).with_context(|| format!("copying {}", binary.display()))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    fs::write(other.disk().join("root/user-data"), &document)?;
    other.boot(b"#cloud-config\n", &Meta::new("flatcar"))?;
    other.wait_for_system(LIMIT)?;
    ensure!(
        !other.exists("/etc/knode")?,
        "nothing of ours before it ran"
    );

    for argument in ["-validate", "-ssh-key-name=none"] {
        let arguments = [
            "/root/coreos-cloudinit",
            "-from-file=/root/user-data",
            argument,
        ];
        let output = other.exec(&arguments)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.success(), "{argument}: {said}");
        let complaints = ["warning", "error", "fail", "panic"];
        let complains = said.to_lowercase();
        ensure!(
            !complaints.iter().any(|word| complains.contains(word)),
            "{argument}: {said}"
        );
        println!("coreos-cloudinit {argument}: {}", said.lines().count());
    }

    let node = cluster.node("node-1")?;
    let status = node.wait_for_cloud_init(LIMIT)?;
    ensure!(status.is_clean(), "{status:?}");
    let document: Value = serde_yaml::from_str(&document)?;
    let files = document["write_files"].as_array().into_iter().flatten();
    let mut paths: Vec<String> = files
        .filter_map(|file| Some(file["path"].as_str()?.to_owned()))
        .collect();
    paths.extend(coreos_units(&document).into_iter().map(|(path, ..)| path));
    ensure!(paths.len() > 10, "{paths:?}");
    let look = format!(
        "for path in {}; do stat --format='%n %F %a %U:%G %s' $path; sha256sum <$path; done",
        paths.join(" ")
    );
    let (one, two) = (cluster.node("node-1")?.sh(&look)?, other.sh(&look)?);
    for (one, two) in one.lines().zip(two.lines()) {
        ensure!(one == two, "cloud-init: {one}\ncoreos-cloudinit: {two}");
    }
    ensure!(one == two, "not as many files");
    // Units are known, enabled and started, and start what they want.
    for node in [cluster.node("node-1")? as &Node, &other] {
        let state = node.sh("systemctl is-enabled kubernetes-node.target; hostname")?;
        ensure!(state == "enabled\nnode-1\n", "{}: {state}", node.name());
        wait::until("knode's status", LIMIT, || {
            Ok(node.exists("/run/knode/status.json")?.then_some(()))
        })
        .with_context(|| node.name().to_owned())?;
        let reload = node.sh("systemctl show --property=NeedDaemonReload kubernetes-node.target knode.service kubelet.service")?;
        ensure!(!reload.contains("yes"), "{}: {reload}", node.name());
    }
    let failed = other.failed_units()?;
    ensure!(failed.is_empty(), "{failed:?}");
    // It applies the document again at every boot, to a running machine.
    let again = other.exec(&["/root/coreos-cloudinit", "-from-file=/root/user-data"])?;
    ensure!(again.success(), "a second time: {}", again.stderr);
    ensure!(other.sh(&look)? == two, "a second time made a difference");
    Ok(())
}
