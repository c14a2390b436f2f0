//! A cluster's own network: a named network namespace with a bridge in it.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};

use crate::command::run;
use crate::scope::{self, Scope};

/// The bridge that all nodes of a network are on.
pub const BRIDGE: &str = "br0";

/// A network namespace with lo and a bridge up. Copies share it; the last one removes
/// it, and all that is in it.
#[derive(Debug, Clone)]
pub struct Network {
    scope: Arc<Scope>,
    address: Ipv4Net,
}

impl Network {
    /// Makes a network. `address` is the bridge's own, and every node's gateway.
    pub fn new(address: Ipv4Net) -> Result<Self> {
        let scope = Arc::new(Scope::new()?);
        run(Command::new("ip").args(["netns", "add", scope.name()]))?;
        let network = Self { scope, address };
        let address = address.to_string();
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", BRIDGE, "type", "bridge"],
            &["address", "add", &address, "dev", BRIDGE],
            &["link", "set", BRIDGE, "up"],
        ] {
            run(network.command("ip").args(arguments))?;
        }
        Ok(network)
    }

    /// Gives the bridge one more address with its prefix: `fd00::1/64`.
    pub fn add_address(&self, address: &str) -> Result<()> {
        // Nobody else is there to have it.
        let add = ["address", "add", address, "dev", BRIDGE, "nodad"];
        run(self.command("ip").args(add))?;
        Ok(())
    }

    /// The namespace's name, `knode-test-PID-N`: `nsenter --net=/run/netns/NAME` enters it.
    pub fn name(&self) -> &str {
        self.scope.name()
    }

    /// The bridge's address: the nodes' gateway, and where servers of a test listen.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address.addr()
    }

    /// The bridge's address with the length of the network's prefix.
    pub fn address(&self) -> Ipv4Net {
        self.address
    }

    /// A command that runs inside. Only the network changes: /sys stays the host's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(self.entry()).arg("--").arg(program);
        command
    }

    /// Runs a closure on a thread of its own that is inside: what it binds, listens and
    /// connects there, also when used elsewhere later.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = scope::open_netns(self.name())?;
        thread::scope(|threads| {
            let inside = threads.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
                work()
            });
            inside.join().map_err(|_| anyhow!("it panicked"))?
        })
        .with_context(|| format!("working inside {}", self.name()))
    }

    pub(crate) fn entry(&self) -> String {
        format!("--net={}", scope::netns_path(self.name()).display())
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }
}
