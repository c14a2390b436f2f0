//! The cgroups of a node on the host: one in each hierarchy, so that nodes do not share
//! theirs, and everything in one can be found and ended.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as send};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use crate::wait;

const ROOT: &str = "/sys/fs/cgroup";
const PROCESSES: &str = "cgroup.procs";

/// Which cgroups a node sees. It follows the host: a controller cannot be in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller. The kubelet refuses this unless its
    /// configuration says `failCgroupV1: false`.
    V1,
    /// The unified hierarchy.
    V2,
}

/// What this host has, and so what its nodes will see.
pub fn version() -> Result<Version> {
    let root = statfs(ROOT).with_context(|| format!("looking at {ROOT}"))?;
    Ok(if root.filesystem_type() == CGROUP2_SUPER_MAGIC {
        Version::V2
    } else {
        Version::V1
    })
}

/// Makes the group in every hierarchy. Returns the files through which to join it.
pub(crate) fn create(group: &str) -> Result<Vec<PathBuf>> {
    let mut doors = Vec::new();
    for hierarchy in hierarchies()? {
        let path = hierarchy.join(group);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        // In version 1 nobody can join a cpuset that has no processors and no memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if path.join(file).exists() && version()? == Version::V1 {
                let inherited = fs::read(hierarchy.join(file))?;
                fs::write(path.join(file), inherited)
                    .with_context(|| format!("writing {}/{file}", path.display()))?;
            }
        }
        doors.push(path.join(PROCESSES));
    }
    Ok(doors)
}

/// The files through which to join the groups that a process is in.
pub(crate) fn of(process: i32) -> Result<Vec<PathBuf>> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))
        .with_context(|| format!("reading the cgroups of process {process}"))?;
    let mut doors = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().context("a cgroup without controllers")?;
        let path = fields.next().context("a cgroup without a path")?;
        let hierarchy = match controllers.strip_prefix("name=").unwrap_or(controllers) {
            "" if version()? == Version::V2 => PathBuf::from(ROOT),
            "" => Path::new(ROOT).join("unified"),
            name => Path::new(ROOT).join(name),
        };
        let door = hierarchy.join(path.trim_start_matches('/')).join(PROCESSES);
        if door.exists() {
            doors.push(door);
        }
    }
    Ok(doors)
}

/// The groups of a scope's nodes, or of one node, in all hierarchies.
pub(crate) fn find(name: &str) -> Result<Vec<PathBuf>> {
    let nodes = format!("{name}-");
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        for entry in fs::read_dir(&hierarchy)? {
            let entry = entry?;
            let group = entry.file_name();
            let group = group.to_string_lossy();
            if entry.file_type()?.is_dir() && (group == name || group.starts_with(&nodes)) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Kills everything in a group and below, and waits until it is empty.
pub(crate) fn kill(group: &Path) -> Result<()> {
    let all_at_once = group.join("cgroup.kill");
    wait::until("empty cgroup", Duration::from_secs(20), || {
        let processes = processes(group)?;
        if processes.is_empty() {
            return Ok(Some(()));
        }
        if all_at_once.exists() {
            fs::write(&all_at_once, "1")?;
            return Ok(None);
        }
        for process in processes {
            match send(Pid::from_raw(process), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("killing a process of a node"),
            }
        }
        Ok(None)
    })
    .with_context(|| format!("emptying {}", group.display()))
}

/// Removes the empty groups of a scope or a node in all hierarchies.
pub(crate) fn remove(name: &str) -> Result<()> {
    for group in find(name)? {
        // A process that has ended keeps its group busy for a moment.
        wait::until("removable cgroup", Duration::from_secs(10), || {
            remove_tree(&group).map(Some)
        })?;
    }
    Ok(())
}

fn processes(group: &Path) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for path in tree(group)? {
        match fs::read_to_string(path.join(PROCESSES)) {
            Ok(list) => found.extend(list.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error).context("reading the processes of a cgroup"),
        }
    }
    Ok(found)
}

fn remove_tree(group: &Path) -> Result<()> {
    for path in tree(group)?.into_iter().rev() {
        match fs::remove_dir(&path) {
            Err(error) if !is_gone(&error) => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A group and all below it, parents first.
fn tree(group: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let children = match fs::read_dir(&found[next]) {
            Err(error) if is_gone(&error) => Vec::new(),
            children => children?.flatten().collect(),
        };
        let folders = children
            .iter()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(folders.map(|entry| entry.path()));
        next += 1;
    }
    Ok(found)
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    if version()? == Version::V2 {
        return Ok(vec![PathBuf::from(ROOT)]);
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        let kind = fields.next()?;
        (kind.starts_with("cgroup") && Path::new(path).starts_with(ROOT))
            .then(|| PathBuf::from(path))
    });
    Ok(hierarchies.collect())
}
