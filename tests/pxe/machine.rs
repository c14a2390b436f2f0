//! A machine in QEMU, without an operating system and with an empty disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::command::run;
use tests::network::{BRIDGE, Network};
use tests::wait;

/// MiB of memory: the image twice, as it came and as it is used, and a node.
const MEMORY: &str = "3072";
/// GiB of the disk.
const DISK: u64 = 4;

/// The machine, on a network's bridge; dropping it turns it off.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    console: PathBuf,
}

impl Machine {
    /// Turns a machine on that boots from its network card, which is called
    /// `name` on the bridge. Its disk and what it says are in `folder`.
    pub fn start(network: &Network, name: &str, mac: &str, folder: &Path) -> Result<Self> {
        let (disk, console) = (folder.join("disk"), folder.join("console"));
        File::create(&disk)?.set_len(DISK << 30)?;
        for arguments in [
            &["tuntap", "add", name, "mode", "tap"][..],
            &["link", "set", name, "master", BRIDGE],
            &["link", "set", name, "up"],
        ] {
            run(network.command("ip").args(arguments))?;
        }
        let mut qemu = network.command("qemu-system-x86_64");
        let tap = format!("tap,id=n0,ifname={name},script=no,downscript=no");
        // Without -cx16 the kernel stops at QEMU's emulation of cmpxchg16b.
        qemu.args("-accel tcg,thread=multi -smp 2 -cpu max,-cx16 -m".split(' '))
            .args([MEMORY, "-nodefaults", "-no-user-config", "-no-reboot"])
            .args("-display none -monitor none -boot n -netdev".split(' '))
            .args([
                &tap,
                "-device",
                &format!("virtio-net-pci,netdev=n0,mac={mac}"),
            ])
            .args(["-device", "virtio-rng-pci", "-drive"])
            .arg(format!("file={},format=raw,if=virtio", disk.display()))
            .arg("-serial")
            .arg(format!("file:{}", console.display()));
        let log = File::create(folder.join("qemu.log"))?;
        let child = qemu
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting QEMU")?;
        Ok(Self { child, console })
    }

    /// What the machine wrote to its serial console.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(&self.console).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a line that has all of these in it.
    pub fn says(&mut self, parts: &[&str], limit: Duration) -> Result<String> {
        let what = format!("a line on the console with {parts:?}");
        let told = wait::until(&what, limit, || {
            ensure!(self.child.try_wait()?.is_none(), "QEMU ended");
            let console = self.console()?;
            let mut lines = console.lines();
            let line = lines.find(|line| parts.iter().all(|part| line.contains(part)));
            Ok(line.map(str::to_owned))
        });
        told.with_context(|| {
            let console = self.console().unwrap_or_default();
            let lines: Vec<&str> = console.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
