//! A machine with nothing on its disk boots from the network by iPXE, a real
//! dnsmasq and `kgen serve`, as docs/pxe.md says: its own script by its network
//! card, kimage's image that runs in RAM, its document by cloud-init, and knode, which
//! systemd starts and which asks for its master. (P53)

mod uefi;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::boot_images::{self, AwaitedMaster};
use tests::cluster::{Cluster, Machine as Typed};
use tests::qemu::{Card, Machine, empty_disk};
use tests::{report, wait};

const MACHINES: [Typed; 2] = [
    Typed {
        name: "master",
        role: "master",
    },
    Typed {
        name: "node-1",
        role: "node",
    },
];
const MACS: [&str; 2] = ["52:54:00:00:63:0b", "52:54:00:00:63:0c"];
/// What the harness' settings call the master's and node-1's.
const MASTER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 11);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 12);
/// MiB of memory.
const MEMORY: u32 = 1024;
/// Nobody's.
const STRANGER: &str = "52:54:00:00:63:ff";
/// In software emulation, and with others on the same machine.
const BOOT: Duration = Duration::from_secs(900);
const SOON: Duration = Duration::from_secs(60);

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_machine_boots_from_the_network() -> Result<()> {
    const NAME: &str = "a_machine_boots_from_the_network";
    if let Some(reason) = missing() {
        report::skip(NAME, &reason);
        return Ok(());
    }
    let cluster = Cluster::new(&MACHINES)?;
    settings(&cluster, Addresses::Ours)?;
    cluster.kgen(&["render", "-o", "out"])?.ok()?;
    let files = boot_images::files(&cluster.programs().knode)?;
    let (log, audit) = (cluster.path("dnsmasq.log"), cluster.path("audit"));
    let _dnsmasq = dnsmasq(&cluster, &log)?;
    let serve = serve(&cluster, &files, &audit)?;

    stranger(&cluster, &audit)?;
    let folder = tempfile::tempdir()?;
    let master = AwaitedMaster::listen(&cluster, MASTER)?;
    let mut machine = turn_on(&cluster, "listed", MACS[1], folder.path())?;
    let outcome = boots(&cluster, &master, &mut machine, &audit);
    if outcome.is_err() {
        let told = fs::read_to_string(&log).unwrap_or_default();
        eprintln!("{told}\n{}", fs::read_to_string(&audit).unwrap_or_default());
        eprintln!("{}", machine.console());
    }
    outcome?;
    drop(machine);

    // It ends as it is told to.
    let mut serve = serve;
    kill(Pid::from_raw(serve.0.id().cast_signed()), Signal::SIGTERM)?;
    ensure!(serve.0.wait()?.success(), "kgen serve did not end well");
    Ok(())
}

/// dnsmasq with what kgen wrote for it, but for what may change where it is tested: who
/// runs it, and where it keeps its books.
fn dnsmasq(cluster: &Cluster, log: &Path) -> Result<Running> {
    let mut dnsmasq = cluster.network().command("dnsmasq");
    dnsmasq
        .arg("--keep-in-foreground")
        .arg(format!(
            "--conf-file={}",
            cluster.path("out/pxe/dnsmasq.conf").display()
        ))
        .args(["--user=root", "--pid-file"])
        .arg(format!("--log-facility={}", log.display()))
        .arg(format!(
            "--dhcp-leasefile={}",
            cluster.path("leases").display()
        ));
    start(&mut dnsmasq, &cluster.path("dnsmasq.out")).map(Running)
}

/// `kgen serve` with kernel and initrd in `files`; a line for each request goes to `audit`.
fn serve(cluster: &Cluster, files: &Path, audit: &Path) -> Result<Running> {
    let mut serve = cluster.network().command(&cluster.programs().kgen);
    serve
        .args(["serve", "--json", "--from"])
        .arg(cluster.path("out/pxe"))
        .arg("--images")
        .arg(files)
        .stderr(Stdio::inherit());
    start(&mut serve, audit).map(Running)
}

/// A machine that nobody listed is told so, asks again, and gets nothing.
fn stranger(cluster: &Cluster, audit: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let machine = turn_on(cluster, "stranger", STRANGER, folder.path())?;
    let own = format!("GET /{}.ipxe", STRANGER.replace(':', "-"));
    wait::until("a stranger that asks again", BOOT, || {
        let lines = lines(audit)?;
        let asked: Vec<&Value> = lines.iter().filter(|l| l["request"] == own).collect();
        // By two names of the card, in each of two rounds.
        Ok((asked.len() >= 4).then_some(()))
    })?;
    let about = format!("no machine of test has the network card {STRANGER}");
    for line in lines(audit)?.iter().filter(|line| line["request"] == own) {
        ensure!(line["status"] == 404 && line["outcome"] == about, "{line}");
    }
    drop(machine);
    Ok(())
}

