//! Saying by name what was not tested, and why.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use nix::unistd::geteuid;

/// Counts a test as skipped: prints `SKIPPED name: reason` and appends the line to the
/// file named by `$KNODE_TEST_SKIPS`.
///
/// # Panics
///
/// When that file cannot be written: a skip that nobody counts would be a pass.
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED {name}: {}\n", reason.replace('\n', " "));
    eprint!("{line}");
    if let Some(file) = env::var_os("KNODE_TEST_SKIPS").filter(|file| !file.is_empty()) {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            panic!("writing {}: {error}", file.display());
        }
    }
}

/// Why no node can run on this machine; `None` when they can.
pub fn nodes_missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("nodes need root".into());
    }
    let absent: Vec<_> = ["systemd-nspawn", "mmdebstrap", "ip", "nsenter"]
        .into_iter()
        .filter(|program| !in_path(program))
        .collect();
    (!absent.is_empty()).then(|| format!("not installed: {}", absent.join(", ")))
}

fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
