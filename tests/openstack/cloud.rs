//! A cloud in a network of its own: a real Neutron, books for what is beside it, and the
//! real openstack client.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Output, run, run_within};
use tests::network::Network;
use tests::{rootfs, wait};

/// What runs in it.
const PROGRAMS: [(&str, &str); 4] = [
    ("neutron_for_tests.py", include_str!("neutron_for_tests.py")),
    ("cloud.py", include_str!("cloud.py")),
    ("client.py", include_str!("client.py")),
    ("judge_stack.py", include_str!("judge_stack.py")),
];
/// Starts the servers in a view of the root in which FOLDER is where it is outside, and
/// ends with all of them.
const SERVE: &str = r#"
set -eu
root=$1 folder=$2 without=$3
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
export HOME=/tmp PYTHONPATH="$folder"
python() { chroot "$root" /usr/bin/python3 "$@" >"$folder/$name.log" 2>&1 & }
name=neutron python "$folder/neutron_for_tests.py" "$folder/neutron" 9696 $without
name=cloud python "$folder/cloud.py" 5000 http://127.0.0.1:9696 "$folder/books.json"
name=client python "$folder/client.py" serve "$folder/client.sock"
wait
"#;
/// Runs one program the same way.
const ONCE: &str = r#"
set -eu
root=$1 folder=$2
shift 2
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
HOME=/tmp exec chroot "$root" /usr/bin/python3 "$@"
"#;
/// How long it may take until all answers, on a machine that does much else.
const START: Duration = Duration::from_secs(300);
/// How long one script may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Neutron's address.
const NEUTRON: &str = "http://127.0.0.1:9696";

/// A cloud, for as long as the test has it.
pub struct Cloud {
    network: Network,
    folder: TempDir,
    servers: Child,
}

impl Cloud {
    /// One whose Neutron has all its extensions but those in `without`.
    pub fn start(without: &str) -> Result<Self> {
        let root = rootfs::openstack()?;
        // The view of the root has this folder at the same path, beneath /tmp.
        let folder = folder()?;
        let network = Network::new("10.99.0.1/24".parse()?)?;
        let client = folder.path().join("bin/openstack");
        fs::create_dir(folder.path().join("bin"))?;
        let asks = format!(
            "#!/bin/sh\nexec /usr/bin/python3 -S -I {0}/client.py ask {0}/client.sock \"$@\"\n",
            folder.path().display()
        );
        fs::write(&client, asks)?;
        fs::set_permissions(&client, Permissions::from_mode(0o755))?;
        let servers = network
            .command("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
            ])
            .args(["--kill-child", "sh", "-c", SERVE, "sh"])
            .args([root.as_path(), folder.path()])
            .arg(without)
            .stdin(Stdio::null())
            .spawn()
            .context("starting a cloud")?;
        let cloud = Self {
            network,
            folder,
            servers,
        };
        wait::until("the cloud answers", START, || {
            let socket = cloud.folder.path().join("client.sock");
            let listening = cloud.network.inside(|| {
                let there = |port: u16| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
                Ok(there(9696) && there(5000))
            });
            Ok((listening? && socket.exists()).then_some(()))
        })
        .with_context(|| cloud.logs())?;
        Ok(cloud)
    }

    /// A folder that scripts and the client see alike.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// A command with an operator's credentials, in the folder.
    pub fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let mut command = self.network.command(program.as_ref());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.folder.path().join("bin")]
            .into_iter()
            .chain(std::env::split_paths(&path));
        fs::create_dir_all(self.folder())?;
        command
            .current_dir(self.folder())
            .env("PATH", std::env::join_paths(path)?)
            .env("HOME", self.folder())
            .env("OS_AUTH_URL", "http://127.0.0.1:5000/identity")
            .env("OS_USERNAME", "ops")
            .env("OS_PASSWORD", "hunter2")
            .env("OS_PROJECT_NAME", "demo")
            .env("OS_USER_DOMAIN_ID", "default")
            .env("OS_PROJECT_DOMAIN_ID", "default")
            .env("OS_REGION_NAME", "here");
        Ok(command)
    }

    /// What a program of the operator's did.
    pub fn run(&self, program: impl AsRef<Path>, words: &[&str]) -> Result<Output> {
        let mut command = self.command(program)?;
        let output = run_within(command.args(words), b"", LIMIT)?;
        if output.stderr.contains("HttpException: 5") {
            bail!("{}\n{}", output.stderr, self.logs());
        }
        Ok(output)
    }

    /// What Neutron answers an administrator.
    pub fn neutron(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.ask("an-admin-token", method, path, body)
    }

    /// What it answers the operator.
    pub fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let mut curl = self.network.command("curl");
        curl.args(["-sS", "--fail-with-body", "-X", method])
            .arg("-H")
            .arg(format!("X-Auth-Token: {token}"))
            .args(["-H", "Content-Type: application/json"])
            .arg(format!("{NEUTRON}/v2.0/{path}"));
        if let Some(body) = body {
            curl.arg("-d").arg(body.to_string());
        }
        let text = run(&mut curl)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// What is listed of a kind.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let answer = self.neutron("GET", kind, None)?;
        let list = answer[kind.split('?').next().unwrap_or(kind)].as_array();
        Ok(list.context("no list")?.clone())
    }

    /// What is beside Neutron.
    pub fn books(&self) -> Result<Value> {
        let text = fs::read_to_string(self.folder.path().join("books.json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.len().saturating_sub(30);
            format!("{name}:\n{}\n", lines[last..].join("\n"))
        };
        ["neutron.log", "cloud.log", "client.log"]
            .map(tail)
            .concat()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // With the first process of their namespace all go.
        self.servers.kill().ok();
        self.servers.wait().ok();
    }
}

/// A folder beneath /tmp with the programs in it.
fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("knode-cloud-")
        .tempdir_in("/tmp")?;
    for (name, text) in PROGRAMS {
        fs::write(folder.path().join(name), text)?;
    }
    Ok(folder)
}

/// What Heat's engine makes of a template and its environment: the order in which things
/// would be made. The documents, as Nova would get them, are put into `documents`.
pub fn judge(
    stack: &str,
    environment: &str,
    documents: &Path,
    parameters: &[&str],
) -> Result<Vec<String>> {
    let root = rootfs::openstack()?;
    let folder = folder()?;
    let path = |name: &str| folder.path().join(name);
    fs::write(path("stack.yaml"), stack)?;
    fs::write(path("environment.yaml"), environment)?;
    fs::create_dir(path("documents"))?;
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--net", "sh", "-c", ONCE, "sh"])
        .args([root.as_path(), folder.path()])
        .args(
            [
                "judge_stack.py",
                "stack.yaml",
                "environment.yaml",
                "documents",
            ]
            .map(path),
        )
        .args(parameters);
    let output = run_within(&mut unshare, b"", LIMIT)?;
    let order = output.ok()?;
    for entry in fs::read_dir(path("documents"))? {
        let entry = entry?;
        fs::copy(entry.path(), documents.join(entry.file_name()))?;
    }
    let order: Vec<String> = order.lines().map(str::to_owned).collect();
    ensure!(!order.is_empty(), "nothing would be made");
    Ok(order)
}
