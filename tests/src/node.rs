//! A machine to install on: a container that behaves like a fresh Debian cloud server.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::cloud_init::Status;
use crate::command::{Output, run_within};
pub use crate::container::Ended;
use crate::container::{Container, PATH, Plan, last_words};
use crate::disk::Disk;
use crate::image::Image;
use crate::network::Network;
use crate::{rootfs, wait};

const SEED: &str = "var/lib/cloud/seed/nocloud";
const EXEC_LIMIT: Duration = Duration::from_secs(60);
const OFF_LIMIT: Duration = Duration::from_secs(120);

/// What the cloud would know of a machine.
#[derive(Debug, Clone)]
pub struct Meta {
    /// A new one makes cloud-init run its once-per-instance modules again.
    pub instance_id: String,
    /// The host name that cloud-init gives the machine.
    pub hostname: String,
    /// Replaces the static address and gateway: cloud-init's network configuration,
    /// version 2, in YAML or JSON.
    pub network_config: Option<String>,
}

impl Meta {
    /// A machine called `hostname`, first instance.
    pub fn new(hostname: &str) -> Self {
        Self {
            instance_id: format!("i-{hostname}-1"),
            hostname: hostname.to_owned(),
            network_config: None,
        }
    }
}

/// What systemd says of the whole system once it has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// Everything that was to start has started.
    Running,
    /// These units failed.
    Degraded(Vec<String>),
}

/// A machine with a disk, a place on a network, and a power switch.
#[derive(Debug)]
pub struct Node {
    // The order is that of dropping: first the processes, then the disk, then the network.
    container: Option<Container>,
    disk: Disk,
    name: String,
    address: Ipv4Addr,
    machine: String,
    directory: PathBuf,
    started: Instant,
    network: Network,
}

impl Node {
    /// A new machine that is off, with a fresh disk. `name` is a host name.
    pub fn new(network: &Network, name: &str, address: Ipv4Addr) -> Result<Self> {
        Self::with_packages(network, name, address, &[])
    }

    /// The same on an image that has these packages of Debian besides.
    pub fn with_packages(
        network: &Network,
        name: &str,
        address: Ipv4Addr,
        packages: &[&str],
    ) -> Result<Self> {
        ensure!(
            network.address().contains(&address),
            "{address} is not in {}",
            network.address()
        );
        let is_host_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        ensure!(
            name.starts_with(|first: char| first.is_ascii_alphanumeric())
                && name.bytes().all(is_host_name),
            "{name:?} is no host name"
        );
        let directory = network.scope().directory().join(name);
        ensure!(!directory.exists(), "there is already a node {name}");
        let layers = rootfs::layers(packages)?;
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        fs::write(directory.join("console.log"), "")?;
        let disk = Disk::new(&directory, &layers).with_context(|| format!("a disk for {name}"))?;
        Ok(Self {
            container: None,
            disk,
            name: name.to_owned(),
            address,
            machine: network.scope().machine(),
            directory,
            started: Instant::now(),
            network: network.clone(),
        })
    }

    /// Puts user-data on the disk and switches the machine on.
    pub fn boot(&mut self, user_data: &[u8], meta: &Meta) -> Result<()> {
        self.seed(user_data, meta)?;
        self.start()
    }

    /// Puts user-data on the disk for cloud-init to find, instead of what was there.
    pub fn seed(&self, user_data: &[u8], meta: &Meta) -> Result<()> {
        let seed = self.disk().join(SEED);
        fs::create_dir_all(&seed).with_context(|| format!("making {}", seed.display()))?;
        let meta_data = json!({
            "instance-id": meta.instance_id,
            "local-hostname": meta.hostname,
        });
        let network = meta.network_config.clone().unwrap_or_else(|| {
            let address = format!("{}/{}", self.address, self.network.address().prefix_len());
            let route = json!({"to": "0.0.0.0/0", "via": self.network.gateway()});
            let host0 = json!({"addresses": [address], "routes": [route]});
            json!({"version": 2, "ethernets": {"host0": host0}}).to_string()
        });
        for (name, content) in [
            ("meta-data", meta_data.to_string().as_bytes()),
            ("network-config", network.as_bytes()),
            ("user-data", user_data),
        ] {
            fs::write(seed.join(name), content)
                .with_context(|| format!("writing {name} of {}", self.name))?;
        }
        Ok(())
    }

