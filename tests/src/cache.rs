//! What is built once and used by every later test run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// The cache folder: `$KNODE_TEST_CACHE`, by default `/var/cache/knode-tests`.
pub fn directory() -> PathBuf {
    from_environment("KNODE_TEST_CACHE", "/var/cache/knode-tests")
}

/// Returns the entry `name`, made by `build` at the path it is given when there is none
/// yet. Other processes that want the same entry wait; one that fails half-way leaves no
/// entry.
pub fn once(name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let directory = directory();
    fs::create_dir_all(&directory)
        .with_context(|| format!("making the cache {}", directory.display()))?;
    let entry = directory.join(name);
    if entry.exists() {
        return Ok(entry);
    }
    let lock = lock(&directory.join(format!(".{name}.lock")))?;
    if !entry.exists() {
        discard_unfinished(&directory, name)?;
        let temporary = directory.join(format!("{}{}", unfinished(name), process::id()));
        let built = build(&temporary).and_then(|()| {
            fs::rename(&temporary, &entry)
                .with_context(|| format!("moving the new {name} into the cache"))
        });
        if let Err(error) = built {
            discard_unfinished(&directory, name)?;
            return Err(error.context(format!("building {name}")));
        }
    }
    drop(lock);
    Ok(entry)
}

/// Holds the lock file until dropped, waiting for it if need be.
pub(crate) fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow!(errno))
        .with_context(|| format!("locking {}", path.display()))
}

pub(crate) fn from_environment(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// The sha256 of these parts, each with its length so that they cannot run together.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unfinished(name: &str) -> String {
    format!(".{name}.unfinished-")
}

fn discard_unfinished(directory: &Path, name: &str) -> Result<()> {
    for file in fs::read_dir(directory)? {
        let file = file?;
        if !file
            .file_name()
            .to_string_lossy()
            .starts_with(&unfinished(name))
        {
            continue;
        }
        let removed = if file.file_type()?.is_dir() {
            fs::remove_dir_all(file.path())
        } else {
            fs::remove_file(file.path())
        };
        removed.with_context(|| format!("removing the unfinished {}", file.path().display()))?;
    }
    Ok(())
}
