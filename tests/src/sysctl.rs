//! Kernel settings that belong to the whole computer: kubelets in nodes set them, and
//! the computer gets them back.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// What kubelets set, and what node software is known to set. Those of the network are
/// each namespace's own.
const KEYS: [&str; 18] = [
    "fs/aio-max-nr",
    "fs/file-max",
    "fs/inotify/max_queued_events",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/nr_open",
    "kernel/core_pattern",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/pid_max",
    "kernel/sysrq",
    "kernel/threads-max",
    "vm/max_map_count",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "vm/swappiness",
];
const ROOT: &str = "/proc/sys";
/// All machines on this computer share one user's, and each has dozens: systemd, containerd,
/// kubelet and kube-proxy watch files.
const INSTANCES: (&str, u32) = ("fs/inotify/max_user_instances", 4096);

/// Writes the settings into a file, unless an earlier scope has done so.
pub(crate) fn remember(file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let mut values = BTreeMap::new();
    for key in KEYS {
        if let Some(value) = read(key)? {
            values.insert(key, value);
        }
    }
    fs::write(file, serde_json::to_vec(&values)?)
        .with_context(|| format!("writing {}", file.display()))?;
    let (key, enough) = INSTANCES;
    let now = read(key)?.and_then(|value| value.trim().parse::<u32>().ok());
    if now.is_some_and(|now| now < enough) {
        fs::write(Path::new(ROOT).join(key), enough.to_string())
            .with_context(|| format!("raising {key}"))?;
    }
    Ok(())
}

/// Sets what has changed back to what the file says, and removes the file.
pub(crate) fn restore(file: &Path) -> Result<()> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("reading {}", file.display()))?,
    };
    let values: BTreeMap<String, String> =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?;
    for (key, value) in values {
        if read(&key)?.is_some_and(|now| now != value) {
            fs::write(Path::new(ROOT).join(&key), value)
                .with_context(|| format!("setting {key} back"))?;
        }
    }
    fs::remove_file(file).with_context(|| format!("removing {}", file.display()))
}

fn read(key: &str) -> Result<Option<String>> {
    match fs::read_to_string(Path::new(ROOT).join(key)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        value => value.map(Some).with_context(|| format!("reading {key}")),
    }
}
