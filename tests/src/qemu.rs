//! A machine in QEMU on a network's bridge, and what it says on its serial console.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::command::run;
use crate::network::{BRIDGE, Network};
use crate::wait;

/// Firmware for UEFI, of Debian's package ovmf.
pub const UEFI: &str = "/usr/share/ovmf/OVMF.fd";

/// A machine's network card.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    /// What its end on the bridge is called.
    pub name: &'a str,
    /// Its address.
    pub mac: &'a str,
    /// Whether it has a ROM with iPXE, so that firmware can boot from it.
    pub rom: bool,
}

/// The machine; dropping it turns it off.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    console: PathBuf,
}

impl Machine {
    /// Turns on a machine with this much memory (MiB); `more` are QEMU's flags for what
    /// it boots. What it and QEMU say is in `folder`.
    pub fn start(
        network: &Network,
        card: Card,
        memory: u32,
        more: &[String],
        folder: &Path,
    ) -> Result<Self> {
        let Card { name, mac, rom } = card;
        for arguments in [
            &["tuntap", "add", name, "mode", "tap"][..],
            &["link", "set", name, "master", BRIDGE],
            &["link", "set", name, "up"],
        ] {
            run(network.command("ip").args(arguments))?;
        }
        let console = folder.join("console");
        let mut qemu = ends_with_us(network, "qemu-system-x86_64");
        // Emulated, with one processor: two spend a third of their time on waiting for each
        // other. What is off: QEMU's emulation of cx16 and la57 is not what the kernel relies
        // on, for svm and aes it loads modules that nobody uses, and emulated AVX is slower
        // than none.
        qemu.args("-accel tcg -smp 1".split(' '))
            .args(["-cpu", "max,-cx16,-la57,-svm,-aes,-xsave"])
            .args("-nodefaults -no-user-config -no-reboot -display none".split(' '))
            .args(["-monitor", "none", "-m", &memory.to_string(), "-netdev"])
            .arg(format!("tap,id=n0,ifname={name},script=no,downscript=no"))
            .arg("-device")
            .arg(format!(
                "virtio-net-pci,netdev=n0,mac={mac}{}",
                if rom { "" } else { ",romfile=" }
            ))
            .args(["-device", "virtio-rng-pci", "-serial"])
            .arg(format!("file:{}", console.display()))
            .args(more);
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
    pub fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a line that has all of these in it.
    pub fn says(&mut self, parts: &[&str], limit: Duration) -> Result<String> {
        self.until(
            &format!("a line on the console with {parts:?}"),
            limit,
            |machine| {
                let console = machine.console();
                let mut lines = console.lines();
                let line = lines.find(|line| parts.iter().all(|part| line.contains(part)));
                Ok(line.map(str::to_owned))
            },
        )
    }

    /// Waits for something about the machine, as long as it is on; the error of one that
    /// does not come ends with the console's last lines.
    pub fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let told = wait::until(what, limit, || match self.child.try_wait()? {
            Some(status) => Ok(Some(Err(anyhow!("no {what}: QEMU ended with {status}")))),
            None if self.console().contains("Kernel panic - not syncing") => Ok(Some(Err(
                anyhow!("no {what}: the machine's kernel panicked"),
            ))),
            None => Ok(look(self)?.map(Ok)),
        });
        let told = told.and_then(|told| told);
        told.with_context(|| {
            let console = self.console();
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

/// Addresses for machines on the bridge: this card gets this address.
#[derive(Debug)]
pub struct Dhcp(Child);

impl Dhcp {
    /// Starts dnsmasq, which also tells these options (`245,10.0.0.1`), asked or not.
    pub fn start(
        network: &Network,
        mac: &str,
        address: &str,
        options: &[String],
        folder: &Path,
    ) -> Result<Self> {
        let mut dnsmasq = ends_with_us(network, "dnsmasq");
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
                "--port=0",
            ])
            .args(["--pid-file", "--log-facility=-"])
            .arg(format!("--interface={BRIDGE}"))
            .arg("--dhcp-range=10.99.0.100,10.99.0.199")
            .arg(format!("--dhcp-host={mac},{address}"))
            .args(options.iter().map(|it| format!("--dhcp-option-force={it}")))
            .arg(format!(
                "--dhcp-leasefile={}",
                folder.join("leases").display()
            ));
        let log = File::create(folder.join("dnsmasq.log"))?;
        dnsmasq
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Self(dnsmasq.spawn().context("starting dnsmasq")?))
    }
}

impl Drop for Dhcp {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A program inside the network that is killed with the thread that starts it: a test
/// that is killed leaves no machine on.
fn ends_with_us(network: &Network, program: &str) -> Command {
    let mut command = network.command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// QEMU's flags for a disk of the machine's own, larger than the image it begins as.
pub fn disk(image: &Path, folder: &Path) -> Result<Vec<String>> {
    let own = folder.join("disk.qcow2");
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .args([image, &own])
        .arg("6G"))?;
    Ok(drive(&own, "format=qcow2,if=virtio"))
}

/// QEMU's flags for a disk without anything on it.
pub fn empty_disk(folder: &Path) -> Result<Vec<String>> {
    let own = folder.join("disk");
    File::create(&own)?.set_len(4 << 30)?;
    Ok(drive(&own, "format=raw,if=virtio"))
}

/// QEMU's flags for a CD with a folder's files.
pub fn cd(label: &str, files: &Path, folder: &Path) -> Result<Vec<String>> {
    let iso = folder.join("seed.iso");
    run(Command::new("genisoimage")
        .args([
            "-quiet", "-joliet", "-rock", "-udf", "-volid", label, "-output",
        ])
        .args([&iso, files]))?;
    Ok(drive(&iso, "format=raw,media=cdrom,readonly=on"))
}

fn drive(file: &Path, options: &str) -> Vec<String> {
    let drive = format!("file={},{options}", file.display());
    vec!["-drive".to_owned(), drive]
}