    /// Switches the machine on with what is on its disk.
    pub fn start(&mut self) -> Result<()> {
        ensure!(!self.is_on(), "{} is already on", self.name);
        self.started = Instant::now();
        let container = Container::start(&Plan {
            network: &self.network,
            machine: &self.machine,
            hostname: "localhost",
            root: &self.disk(),
            group: &self.group(),
            console: &self.console_path(),
        })
        .with_context(|| format!("starting {}", self.name))?;
        self.container = Some(container);
        Ok(())
    }

    /// Waits until systemd has nothing more to start, then says how that went.
    pub fn wait_for_system(&mut self, limit: Duration) -> Result<System> {
        let deadline = Instant::now() + limit;
        loop {
            self.check_on()?;
            let state = self.exec(&["systemctl", "is-system-running"])?;
            match state.stdout.trim() {
                "running" => return Ok(System::Running),
                "degraded" => return Ok(System::Degraded(self.failed_units()?)),
                state if Instant::now() >= deadline => {
                    bail!(
                        "{} is still '{state}' after {limit:?}; its console ends with: {}",
                        self.name,
                        last_words(&self.console_path())
                    );
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Waits until cloud-init has finished, well or not.
    pub fn wait_for_cloud_init(&mut self, limit: Duration) -> Result<Status> {
        wait::until("end of cloud-init", limit, || {
            let status = self.cloud_init_status()?;
            Ok(status.is_finished().then_some(status))
        })
        .with_context(|| format!("waiting for cloud-init on {}", self.name))
    }

    /// What cloud-init says of itself now.
    pub fn cloud_init_status(&self) -> Result<Status> {
        // Its exit status only repeats what the output says.
        let output = self.exec(&["cloud-init", "status", "--format", "json"])?;
        Status::parse(&output.stdout).with_context(|| output.stderr)
    }

    /// The units that failed.
    pub fn failed_units(&self) -> Result<Vec<String>> {
        let list = self.sh("systemctl list-units --failed --plain --no-legend")?;
        let names = list.lines().filter_map(|line| line.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Runs a program inside as root, with a minute to finish.
    pub fn exec(&self, arguments: &[&str]) -> Result<Output> {
        self.exec_within(arguments, b"", EXEC_LIMIT)
    }

    /// Runs a program inside as root, with `input` and a time limit.
    pub fn exec_within(&self, arguments: &[&str], input: &[u8], limit: Duration) -> Result<Output> {
        let container = self
            .container
            .as_ref()
            .with_context(|| format!("{} is off", self.name))?;
        run_within(container.command()?.args(arguments), input, limit)
            .with_context(|| format!("on {}: {}", self.name, arguments.join(" ")))
    }

    /// Runs a program on the disk of a machine that is off: Debian's programs, with no
    /// systemd, no network and no processes but the program's own.
    pub fn exec_off(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        ensure!(!self.is_on(), "{} is on", self.name);
        let mut unshare = Command::new("unshare");
        unshare
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--uts",
                "--ipc",
                "--net",
            ])
            .arg("--mount-proc")
            .arg(format!("--root={}", self.disk().display()))
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        run_within(&mut unshare, input, EXEC_LIMIT)
            .with_context(|| format!("on the disk of {}: {}", self.name, arguments.join(" ")))
    }

    /// Runs a shell script inside and returns its output; any failure is an error.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-euc", script])?
            .ok()
            .with_context(|| format!("on {}: {script}", self.name))
    }

    /// A file's content, as the machine itself sees the path.
    pub fn read_file(&self, path: &str) -> Result<String> {
        let output = self.exec(&["cat", path])?.ok();
        output.with_context(|| format!("reading {path} on {}", self.name))
    }

    /// Writes a file inside, with its folder.
    pub fn write_file(&self, path: &str, content: &[u8]) -> Result<()> {
        let script = r#"mkdir -p "$(dirname "$1")" && cat >"$1""#;
        self.exec_within(&["sh", "-euc", script, "sh", path], content, EXEC_LIMIT)?
            .ok()
            .with_context(|| format!("writing {path} on {}", self.name))?;
        Ok(())
    }

    /// Whether the machine sees anything at the path.
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.exec(&["test", "-e", path])?.success())
    }

    /// A unit's journal, all boots.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.exec(&["journalctl", "--no-pager", "--output=cat", "-u", unit])?
            .ok()
    }