/// A machine with an empty disk that boots from its network card.
fn turn_on(cluster: &Cluster, name: &str, mac: &str, folder: &Path) -> Result<Machine> {
    let rom = true;
    let mut flags = empty_disk(folder)?;
    flags.extend(["-boot", "n"].map(str::to_owned));
    Machine::start(
        cluster.network(),
        Card { name, mac, rom },
        MEMORY,
        &flags,
        folder,
    )
}

fn boots(
    cluster: &Cluster,
    master: &AwaitedMaster,
    machine: &mut Machine,
    audit: &Path,
) -> Result<()> {
    let asked = |path: &str, limit| {
        wait::until(&format!("{path} served"), limit, || {
            let lines = lines(audit)?;
            let whole = |line: &Value| {
                line["request"] == format!("GET {path}") && line["outcome"] == "sent"
            };
            Ok(lines.into_iter().find(whole))
        })
    };
    let own = MACS[1].replace(':', "-");
    asked("/boot.ipxe", BOOT)?;
    let script = asked(&format!("/{own}.ipxe"), SOON)?;
    ensure!(script["machine"] == "node-1", "{script}");
    // The address that the settings say.
    let peer = script["peer"].as_str().unwrap_or_default();
    ensure!(peer.starts_with("10.99.0.12:"), "{script}");
    asked("/vmlinuz", BOOT)?;
    asked("/initrd.img", BOOT)?;
    asked(&format!("/{own}/meta-data"), BOOT)?;
    let document = asked(&format!("/{own}/user-data"), SOON)?;
    ensure!(document["status"] == 200, "{document}");
    // The document is in force: systemd starts knode, and that asks for its master.
    master.is_asked_by(ADDRESS, cluster, machine, BOOT)?;
    machine.says(
        &["Starting", "knode.service", "Kubernetes node agent"],
        SOON,
    )?;
    machine.says(&["finished at", "DataSourceNoCloudNet"], BOOT)?;

    // Nothing was asked for in vain, and the document is gone.
    let lines = lines(audit)?;
    let listed = |line: &&Value| line["machine"] == "node-1";
    let refused = lines
        .iter()
        .filter(listed)
        .filter(|line| line["status"] != 200);
    let refused: Vec<&Value> = refused.collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    let url = format!(
        "http://{}:8080/{own}/user-data",
        cluster.network().gateway()
    );
    let mut curl = cluster.network().command("curl");
    curl.args([
        "--silent",
        "--noproxy",
        "*",
        "--write-out",
        "%{http_code}",
        &url,
    ]);
    let said = String::from_utf8(curl.output()?.stdout)?;
    ensure!(said.ends_with("410"), "{said}");
    Ok(())
}

/// Every line about requests.
fn lines(audit: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(audit).context("reading about requests")?;
    // The last one may be on its way.
    let whole = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    whole
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// Who gives machines their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    /// dnsmasq, by what kgen writes for it.
    Ours,
    /// Another server on the network.
    Others,
}

/// The harness' settings for machines that boot from the network.
fn settings(cluster: &Cluster, addresses: Addresses) -> Result<()> {
    let range = match addresses {
        Addresses::Ours => ", range: 10.99.0.100-10.99.0.199",
        Addresses::Others => "",
    };
    let gateway = cluster.network().gateway();
    cluster.configure(&format!(
        "platform: pxe\n\
         format: cloud-init\n\
         pxe:\n  \
           server: http://{gateway}:8080\n  \
           cmdline: console=ttyS0\n  \
           dhcp: {{interface: br0, network: 10.99.0.0/24{range}}}\n"
    ))?;
    let path = cluster.path("cluster.yaml");
    let mut text = fs::read_to_string(&path)?;
    for (machine, mac) in MACHINES.iter().zip(MACS) {
        let role = format!("role: {},", machine.role);
        ensure!(text.contains(&role), "the settings have no {role}");
        text = text.replace(&role, &format!("{role} mac: '{mac}',"));
    }
    fs::write(&path, text).context("writing the settings")
}

fn start(command: &mut Command, out: &Path) -> Result<Child> {
    let name = format!("starting {command:?}");
    let out = File::create(out)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?);
    command.spawn().context(name)
}

/// What keeps a machine from booting here.
fn missing() -> Option<String> {
    if let Some(reason) = report::nodes_missing() {
        return Some(reason);
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("the machine is one of x86_64".to_owned());
    }
    let absent = |program: &&str| {
        let version = Command::new(program).arg("--version").output();
        version.is_err()
    };
    let programs = ["qemu-system-x86_64", "dnsmasq", "mksquashfs", "qemu-img"];
    let absent: Vec<&str> = programs.into_iter().filter(absent).collect();
    if !absent.is_empty() {
        return Some(format!("not installed: {}", absent.join(", ")));
    }
    let rom = Path::new("/usr/lib/ipxe/qemu/pxe-virtio.rom");
    let tun = Path::new("/dev/net/tun");
    let needed = [rom, tun].into_iter().find(|path| !path.exists())?;
    Some(format!("there is no {}", needed.display()))
}
