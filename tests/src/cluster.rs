//! A whole cluster made the way its users make one: a settings file, a lock
//! file, `kgen` for each machine's user-data, and machines that boot it.

mod deliver;
mod lock;
mod operator;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::artifact_server::ArtifactServer;
use crate::command::{Output, run_within};
use crate::image::Image;
use crate::kube::Binaries;
use crate::network::Network;
use crate::node::{Meta, Node};
use crate::programs::Programs;
use crate::{artifacts, cgroup, wait};

/// The bridge's address; machines come after it.
const NETWORK: &str = "10.99.0.1/24";
const PORT: u16 = 8000;
/// The version that the settings name where no Kubernetes binaries are.
const ABSENT_VERSION: &str = "1.36.1";

/// One machine of the settings.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Its name.
    pub name: &'static str,
    /// Its role in the settings.
    pub role: &'static str,
}

impl Machine {
    /// A machine of this name and role.
    pub const fn new(name: &'static str, role: &'static str) -> Self {
        Self { name, role }
    }
}

/// A cluster's folder, server and machines.
#[derive(Debug)]
pub struct Cluster {
    // The order is that of dropping: machines before what they need.
    nodes: BTreeMap<&'static str, Node>,
    machines: Vec<Machine>,
    /// What the machines download from.
    pub server: ArtifactServer,
    network: Network,
    folder: TempDir,
    programs: Programs,
    kube: Option<Binaries>,
    packages: Vec<&'static str>,
    /// Whether machines have an IPv6 address, too.
    dual_stack: bool,
}

impl Cluster {
    /// Writes the settings and the lock file for these machines, and serves
    /// what the lock names. Nothing boots yet.
    pub fn new(machines: &[Machine]) -> Result<Self> {
        Self::with_mode(machines, "host-gw")
    }

    /// The same, with the pods' network in this mode.
    pub fn with_mode(machines: &[Machine], mode: &str) -> Result<Self> {
        let programs = Programs::build()?;
        let kube = Binaries::find().ok();
        let network = Network::new(NETWORK.parse().context("the test network")?)?;
        let server = ArtifactServer::start(&network, PORT)?;
        let folder = tempfile::tempdir().context("making the cluster's folder")?;
        let version = kube.as_ref().map_or(ABSENT_VERSION, Binaries::version);
        let cluster = Self {
            nodes: BTreeMap::new(),
            machines: machines.to_vec(),
            network,
            server,
            folder,
            programs,
            kube: kube.clone(),
            packages: Vec::new(),
            dual_stack: false,
        };
        fs::write(
            cluster.path("cluster.yaml"),
            cluster.settings(version, mode)?,
        )?;
        fs::write(cluster.path("kgen.lock"), cluster.lock(version)?)?;
        Ok(cluster)
    }

    /// The same at the version of other Kubernetes binaries.
    pub fn at_version(machines: &[Machine], kube: Binaries) -> Result<Self> {
        let mut cluster = Self::new(machines)?;
        cluster.change_version(kube)?;
        Ok(cluster)
    }

    /// Settings and lock are of the version of these binaries from now on.
    pub fn change_version(&mut self, kube: Binaries) -> Result<()> {
        let path = self.path("cluster.yaml");
        let text = fs::read_to_string(&path).context("reading the settings")?;
        let lines = text.lines().map(|line| match line.split_once(": ") {
            Some(("kubernetesVersion", _)) => format!("kubernetesVersion: {}\n", kube.version()),
            _ => format!("{line}\n"),
        });
        fs::write(&path, lines.collect::<String>()).context("writing the settings")?;
        let version = kube.version().to_owned();
        self.kube = Some(kube);
        fs::write(self.path("kgen.lock"), self.lock(&version)?).context("writing the lock")
    }

    /// The same with IPv6 beside IPv4: machine N is 10.99.0.N and fd00:99::N.
    pub fn dual_stack(machines: &[Machine], mode: &str) -> Result<Self> {
        let mut cluster = Self::with_mode(machines, mode)?;
        cluster.network.add_address("fd00:99::1/64")?;
        cluster.dual_stack = true;
        let path = cluster.path("cluster.yaml");
        let mut text = fs::read_to_string(&path).context("reading the settings")?;
        for (one, both) in [
            (
                "podCIDR: 10.244.0.0/16",
                "podCIDRs: [10.244.0.0/16, \"fd00:244::/48\"]",
            ),
            (
                "serviceCIDR: 10.96.0.0/16",
                "serviceCIDRs: [10.96.0.0/16, \"fd00:96::/112\"]",
            ),
        ] {
            ensure!(text.contains(one), "the settings have no {one}");
            text = text.replace(one, both);
        }
        for index in 0..machines.len() {
            let [first, second] = [address(index)?.to_string(), second(index)?];
            text = text.replace(
                &format!("address: {first}}}"),
                &format!("addresses: [{first}, \"{second}\"]}}"),
            );
        }
        fs::write(&path, text).context("writing the settings")?;
        Ok(cluster)
    }