    /// Imports a container image into containerd, where the kubelet finds it.
    pub fn import(&self, image: &Image) -> Result<()> {
        let archive = fs::read(image.archive())
            .with_context(|| format!("reading {}", image.archive().display()))?;
        let import = ["ctr", "--namespace=k8s.io", "images", "import", "-"];
        self.exec_within(&import, &archive, EXEC_LIMIT)?
            .ok()
            .with_context(|| format!("importing {} on {}", image.reference(), self.name))?;
        Ok(())
    }

    /// Reboots in an orderly way; the disk stays. Returns once the machine is on again.
    pub fn reboot(&mut self) -> Result<()> {
        let ended = self.go_down("reboot")?;
        ensure!(ended == Ended::AskedForReboot, "{}: {ended:?}", self.name);
        self.start()
    }

    /// Switches off in an orderly way. The disk stays; [`Node::start`] switches on again.
    pub fn poweroff(&mut self) -> Result<()> {
        let ended = self.go_down("poweroff")?;
        ensure!(ended == Ended::PoweredOff, "{}: {ended:?}", self.name);
        Ok(())
    }

    /// Kills everything at once. The disk stays as it is at that moment, page cache
    /// included: nothing that was written is lost, but nothing gets to finish.
    pub fn kill(&mut self) -> Result<()> {
        self.check_on()?;
        self.container = None;
        Ok(())
    }

    /// Waits until the machine goes off by itself.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<Ended> {
        let container = self.container.as_mut();
        let container = container.with_context(|| format!("{} is off", self.name))?;
        let ended = wait::until("end of the machine", limit, || container.ended())
            .with_context(|| format!("waiting for {} to go off", self.name))?;
        self.container = None;
        Ok(ended)
    }

    /// Whether the machine is on, as far as is known without looking.
    pub fn is_on(&self) -> bool {
        self.container.is_some()
    }

    /// Since when it is on, or was last on.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its name, which is its host name once cloud-init has run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its root folder as the host sees it, also while it is off. Absolute links in it
    /// lead to the host's files.
    pub fn disk(&self) -> PathBuf {
        self.disk.root()
    }

    /// The file that gets what it writes to its console, over all boots.
    pub fn console_path(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// What it wrote to its console so far.
    pub fn console(&self) -> Result<String> {
        let path = self.console_path();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The process number, on the host, of its PID 1: `nsenter -a -t` enters the machine.
    pub fn init(&self) -> Option<i32> {
        self.container.as_ref().map(Container::init)
    }

    pub(crate) fn scope_name(&self) -> &str {
        self.network.name()
    }

    /// A group's name must not be the start of another's: machines are numbered.
    fn group(&self) -> String {
        let number = self.machine.rsplit('-').next().unwrap_or_default();
        format!("{}-{number}", self.network.name())
    }

    fn check_on(&mut self) -> Result<()> {
        let container = self.container.as_mut();
        let container = container.with_context(|| format!("{} is off", self.name))?;
        if let Some(ended) = container.ended()? {
            self.container = None;
            bail!(
                "{} went off ({ended:?}); its console ends with: {}",
                self.name,
                last_words(&self.console_path())
            );
        }
        Ok(())
    }

    fn go_down(&mut self, verb: &str) -> Result<Ended> {
        self.check_on()?;
        let asked = self.exec(&["systemctl", "--no-block", verb])?;
        asked
            .ok()
            .with_context(|| format!("asking {} to {verb}", self.name))?;
        self.wait_for_end(OFF_LIMIT)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.leave_evidence();
    }
}
