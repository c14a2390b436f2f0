//! A machine of a pool without a body: knode's own steps bring it an identity
//! and a Node, in a folder instead of on a disk of its own; then Kubernetes'
//! hollow kubelet (kubemark) keeps the Node Ready, in a network namespace of
//! its own.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use knode::error::{Code, Error};
use knode::machine::Machine;
use knode::status::Status;
use knode::sys::root::Root;
use knode::{run, steps};
use serde_json::Value;
use tempfile::TempDir;
use tests::command;
use tests::document::Document;
use tests::network::{BRIDGE, Network};

/// What a machine does to join, in this order; all else is about its body.
const STEPS: [&str; 3] = ["wait", "bootstrap", "register"];
const KUBECONFIG: &str = "etc/kubernetes/kubelet.conf";
const ROTATED: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// A machine that is a folder.
pub struct Hollow {
    name: String,
    address: Ipv4Addr,
    folder: TempDir,
    kubelet: Option<Child>,
}

/// How a machine came in.
pub struct Joined {
    /// What the step bootstrap said at last.
    pub said: String,
    /// Its pod ranges.
    pub ranges: Vec<IpNet>,
    /// From the first question to the answer, without waiting for masters.
    pub took: Duration,
}

impl Hollow {
    /// Unpacks a pool's document for a machine with this host name and address.
    pub fn new(document: &Document, name: &str, address: Ipv4Addr) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a machine's folder")?;
        let node_config = "/etc/knode/node.yaml";
        let config: Value = serde_yaml::from_str(&document.content(node_config)?)?;
        let manifest = config["manifest"].as_array().context("a manifest")?;
        let others = manifest.iter().filter_map(|entry| entry["path"].as_str());
        let paths: Vec<&str> = std::iter::once(node_config).chain(others).collect();
        tar::Archive::new(&document.archive(&paths)?[..]).unpack(folder.path())?;
        for (path, text) in [
            ("proc/sys/kernel/hostname", format!("{name}\n")),
            ("etc/machine-id", format!("{:0>32}\n", address.octets()[3])),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            fs::write(path, text)?;
        }
        Ok(Self {
            name: name.to_owned(),
            address,
            folder,
            kubelet: None,
        })
    }

    /// Gives a file of the document another text.
    pub fn edit(&self, path: &str, edit: impl FnOnce(&str) -> Result<String>) -> Result<()> {
        let path = self.folder.path().join(path.trim_start_matches('/'));
        let text = fs::read_to_string(&path)?;
        Ok(fs::write(&path, edit(&text)?)?)
    }

    /// What joins; it lives longer than a borrow of the machine.
    pub fn joining(&self) -> Joining {
        Joining {
            folder: self.folder.path().to_owned(),
            address: self.address,
        }
    }

    /// Its Node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the hollow kubelet with the identity that the machine has got.
    pub fn start(&mut self, network: &Network, kubemark: &Path) -> Result<()> {
        let inside = |path: &str| self.folder.path().join(path.trim_start_matches('/'));
        let text = fs::read_to_string(inside(KUBECONFIG))?;
        let rotated = inside(ROTATED);
        let rotated = rotated.to_str().context("the folder's name is not text")?;
        let kubeconfig = inside("kubeconfig");
        fs::write(&kubeconfig, text.replace(ROTATED, rotated))?;
        let hosts = inside("hosts");
        fs::write(&hosts, format!("{} {}\n", self.address, self.name))?;
        let log = File::create(inside("kubelet.log"))?;
        // The namespace goes with the process, and the process with the test.
        let script = "mount --bind \"$1\" /etc/hosts\n\
             until ip -4 address show dev eth0 2>/dev/null | grep -q inet; do sleep 0.1; done\n\
             shift\n\
             exec \"$@\"\n";
        let mut hollow = Command::new("setpriv");
        hollow
            .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--"])
            .args(["sh", "-euc", script, "sh"])
            .arg(&hosts)
            .arg(kubemark)
            .args(["--morph=kubelet", "--use-host-image-service=false"])
            .arg(format!("--name={}", self.name))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = hollow.spawn().context("starting a hollow kubelet")?;
        let id = child.id().to_string();
        self.kubelet = Some(child);
        self.attach(network, &id)
    }

    /// Connects the process's own network with the bridge.
    fn attach(&self, network: &Network, id: &str) -> Result<()> {
        let own = format!("/proc/{id}/ns/net");
        let shared = fs::read_link("/proc/self/ns/net")?;
        tests::wait::until("a network of its own", Duration::from_secs(10), || {
            Ok(fs::read_link(&own).is_ok_and(|n| n != shared).then_some(()))
        })?;
        let outer = format!("hollow{}", self.address.octets()[3]);
        let address = format!("{}/24", self.address);
        let net = format!("--net={own}");
        let pair = [
            "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", id,
        ];
        for arguments in [
            &pair[..],
            &["link", "set", &outer, "master", BRIDGE],
            &["link", "set", &outer, "up"],
        ] {
            command::run(network.command("ip").args(arguments))?;
        }
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &address, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
        ] {
            command::run(Command::new("nsenter").args([&net, "ip"]).args(arguments))?;
        }
        Ok(())
    }

    /// The last lines of what its kubelet said.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("kubelet.log"));
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Hollow {
    fn drop(&mut self) {
        if let Some(mut kubelet) = self.kubelet.take()
            && let Err(error) = kubelet.kill().and_then(|()| kubelet.wait().map(drop))
        {
            eprintln!("ending the kubelet of {}: {error}", self.name);
        }
    }
}

/// A machine on its way into the cluster.
pub struct Joining {
    folder: PathBuf,
    address: Ipv4Addr,
}

impl Joining {
    /// Runs knode's steps as its engine does: what fails is tried again, here
    /// for so long.
    pub async fn join(self, limit: Duration) -> Result<Joined> {
        let root = Root::new(&self.folder);
        let (name, config) = run::read_configuration(&root)?;
        let all = steps::of(&config);
        let status = Status::new(root.clone(), []);
        let machine = Machine::new(config, name, root, status);
        let address: Vec<IpAddr> = vec![self.address.into()];
        machine.addresses.send_replace(Some(address));
        let began = Instant::now();
        let mut ready = began;
        let mut said = String::new();
        for wanted in STEPS {
            let step = all.iter().find(|step| step.name() == wanted);
            let step = step.with_context(|| format!("no step {wanted}"))?;
            let done = loop {
                match step.converge(&machine).await {
                    Ok(done) => break done,
                    Err(error) if goes_on(&error) && began.elapsed() < limit => {}
                    Err(error) => return Err(error).with_context(|| wanted.to_owned()),
                }
            };
            match wanted {
                "wait" => ready = Instant::now(),
                "bootstrap" => said = done,
                _ => {}
            }
        }
        let ranges = machine.pod_cidrs.borrow().clone().unwrap_or_default();
        ensure!(!ranges.is_empty(), "no pod range");
        Ok(Joined {
            said,
            ranges,
            took: ready.elapsed(),
        })
    }
}

/// A folder has no systemd, in which a kubelet with an old identity would be
/// restarted; the next attempt finds the new one and is done. Everything else
/// is a failure here.
fn goes_on(error: &Error) -> bool {
    error.code() == Code::Bus
}
