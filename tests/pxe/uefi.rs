//! A machine whose firmware is UEFI gets iPXE by TFTP from a real dnsmasq, and by iPXE its
//! own script, where dnsmasq gives the addresses and where another server does.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::Cluster;
use tests::command::run;
use tests::network::BRIDGE;
use tests::qemu::{Card, Machine, UEFI, empty_disk};
use tests::{report, wait};

use super::{ADDRESS, Addresses, BOOT, MACHINES, MACS, MEMORY, SOON};
use super::{dnsmasq, lines, missing, serve, settings};

/// Debian's package ipxe.
const IPXE: &str = "/usr/lib/ipxe/ipxe.efi";
/// What the other server runs: it is another machine on the network.
const OTHER: &str = "\
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add 10.99.0.2/24 dev eth0
ip link set eth0 up
exec dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --port=0 --pid-file \
  --log-facility=- --interface=eth0 --dhcp-range=10.99.0.100,10.99.0.199 \
  --dhcp-option=option:router,10.99.0.1 --dhcp-leasefile=\"$1/other-leases\" \
  --dhcp-host=\"$2\"
";

#[test]
fn uefi_where_dnsmasq_gives_addresses() -> Result<()> {
    const NAME: &str = "uefi_where_dnsmasq_gives_addresses";
    gets_its_script(NAME, Addresses::Ours)
}

#[test]
fn uefi_where_another_server_gives_addresses() -> Result<()> {
    const NAME: &str = "uefi_where_another_server_gives_addresses";
    gets_its_script(NAME, Addresses::Others)
}

fn gets_its_script(name: &str, addresses: Addresses) -> Result<()> {
    if let Some(reason) = missing().or_else(no_firmware) {
        report::skip(name, &reason);
        return Ok(());
    }
    let cluster = Cluster::new(&MACHINES)?;
    settings(&cluster, addresses)?;
    cluster.kgen(&["render", "-o", "out"])?.ok()?;
    let folder = tempfile::tempdir()?;
    let _other = match addresses {
        Addresses::Ours => None,
        Addresses::Others => Some(Other::start(&cluster, folder.path())?),
    };
    let (log, audit) = (cluster.path("dnsmasq.log"), cluster.path("audit"));
    let _dnsmasq = dnsmasq(&cluster, &log)?;
    // No kernel: that it is asked for is enough.
    let empty = tempfile::tempdir()?;
    let _serve = serve(&cluster, empty.path(), &audit)?;

    let mut flags = empty_disk(folder.path())?;
    flags.extend(["-bios", UEFI, "-boot", "n"].map(str::to_owned));
    let card = Card {
        name: "uefi",
        mac: MACS[1],
        rom: false,
    };
    let mut machine = Machine::start(cluster.network(), card, MEMORY, &flags, folder.path())?;
    let outcome = asks(&mut machine, &audit);
    let told = fs::read_to_string(&log).unwrap_or_default();
    if outcome.is_err() {
        let audit = fs::read_to_string(&audit).unwrap_or_default();
        eprintln!("{told}\n{audit}\n{}", machine.console());
    }
    outcome?;
    ensure!(told.contains(&format!("sent {IPXE} to ")), "{told}");
    Ok(())
}

/// Its own script, from the address that the settings say, and then the kernel.
fn asks(machine: &mut Machine, audit: &Path) -> Result<()> {
    let mut asked = |path: &str, limit: Duration| {
        let wanted = format!("GET {path}");
        machine.until(&wanted, limit, |_| {
            let lines = lines(audit)?;
            Ok(lines.into_iter().find(|line| line["request"] == wanted))
        })
    };
    let all = asked("/boot.ipxe", BOOT)?;
    ensure!(all["outcome"] == "sent", "{all}");
    let own = asked(&format!("/{}.ipxe", MACS[1].replace(':', "-")), SOON)?;
    let peer = own["peer"].as_str().unwrap_or_default();
    ensure!(
        own["outcome"] == "sent" && own["machine"] == "node-1",
        "{own}"
    );
    ensure!(peer.starts_with(&format!("{ADDRESS}:")), "{own}");
    let kernel: Value = asked("/vmlinuz", SOON)?;
    ensure!(kernel["status"] == 404, "{kernel}");
    Ok(())
}

/// A server on the network that gives addresses, and knows nothing of what to boot.
struct Other(Child);

impl Other {
    fn start(cluster: &Cluster, folder: &Path) -> Result<Self> {
        let network = cluster.network();
        let mut command = network.command("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--net",
                "sh",
                "-euc",
            ])
            .args([OTHER, "sh"])
            .arg(folder)
            .arg(format!("{},{ADDRESS}", MACS[1]))
            .stdin(Stdio::null());
        let other = Self(command.spawn().context("starting another DHCP server")?);
        let id = other.0.id().to_string();
        let common = fs::metadata(Path::new("/run/netns").join(network.name()))?.ino();
        let ours = fs::metadata("/proc/self/ns/net")?.ino();
        wait::until("a namespace of its own", SOON, || {
            let own = fs::metadata(format!("/proc/{id}/ns/net"))?.ino();
            Ok((own != common && own != ours).then_some(()))
        })?;
        for arguments in [
            &[
                "link", "add", "other", "type", "veth", "peer", "name", "eth0", "netns", &id,
            ][..],
            &["link", "set", "other", "master", BRIDGE],
            &["link", "set", "other", "up"],
        ] {
            run(network.command("ip").args(arguments))?;
        }
        Ok(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn no_firmware() -> Option<String> {
    let needed = [UEFI, IPXE]
        .into_iter()
        .find(|path| !Path::new(path).exists())?;
    Some(format!("there is no {needed}"))
}