    /// A file in the cluster's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The network that the machines are on.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// kgen and knode.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Whether there are Kubernetes binaries to go all the way with.
    pub fn has_kubernetes(&self) -> bool {
        self.kube.is_some()
    }

    /// The machines' image has these packages of Debian besides.
    pub fn install(&mut self, packages: &[&'static str]) {
        self.packages.extend_from_slice(packages);
    }

    /// Adds to the settings: YAML, keys of the first level.
    pub fn configure(&self, more: &str) -> Result<()> {
        let path = self.path("cluster.yaml");
        let text = fs::read_to_string(&path).context("reading the settings")?;
        fs::write(&path, format!("{more}{text}")).context("writing the settings")
    }

    /// Replaces the settings' add-ons, none, by these: a line of YAML.
    pub fn addons(&self, line: &str) -> Result<()> {
        let path = self.path("cluster.yaml");
        let text = fs::read_to_string(&path).context("reading the settings")?;
        let lines = text.lines().map(|l| match l.starts_with("addons:") {
            true => format!("addons: {line}\n"),
            false => format!("{l}\n"),
        });
        fs::write(&path, lines.collect::<String>()).context("writing the settings")
    }

    /// Runs kgen in the cluster's folder.
    pub fn kgen(&self, arguments: &[&str]) -> Result<Output> {
        let mut kgen = Command::new(&self.programs.kgen);
        kgen.current_dir(self.folder.path()).args(arguments);
        run_within(&mut kgen, b"", Duration::from_secs(60))
    }

    /// Runs `kgen wait` as the operator, from the machines' network.
    pub fn kgen_wait(&self, arguments: &[&str]) -> Result<Output> {
        let mut kgen = self.network.command(&self.programs.kgen);
        kgen.current_dir(self.folder.path());
        kgen.arg("wait").args(arguments);
        run_within(&mut kgen, b"", Duration::from_secs(300))
    }

    /// Generates a machine's user-data and boots it.
    pub fn boot(&mut self, name: &str) -> Result<&mut Node> {
        let user_data = self.user_data(name, "cloud-init")?;
        self.boot_with(name, user_data.as_bytes())
    }

    /// Boots a machine of the settings with this user-data instead of its own.
    pub fn boot_with(&mut self, name: &str, user_data: &[u8]) -> Result<&mut Node> {
        let (index, machine) = self.machine(name)?;
        let address = address(index)?;
        let mut node = Node::with_packages(&self.network, name, address, &self.packages)?;
        let mut meta = Meta::new(name);
        if self.dual_stack {
            let gateway = self.network.gateway();
            let addresses = [format!("{address}/24"), format!("{}/64", second(index)?)];
            let routes = [
                json!({"to": "0.0.0.0/0", "via": gateway}),
                json!({"to": "::/0", "via": "fd00:99::1"}),
            ];
            let host0 = json!({"addresses": addresses, "routes": routes});
            let config = json!({"version": 2, "ethernets": {"host0": host0}});
            meta.network_config = Some(config.to_string());
        }
        node.boot(user_data, &meta)?;
        self.nodes.insert(machine.name, node);
        self.node(name)
    }

    /// Boots a machine that the settings do not name, with its address's last
    /// byte and its host name.
    pub fn boot_unnamed(
        &mut self,
        name: &'static str,
        last: u8,
        host_name: &str,
        user_data: &[u8],
    ) -> Result<&mut Node> {
        let [a, b, c, _] = self.network.gateway().octets();
        let mut node = Node::new(&self.network, name, Ipv4Addr::new(a, b, c, last))?;
        node.boot(user_data, &Meta::new(host_name))?;
        self.nodes.insert(name, node);
        self.node(name)
    }

    /// Generates a machine's user-data for this reader.
    pub fn user_data(&self, name: &str, format: &str) -> Result<String> {
        let (_, machine) = self.machine(name)?;
        self.kgen(&["--role", machine.role, "--name", name, "--format", format])?
            .ok()
            .with_context(|| format!("generating the user-data of {name}"))
    }

    /// A machine and its place in the settings.
    fn machine(&self, name: &str) -> Result<(usize, Machine)> {
        let mut machines = self.machines.iter().copied().enumerate();
        machines
            .find(|(_, machine)| machine.name == name)
            .with_context(|| format!("the settings have no {name}"))
    }

    /// A machine that was booted.
    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        let node = self.nodes.get_mut(name);
        node.with_context(|| format!("{name} was not booted"))
    }

