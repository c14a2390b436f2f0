//! The content-addressed store of verified artifacts.
//!
//! `/opt/knode/store/HEX/` holds the wanted files of the artifact with that
//! digest. Bytes are hashed and unpacked while they arrive, into a folder
//! beside it, which is renamed into place only when the digest holds and its
//! files are on the disk: what is in the store is verified (failure modes F1,
//! F12, F13).

mod incoming;
mod packing;
mod record;
mod refused;
mod sets;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

pub use incoming::Incoming;
use record::{Look, Record};
pub use sets::artifact_of;

use crate::error::{Code, Error, Result};
use crate::sys::root::Root;
use units::node_config::{Artifact, ArtifactFile, Packing};
use units::paths;
use units::types::Digest;

/// Bytes that are read or written at once.
const BUFFER: usize = 256 * 1024;
/// What unfinished folders are called.
const PARTIAL: &str = ".partial-";

/// The bytes of an archive as they were downloaded, where they are kept.
const DOWNLOAD: &str = ".download";

/// The store below a root.
#[derive(Debug, Clone)]
pub struct Store {
    root: Root,
    keeps_downloads: bool,
}

impl Store {
    /// The store of the machine at `root`.
    pub fn new(root: Root) -> Self {
        Self {
            root,
            keeps_downloads: false,
        }
    }

    /// The same, and what is packed is kept as it was downloaded beside what
    /// was unpacked: for others, who know its checksum alone.
    #[must_use]
    pub fn keeping_downloads(mut self, keeps: bool) -> Self {
        self.keeps_downloads = keeps;
        self
    }

    /// Where the bytes of an artifact are as they were downloaded, if they are
    /// kept; absolute on the node. `None`: there is no such place.
    pub fn download(artifact: &Artifact) -> Option<PathBuf> {
        match (artifact.packing, artifact.files.as_slice()) {
            (Packing::Plain, [file]) => Some(Self::path(artifact, file)),
            (Packing::Plain, _) => None,
            _ => Some(
                Path::new(paths::STORE)
                    .join(artifact.digest.hex())
                    .join(DOWNLOAD),
            ),
        }
    }

    /// Where a file of an artifact is, once it is there; absolute on the node.
    pub fn path(artifact: &Artifact, file: &ArtifactFile) -> PathBuf {
        Path::new(paths::STORE)
            .join(artifact.digest.hex())
            .join(stored_name(file))
    }

    /// Whether every wanted file of the artifact is in the store.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the store cannot be read.
    pub fn has(&self, artifact: &Artifact) -> Result<bool> {
        for file in &artifact.files {
            if !self.root.exists(Self::path(artifact, file))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether every wanted file of the artifact is in the store, as it was
    /// when it was verified. A file that looks as it did then (size, time,
    /// inode) is not read; any other is hashed, as all are when `thorough`.
    /// Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the store cannot be read.
    pub fn verify(&self, artifact: &Artifact, thorough: bool) -> Result<bool> {
        if !self.has(artifact)? {
            return Ok(false);
        }
        let folder = Path::new(paths::STORE).join(artifact.digest.hex());
        let kept = self.root.read_if_exists(folder.join(record::NAME))?;
        let mut record: Record = kept
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let mut changed = false;
        for file in &artifact.files {
            let path = self.root.path(Self::path(artifact, file));
            let doing = |error| disk(error, "reading", &path);
            let look = Look::from(&fs::metadata(&path).map_err(doing)?);
            let name = stored_name(file);
            let Some(known) = record.files.iter_mut().find(|known| known.name == name) else {
                return Ok(false);
            };
            if known.look == look && !thorough {
                continue;
            }
            if known.look.size != look.size || record::hash(&path).map_err(doing)? != known.sha256 {
                return Ok(false);
            }
            changed |= known.look != look;
            known.look = look;
        }
        if changed {
            // A copy of an image: the next look is quick again.
            record::write(&self.root, &folder, &record)?;
        }
        Ok(true)
    }

    /// Removes what a killed predecessor left half-done. What another process
    /// is at work on is left alone: it holds a lock.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the store cannot be read or changed.
    pub fn sweep(&self) -> Result<()> {
        self.root.create_dir(paths::STORE, 0o755)?;
        for entry in self.root.list(paths::STORE)? {
            let path = Path::new(paths::STORE).join(&entry.name);
            if entry.name.to_string_lossy().starts_with(PARTIAL)
                && !is_locked(&self.root.path(&path))
            {
                self.root.remove_tree(path)?;
            }
        }
        Ok(())
    }

    /// Opens the way of an artifact's bytes into the store.
    ///
    /// # Errors
    ///
    /// [`Code::DiskFull`]: there is no room for what will come (F14);
    /// [`Code::Disk`]: no folder can be made.
    pub fn receive(&self, artifact: &Artifact) -> Result<Incoming> {
        let store = self.root.path(paths::STORE);
        let room = self.root.filesystem(paths::STORE)?;
        let wanted = match artifact.packing {
            Packing::Plain => artifact.size.unwrap_or(0),
            _ if self.keeps_downloads => artifact.size.unwrap_or(0),
            // How much comes out of it is known when it is out.
            _ => 0,
        };
        if room.available_bytes < wanted {
            let text = format!(
                "{} takes {} MB, {} has {} MB left",
                artifact.name,
                wanted.div_ceil(1_000_000),
                store.display(),
                room.available_bytes / 1_000_000
            );
            return Err(Error::new(Code::DiskFull, text));
        }
        // The folder, the record, and each file.
        let inodes = artifact.files.len() as u64 + 2 + u64::from(self.keeps_downloads);
        if room.available_inodes.is_some_and(|left| left < inodes) {
            let text = format!("{} has no inodes left", store.display());
            return Err(Error::new(Code::DiskFull, text));
        }
        let keep = self.keeps_downloads && artifact.packing != Packing::Plain;
        Incoming::open(artifact, &store, keep)
    }

    /// Makes the wanted paths links to the stored files; whether any changed.
    /// Those of an artifact that is refused stay as they are.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: a link cannot be made.
    pub fn link(&self, artifact: &Artifact) -> Result<bool> {
        let mut changed = false;
        if self.refused()?.contains_key(&artifact.digest.hex()) {
            return Ok(false);
        }
        for file in &artifact.files {
            let link = Path::new(&file.path);
            if let Some(folder) = link.parent()
                && !self.root.exists(folder)?
            {
                self.root.create_dir(folder, 0o755)?;
            }
            changed |= self
                .root
                .symlink_atomic(Self::path(artifact, file), link)?
                .is_changed();
        }
        Ok(changed)
    }
}

/// A file's name in the store: the last part of where it is installed.
fn stored_name(file: &ArtifactFile) -> &str {
    file.path.rsplit('/').next().unwrap_or(&file.path)
}

/// Whether a process is at work in a folder (flock(2)); the lock goes with it,
/// however it ends.
fn is_locked(folder: &Path) -> bool {
    File::open(folder)
        .is_ok_and(|folder| matches!(folder.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

fn disk(error: io::Error, doing: &str, path: &Path) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::Disk,
    };
    Error::new(code, format!("{doing} {}", path.display())).because(error)
}

/// The SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).into())
}
