//! Keeps a small cluster running in local containers, for a look: what
//! `tests/up` and `tests/down` call.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use tests::cluster::{Cluster, Machine};
use tests::{artifacts, report, scope, wait};

const MACHINES: [Machine; 3] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
    Machine::new("node-2", "node"),
];
const LIMIT: Duration = Duration::from_secs(300);

/// Starts, keeps or removes a small cluster in local containers.
#[derive(Debug, Parser)]
enum Cli {
    /// Starts it in the background and says how to reach it.
    Up,
    /// Removes it.
    Down,
    /// Starts it and keeps it until told to end; `up` runs this.
    #[command(hide = true)]
    Hold,
}

fn main() -> Result<()> {
    match Cli::parse() {
        Cli::Up => up(),
        Cli::Down => down(),
        Cli::Hold => hold(),
    }
}

/// The process number of who holds the cluster.
fn holder_file() -> PathBuf {
    scope::base().join("up.pid")
}

/// The process that holds a cluster now.
fn holder() -> Result<Option<Pid>> {
    let Ok(text) = fs::read_to_string(holder_file()) else {
        return Ok(None);
    };
    let process: i32 = text.trim().parse().context("reading up.pid")?;
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let alive = String::from_utf8_lossy(&command).contains("cluster\0hold");
    Ok(alive.then(|| Pid::from_raw(process)))
}

fn up() -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        bail!("{reason}");
    }
    if let Some(process) = holder()? {
        bail!("a cluster is up already, kept by process {process}; tests/down removes it");
    }
    fs::create_dir_all(scope::base())?;
    let log = fs::File::create(scope::base().join("up.log"))?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("hold")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("starting the cluster's keeper")?;
    fs::write(holder_file(), child.id().to_string())?;
    let stdout = child.stdout.take().context("the keeper says nothing")?;
    let mut ready = false;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if line == "READY" {
            ready = true;
            break;
        }
        println!("{line}");
    }
    ensure!(
        ready,
        "it did not come up; see {}",
        scope::base().join("up.log").display()
    );
    Ok(())
}

fn down() -> Result<()> {
    let Some(process) = holder()? else {
        println!("no cluster is up");
        scope::sweep()?;
        return Ok(());
    };
    kill(process, Signal::SIGTERM).context("ending the cluster's keeper")?;
    wait::until("the cluster's end", LIMIT, || {
        Ok((kill(process, None) == Err(Errno::ESRCH)).then_some(()))
    })?;
    fs::remove_file(holder_file())?;
    println!("removed");
    Ok(())
}

fn hold() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let mut cluster = Cluster::new(&MACHINES)?;
    for Machine { name, .. } in MACHINES {
        say(&format!("booting {name}"))?;
        cluster.boot(name)?;
    }
    for Machine { name, .. } in MACHINES {
        cluster.import_images(name, LIMIT)?;
        if cluster.has_kubernetes() {
            wait::until(&format!("{name} Ready"), LIMIT, || {
                let status = cluster.status(name)?.unwrap_or_default();
                Ok((status["ready"] == true).then_some(()))
            })?;
            say(&format!("{name} is Ready"))?;
        }
    }
    if cluster.has_kubernetes() {
        cluster.kubectl(&["version"], "")?.ok()?;
        let namespace = cluster.network().name();
        say(&format!(
            "\nnsenter --net=/run/netns/{namespace} {} --kubeconfig {} get nodes -o wide\n",
            artifacts::kubectl()?.display(),
            cluster.path("admin.conf").display()
        ))?;
    } else {
        say("no Kubernetes binaries in $KUBE_BIN_DIR: the machines wait for them")?;
    }
    for Machine { name, .. } in MACHINES {
        if let Some(process) = cluster.node(name)?.init() {
            say(&format!(
                "a shell on {name}: nsenter --all --target {process} bash"
            ))?;
        }
    }
    say("tests/down removes it.")?;
    say("READY")?;
    signals.wait()?;
    Ok(())
}

/// Who listens may have gone; that is no reason to end.
fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