    /// What `knode status --json` says on a machine; none before knode tells.
    pub fn status(&mut self, name: &str) -> Result<Option<Value>> {
        let node = self.node(name)?;
        if !node.exists("/run/knode/status.json")? {
            return Ok(None);
        }
        let text = node.read_file("/run/knode/status.json")?;
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// Waits until knode says that a machine is ready; otherwise the error holds its last status.
    pub fn wait_until_ready(&mut self, name: &str, limit: Duration) -> Result<()> {
        wait::until(&format!("{name} Ready"), limit, || {
            let status = self.status(name)?.unwrap_or_default();
            Ok((status["ready"] == true).then_some(()))
        })
        .with_context(|| {
            let status = self.status(name).ok().flatten().unwrap_or_default();
            format!("status: {status:#}")
        })
    }

    /// One step of a machine's status; null before knode tells of it.
    pub fn step(&mut self, name: &str, step: &str) -> Result<Value> {
        let status = self.status(name)?.unwrap_or_default();
        let steps = status["steps"].as_array();
        let found = steps.into_iter().flatten().find(|s| s["name"] == step);
        Ok(found.cloned().unwrap_or_default())
    }

    /// Waits until a step is done.
    pub fn wait_for_step(&mut self, name: &str, step: &str, limit: Duration) -> Result<Value> {
        let what = format!("{name}: step {step} done");
        wait::until(&what, limit, || {
            let found = self.step(name, step)?;
            Ok((found["state"] == "done").then_some(found))
        })
        .with_context(|| {
            format!(
                "status: {:#}",
                self.status(name).ok().flatten().unwrap_or_default()
            )
        })
    }

    /// Waits until a machine's containerd answers, then brings the images
    /// that no registry can give it.
    pub fn import_images(&mut self, name: &str, limit: Duration) -> Result<()> {
        self.wait_for_step(name, "runtime", limit)?;
        let images = [Image::pause()?, Image::web()?];
        let node = self.node(name)?;
        images.iter().try_for_each(|image| node.import(image))
    }

    /// Runs kubectl from outside the machines, with the operator's kubeconfig.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let kubeconfig = self.path("admin.conf");
        if !kubeconfig.exists() {
            let text = self.kgen(&["kubeconfig"])?.ok()?;
            fs::write(&kubeconfig, text)?;
        }
        let mut kubectl = self.network.command(artifacts::kubectl()?);
        kubectl.arg("--kubeconfig").arg(&kubeconfig).args(arguments);
        run_within(&mut kubectl, input.as_bytes(), Duration::from_secs(60))
    }

    /// An object as JSON, by kubectl.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["get", "--output=json"], arguments].concat();
        Ok(serde_json::from_str(&self.kubectl(&arguments, "")?.ok()?)?)
    }

    /// Everything that tells what happened, into a folder.
    pub fn evidence(&self, folder: &Path) -> Result<()> {
        self.nodes
            .values()
            .try_for_each(|node| node.evidence(&folder.join(node.name())))
    }

    fn settings(&self, version: &str, mode: &str) -> Result<String> {
        let mut text = format!(
            "name: test\n\
             kubernetesVersion: {version}\n\
             network:\n  podCIDR: 10.244.0.0/16\n  serviceCIDR: 10.96.0.0/16\n  mode: {mode}\n\
             images: {{probe: knode.test/web:1}}\n\
             runtime:\n  source: distribution\n"
        );
        if cgroup::version()? == cgroup::Version::V1 {
            // This host's cgroups, not what a cluster should have.
            // With cgroups for each class of pods, systemd and the kubelet race
            // for those of version 1, and now and then the kubelet gives up.
            text.push_str(
                "  cgroupDriver: cgroupfs\n\
                 kubelet:\n  config:\n    failCgroupV1: false\n    cgroupsPerQOS: false\n    \
                 enforceNodeAllocatable: []\n    localStorageCapacityIsolation: false\n",
            );
        }
        // No registry has its image here; see [`Cluster::addons`].
        text.push_str("addons: {dns: {enabled: false}}\n");
        // A container may not change the host's conntrack table.
        text.push_str("kubeProxy:\n  config:\n    conntrack: {maxPerCore: 0, min: 0}\n");
        text.push_str("nodes:\n");
        for (index, Machine { name, role }) in self.machines.iter().enumerate() {
            writeln!(
                text,
                "- {{name: {name}, role: {role}, address: {}}}",
                address(index)?
            )?;
        }
        Ok(text)
    }
}

/// The address of the machine at this place in the settings.
fn address(index: usize) -> Result<Ipv4Addr> {
    let last = u8::try_from(index + 11).context("too many machines")?;
    ensure!(last < 255, "too many machines");
    Ok(Ipv4Addr::new(10, 99, 0, last))
}

/// The IPv6 address of the machine at this place in the settings.
fn second(index: usize) -> Result<String> {
    let last = address(index)?.octets()[3];
    Ok(format!("fd00:99::{last}"))
}
