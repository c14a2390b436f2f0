//! What belongs together and has one owner: a cluster's folder, namespace, cgroups and
//! mounts, all findable by one name, so that nothing outlives the process that made it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::fcntl::Flock;

use crate::{cache, cgroup, command, disk, sysctl};

const PREFIX: &str = "knode-test-";
const OWNER: &str = "owner";
const SYSCTLS: &str = ".sysctls";
const MACHINES: &str = "/run/systemd/nspawn/propagate";

static COUNT: AtomicU32 = AtomicU32::new(1);
static SWEPT: Mutex<bool> = Mutex::new(false);

/// A name, `knode-test-PID-N`, and a folder. Dropping it removes everything that bears
/// the name.
#[derive(Debug)]
pub struct Scope {
    name: String,
    directory: PathBuf,
    machines: AtomicU32,
}

impl Scope {
    /// Makes a new scope; the first one of a process sweeps first.
    pub fn new() -> Result<Self> {
        {
            let mut swept = SWEPT.lock().unwrap_or_else(|error| error.into_inner());
            if !*swept {
                sweep()?;
                *swept = true;
            }
        }
        let lock = lock()?;
        let base = base();
        sysctl::remember(&base.join(SYSCTLS))?;
        let name = format!(
            "{PREFIX}{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = base.join(&name);
        // The owner is written first and the name is given last: a sweep never meets a
        // folder without an owner.
        let unnamed = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&base)
            .context("making a folder for the nodes")?;
        let started = start_time(process::id()).context("reading this process's start time")?;
        fs::write(unnamed.path().join(OWNER), started)?;
        fs::rename(unnamed.path(), &directory)
            .with_context(|| format!("making {}", directory.display()))?;
        drop(lock);
        Ok(Self {
            name,
            directory,
            machines: AtomicU32::new(1),
        })
    }

    /// The name that everything in this scope bears.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The scope's folder on disk.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A machine name for nspawn: unique on this computer, and short, for an interface
    /// is named after it.
    pub(crate) fn machine(&self) -> String {
        let number = self.machines.fetch_add(1, Ordering::Relaxed);
        format!("{}{number}", machine_prefix(&self.name))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let removed = lock().and_then(|lock| {
            remove(&self.name, &self.directory)?;
            restore_settings()?;
            drop(lock);
            Ok(())
        });
        if let Err(error) = removed {
            eprintln!("removing {}: {error:#}", self.name);
        }
    }
}

/// The folder that holds all scopes: `$KNODE_TEST_DIR`, by default `/var/tmp/knode-tests`.
pub fn base() -> PathBuf {
    cache::from_environment("KNODE_TEST_DIR", "/var/tmp/knode-tests")
}

/// Removes the scopes whose owner is dead. Returns their names.
pub fn sweep() -> Result<Vec<String>> {
    let lock = lock()?;
    let base = base();
    let mut swept = Vec::new();
    for entry in fs::read_dir(&base).with_context(|| format!("reading {}", base.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(owner) = owner(&name)
            && !is_alive(owner, &entry.path())
        {
            remove(&name, &entry.path()).with_context(|| format!("sweeping {name}"))?;
            swept.push(name);
        }
    }
    restore_settings()?;
    drop(lock);
    Ok(swept)
}

/// Scopes come and go one at a time: the last one gives back the computer's settings.
fn lock() -> Result<Flock<File>> {
    let base = base();
    fs::create_dir_all(&base).with_context(|| format!("making {}", base.display()))?;
    cache::lock(&base.join(".lock"))
}

fn restore_settings() -> Result<()> {
    for entry in fs::read_dir(base())? {
        if owner(&entry?.file_name().to_string_lossy()).is_some() {
            return Ok(());
        }
    }
    sysctl::restore(&base().join(SYSCTLS))
}

/// Everything on this computer that bears the scope's name: for tests of the harness.
pub fn leftovers(name: &str) -> Result<Vec<String>> {
    let mut found: Vec<String> = cgroup::find(name)?
        .iter()
        .map(|group| format!("cgroup {}", group.display()))
        .collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let mounts = mounts
        .lines()
        .filter(|line| line.split(['/', ' ']).any(|part| part == name));
    found.extend(mounts.map(|line| format!("mount {line}")));
    for path in [base().join(name), netns_path(name)] {
        if path.exists() {
            found.push(format!("file {}", path.display()));
        }
    }
    let machines = machine_folders(name)?;
    found.extend(
        machines
            .iter()
            .map(|path| format!("file {}", path.display())),
    );
    for process in fs::read_dir("/proc")? {
        let path = process?.path();
        if let Ok(arguments) = fs::read_to_string(path.join("cmdline"))
            && arguments.contains("systemd-nspawn")
            && arguments.contains(name)
        {
            found.push(format!("process {}", path.display()));
        }
    }
    Ok(found)
}

/// Where a named network namespace is bound.
pub(crate) fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The order matters: processes hold mounts and the namespace; the folder is the record
/// by which the rest is found again, so it goes last.
fn remove(name: &str, directory: &Path) -> Result<()> {
    for group in cgroup::find(name)? {
        cgroup::kill(&group)?;
    }
    cgroup::remove(name)?;
    disk::unmount_below(directory)?;
    if netns_path(name).exists() {
        command::run(Command::new("ip").args(["netns", "delete", name]))?;
    }
    for folder in machine_folders(name)? {
        fs::remove_dir(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// nspawn leaves a folder for each machine where /run is not a tmpfs.
fn machine_folders(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(MACHINES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries.with_context(|| format!("reading {MACHINES}"))?,
    };
    for entry in entries {
        let path = entry?.path();
        let machine = path.file_name().unwrap_or_default().to_string_lossy();
        if machine.starts_with(&machine_prefix(name)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn machine_prefix(name: &str) -> String {
    format!("k{}-", name.strip_prefix(PREFIX).unwrap_or(name))
}

fn owner(name: &str) -> Option<u32> {
    let (process, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    process.parse().ok()
}

/// A process number is used again by others: its start time tells them apart.
fn is_alive(process: u32, directory: &Path) -> bool {
    let recorded = fs::read_to_string(directory.join(OWNER));
    start_time(process).is_ok_and(|started| recorded.is_ok_and(|recorded| recorded == started))
}

fn start_time(process: u32) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
    let started = fields.split(' ').nth(19).context("too few fields")?;
    Ok(started.to_owned())
}

/// Opens the file that names a network namespace.
pub(crate) fn open_netns(name: &str) -> Result<File> {
    let path = netns_path(name);
    File::open(&path).with_context(|| format!("opening {}", path.display()))
}
