//! The content-addressed store of verified artifacts.
//!
//! `/opt/knode/store/HEX/` holds the wanted files of the artifact with that
//! digest. Bytes are hashed and unpacked while they arrive, into a folder
//! beside it, which is renamed into place only when the digest holds and its
//! files are on the disk: what is in the store is verified (failure modes F1,
//! F12, F13).

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::mpsc;

use crate::error::{Code, Context, Error, Result};
use crate::sys::root::Root;
use units::node_config::{Artifact, ArtifactFile, Packing};
use units::paths;
use units::types::{Digest, to_hex};

/// Bytes that are gathered before a write.
const BUFFER: usize = 256 * 1024;
/// Chunks that may wait between the network and the disk.
const CHUNKS_IN_FLIGHT: usize = 32;

/// The store below a root.
#[derive(Debug, Clone)]
pub struct Store {
    root: Root,
}

impl Store {
    /// The store of the machine at `root`.
    pub fn new(root: Root) -> Self {
        Self { root }
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

    /// Removes what a killed predecessor left half-done.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the store cannot be read or changed.
    pub fn sweep(&self) -> Result<()> {
        self.root.create_dir(paths::STORE, 0o755)?;
        for entry in self.root.list(paths::STORE)? {
            if entry.name.to_string_lossy().starts_with(PARTIAL) {
                self.root
                    .remove_tree(Path::new(paths::STORE).join(entry.name))?;
            }
        }
        Ok(())
    }

    /// Opens the way of an artifact's bytes into the store.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`], [`Code::DiskFull`]: no folder can be made.
    pub fn receive(&self, artifact: &Artifact) -> Result<Incoming> {
        let place = self
            .root
            .path(Path::new(paths::STORE).join(artifact.digest.hex()));
        let store = self.root.path(paths::STORE);
        let partial = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(&store)
            .map_err(|error| disk(error, &store))?;
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let artifact = artifact.clone();
        let worker = tokio::task::spawn_blocking(move || {
            unpack(&artifact, Chunks::new(receiver), &partial, &place)
        });
        Ok(Incoming { sender, worker })
    }

    /// Makes the wanted paths links to the stored files; whether any changed.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: a link cannot be made.
    pub fn link(&self, artifact: &Artifact) -> Result<bool> {
        let mut changed = false;
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

const PARTIAL: &str = ".partial-";

/// A file's name in the store: the last part of where it is installed.
fn stored_name(file: &ArtifactFile) -> &str {
    file.path.rsplit('/').next().unwrap_or(&file.path)
}

/// The way of one artifact's bytes into the store.
#[derive(Debug)]
pub struct Incoming {
    sender: mpsc::Sender<Vec<u8>>,
    worker: tokio::task::JoinHandle<Result<()>>,
}

impl Incoming {
    /// Hands on the next bytes. Whether more are wanted: false when the worker
    /// gave up, whose reason [`Incoming::finish`] tells.
    pub async fn push(&self, bytes: Vec<u8>) -> bool {
        self.sender.send(bytes).await.is_ok()
    }

    /// Says that all bytes came; returns when the artifact is in the store.
    ///
    /// # Errors
    ///
    /// [`Code::FetchHash`], [`Code::FetchSize`], [`Code::FetchUnpack`]: the
    /// bytes are not what was pinned; [`Code::Disk`], [`Code::DiskFull`].
    pub async fn finish(self) -> Result<()> {
        drop(self.sender);
        self.worker
            .await
            .context(Code::FetchUnpack, || "unpacking".to_owned())?
    }
}

/// The arriving chunks as a reader that hashes and counts what passes.
struct Chunks {
    receiver: mpsc::Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    sha256: Sha256,
    sha512: Sha512,
    wide: bool,
    count: u64,
}

impl Chunks {
    fn new(receiver: mpsc::Receiver<Vec<u8>>) -> Self {
        Self {
            receiver,
            current: Vec::new(),
            at: 0,
            sha256: Sha256::new(),
            sha512: Sha512::new(),
            wide: false,
            count: 0,
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.receiver.blocking_recv() {
                Some(next) => {
                    if self.wide {
                        self.sha512.update(&next);
                    } else {
                        self.sha256.update(&next);
                    }
                    self.count += next.len() as u64;
                    self.current = next;
                    self.at = 0;
                }
                None => return Ok(0),
            }
        }
        let rest = &self.current[self.at..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

/// Runs on a thread of its own: bytes → files → checks → rename.
fn unpack(
    artifact: &Artifact,
    mut chunks: Chunks,
    partial: &tempfile::TempDir,
    place: &Path,
) -> Result<()> {
    chunks.wide = matches!(artifact.digest, Digest::Sha512(_));
    let written = match artifact.packing {
        Packing::Plain => write_plain(artifact, &mut chunks, partial.path()),
        Packing::TarGz => write_members(artifact, &mut chunks, partial.path()),
    };
    // A full disk is told as such; every other trouble may come from wrong
    // bytes, so the checksum speaks first.
    if let Err(error) = &written
        && matches!(error.code(), Code::Disk | Code::DiskFull)
    {
        return written;
    }
    io::copy(&mut chunks, &mut io::sink())
        .context(Code::FetchUnpack, || "reading to the end".to_owned())?;
    check(artifact, chunks)?;
    written?;
    settle(partial, place)
}

fn check(artifact: &Artifact, chunks: Chunks) -> Result<()> {
    let name = &artifact.name;
    if let Some(size) = artifact.size
        && size != chunks.count
    {
        return Err(Error::new(
            Code::FetchSize,
            format!("{name} has {} bytes, {size} are pinned", chunks.count),
        ));
    }
    let found = if chunks.wide {
        to_hex(&chunks.sha512.finalize())
    } else {
        to_hex(&chunks.sha256.finalize())
    };
    if found == artifact.digest.hex() {
        return Ok(());
    }
    Err(Error::new(
        Code::FetchHash,
        format!(
            "{name} has {}:{found}, pinned is {}",
            artifact.digest.algorithm(),
            artifact.digest
        ),
    ))
}

fn write_plain(artifact: &Artifact, chunks: &mut Chunks, folder: &Path) -> Result<()> {
    let [file] = artifact.files.as_slice() else {
        return Err(Error::new(
            Code::ConfigInvalid,
            format!(
                "{} is one plain file but is to become {}",
                artifact.name,
                artifact.files.len()
            ),
        ));
    };
    write_file(chunks, &folder.join(stored_name(file)))
}

fn write_members(artifact: &Artifact, chunks: &mut Chunks, folder: &Path) -> Result<()> {
    let doing = || format!("unpacking {}", artifact.name);
    let mut missing: Vec<&ArtifactFile> = artifact.files.iter().collect();
    let mut archive = tar::Archive::new(GzDecoder::new(chunks));
    for entry in archive.entries().context(Code::FetchUnpack, doing)? {
        let entry = entry.context(Code::FetchUnpack, doing)?;
        let path = entry.path().context(Code::FetchUnpack, doing)?;
        let member = path.strip_prefix("./").unwrap_or(&path);
        let wanted = missing.iter().position(|file| {
            entry.header().entry_type().is_file()
                && file
                    .member
                    .as_deref()
                    .is_some_and(|m| Path::new(m) == member)
        });
        if let Some(index) = wanted {
            let file = missing.swap_remove(index);
            write_file(entry, &folder.join(stored_name(file)))?;
        }
        if missing.is_empty() {
            // The rest passes through the hash alone, not through gunzip.
            return Ok(());
        }
    }
    let names: Vec<&str> = missing.iter().filter_map(|f| f.member.as_deref()).collect();
    Err(Error::new(
        Code::FetchUnpack,
        format!("{} has no {}", artifact.name, names.join(", ")),
    ))
}

/// Copies to a new file and puts it on the disk. Reading errors are the
/// archive's, writing errors the disk's.
fn write_file(mut from: impl Read, to: &Path) -> Result<()> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(to)
        .map_err(|error| disk(error, to))?;
    let mut file = BufWriter::with_capacity(BUFFER, file);
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(error).context(Code::FetchUnpack, || "unpacking".to_owned());
            }
        };
        file.write_all(&buffer[..length])
            .map_err(|error| disk(error, to))?;
    }
    let file = file
        .into_inner()
        .map_err(|error| disk(error.into_error(), to))?;
    // The creating umask may have taken bits away.
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .and_then(|()| file.sync_all())
        .map_err(|error| disk(error, to))
}

/// Renames the verified folder into its place, durably.
fn settle(partial: &tempfile::TempDir, place: &Path) -> Result<()> {
    let settle = || -> io::Result<()> {
        fs::set_permissions(
            partial.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        File::open(partial.path())?.sync_all()?;
        // A folder of that name without all its files is a predecessor's with
        // another list of wanted files.
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        fs::rename(partial.path(), place)?;
        match place.parent() {
            Some(store) => File::open(store)?.sync_all(),
            None => Ok(()),
        }
    };
    settle().map_err(|error| disk(error, place))
}

fn disk(error: io::Error, path: &Path) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::Disk,
    };
    Error::new(code, format!("writing {}", path.display())).because(error)
}

/// The SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).into())
}
