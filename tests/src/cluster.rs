//! A whole cluster made the way its users make one: a settings file, a lock
//! file, `kgen` for each machine's user-data, and machines that boot it.

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

use crate::artifact_server::{ArtifactServer, Served};
use crate::command::{Output, run_within};
use crate::image::Image;
use crate::kube::{self, Binaries};
use crate::network::Network;
use crate::node::{Meta, Node};
use crate::programs::Programs;
use crate::{artifacts, cache, cgroup, rootfs, wait};

/// The bridge's address; machines come after it.
const NETWORK: &str = "10.99.0.1/24";
const PORT: u16 = 8000;
/// The version that the settings name where no Kubernetes binaries are.
const ABSENT_VERSION: &str = "1.36.1";
const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// One machine of the settings.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Its name.
    pub name: &'static str,
    /// Its role in the settings.
    pub role: &'static str,
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
        };
        fs::write(
            cluster.path("cluster.yaml"),
            cluster.settings(version, mode)?,
        )?;
        fs::write(cluster.path("kgen.lock"), cluster.lock(version)?)?;
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
        let mut node = Node::new(&self.network, name, address(index)?)?;
        node.boot(user_data, &Meta::new(name))?;
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

    /// Serves the artifacts and pins them.
    fn lock(&self, version: &str) -> Result<String> {
        let mut entries = Vec::new();
        let mut add = |name: &str, version: &str, served: Served| {
            entries.push(json!({
                "name": name,
                "version": version,
                "arch": artifacts::architecture(),
                "urls": [served.url],
                "sha256": served.sha256,
                "size": served.size,
            }));
        };
        let knode = self.server.add("/knode", &self.programs.knode)?;
        add("knode", env!("CARGO_PKG_VERSION"), knode);
        let etcd = artifacts::etcd()?;
        add(
            "etcd",
            &etcd.version,
            self.server.add("/etcd.tar.gz", &etcd.path)?,
        );
        let cni = cni_plugins()?;
        add(
            "cni-plugins",
            "1.9.1",
            self.server.add("/cni-plugins.tgz", &cni)?,
        );
        for name in kube::PROGRAMS {
            let path = format!("/{version}/{name}");
            let served = match &self.kube {
                Some(kube) => self.server.add(&path, &kube.program(name))?,
                // Nothing is there: the machines say so and go as far as they can.
                None => Served {
                    url: self.server.url(&path),
                    sha256: "0".repeat(64),
                    size: 1,
                },
            };
            add(name, version, served);
        }
        let kubectl = artifacts::kubectl()?;
        add("kubectl", version, self.server.add("/kubectl", &kubectl)?);
        let lock = json!({"version": 1, "artifacts": entries});
        // JSON is YAML.
        Ok(format!("{lock:#}\n"))
    }
}

/// The address of the machine at this place in the settings.
fn address(index: usize) -> Result<Ipv4Addr> {
    let last = u8::try_from(index + 11).context("too many machines")?;
    ensure!(last < 255, "too many machines");
    Ok(Ipv4Addr::new(10, 99, 0, last))
}

/// Debian's CNI plugins, packed as upstream packs them.
fn cni_plugins() -> Result<PathBuf> {
    let root = rootfs::unpacked(&["containernetworking-plugins"])?;
    cache::once("cni-plugins.tgz", |target| {
        let programs = CNI_PLUGINS.map(|name| root.join("usr/lib/cni").join(name));
        artifacts::pack(".", &programs, target)
    })
}
