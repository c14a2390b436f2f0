//! The way of one artifact's bytes into the store: hashed and unpacked while
//! they arrive, on a thread of its own, and renamed when the digest holds.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use sha2::{Digest as _, Sha256, Sha512};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::record::{self, Known, Look, Record};
use super::{BUFFER, PARTIAL, disk, packing, stored_name};
use crate::error::{Code, Context as _, Error, Result};
use units::node_config::{Artifact, ArtifactFile, Packing};
use units::types::{Digest, to_hex};

/// Chunks that may wait between the network and the disk; they are of 16 to
/// 400 KB.
const CHUNKS_IN_FLIGHT: usize = 8;

/// The way of one artifact's bytes into the store. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Incoming {
    sender: mpsc::Sender<Vec<u8>>,
    worker: tokio::task::JoinHandle<Result<()>>,
}

impl Incoming {
    /// `keep`: the bytes as they arrive are kept beside the files.
    pub(super) fn open(artifact: &Artifact, store: &Path, keep: bool) -> Result<Self> {
        let folder = Folder::make(store)?;
        let kept = match keep {
            true => Some(Kept::make(folder.path())?),
            false => None,
        };
        let place = store.join(artifact.digest.hex());
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let artifact = artifact.clone();
        let worker = tokio::task::spawn_blocking(move || {
            let arriving = Arriving::new(receiver, &artifact.digest, kept);
            receive(&artifact, arriving, folder, &place)
        });
        Ok(Self { sender, worker })
    }

    /// Hands on the next bytes. Whether more are wanted: false when the worker
    /// gave up, whose reason [`Incoming::finish`] tells.
    pub async fn push(&self, bytes: Vec<u8>) -> bool {
        let end = bytes.is_empty();
        end || self.sender.send(bytes).await.is_ok()
    }

    /// Says that all bytes came; returns when the artifact is in the store.
    ///
    /// # Errors
    ///
    /// [`Code::FetchHash`], [`Code::FetchSize`]: the bytes are not what was
    /// pinned; [`Code::FetchUnpack`]: they are, and cannot be unpacked;
    /// [`Code::Disk`], [`Code::DiskFull`].
    pub async fn finish(self) -> Result<()> {
        // Nothing is the end; a channel that closes is one that was dropped.
        let told = self.sender.send(Vec::new()).await;
        if told.is_err() {
            tracing::debug!("the worker gave up before the end");
        }
        drop(self.sender);
        self.worker
            .await
            .context(Code::FetchUnpack, || "unpacking".to_owned())?
    }
}

/// The unfinished artifact's folder, held by a lock so that no other process
/// takes it for one that was left.
struct Folder {
    inner: TempDir,
    _lock: File,
}

impl Folder {
    fn make(store: &Path) -> Result<Self> {
        let inner = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(store)
            .map_err(|error| disk(error, "writing", store))?;
        let lock = || -> io::Result<File> {
            let lock = File::open(inner.path())?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = lock().map_err(|error| disk(error, "locking", inner.path()))?;
        Ok(Self { inner, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.inner.path()
    }
}

/// The file that gets a copy of what arrives.
struct Kept {
    file: File,
    path: PathBuf,
    /// Told at the end: a reader's errors would be taken for the archive's.
    failed: Option<io::Error>,
}

impl Kept {
    fn make(folder: &Path) -> Result<Self> {
        let path = folder.join(super::DOWNLOAD);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(|error| disk(error, "writing", &path))?;
        Ok(Self {
            file,
            path,
            failed: None,
        })
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.file.write_all(bytes).err();
        }
    }

    fn finish(self) -> Result<()> {
        let outcome = match self.failed {
            Some(error) => Err(error),
            None => self.file.sync_all(),
        };
        outcome.map_err(|error| disk(error, "writing", &self.path))
    }
}

/// The arriving chunks as a reader that hashes and counts what passes.
struct Arriving {
    receiver: mpsc::Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hash: Hash,
    kept: Option<Kept>,
    count: u64,
    ended: bool,
}

enum Hash {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Arriving {
    fn new(receiver: mpsc::Receiver<Vec<u8>>, digest: &Digest, kept: Option<Kept>) -> Self {
        let hash = match digest {
            Digest::Sha256(_) => Hash::Sha256(Sha256::new()),
            Digest::Sha512(_) => Hash::Sha512(Box::default()),
        };
        Self {
            receiver,
            current: Vec::new(),
            at: 0,
            hash,
            kept,
            count: 0,
            ended: false,
        }
    }
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            if self.ended {
                return Ok(0);
            }
            // Closed without an end: whoever sent gave up.
            let Some(next) = self.receiver.blocking_recv() else {
                return Err(io::ErrorKind::ConnectionAborted.into());
            };
            self.ended = next.is_empty();
            match &mut self.hash {
                Hash::Sha256(hash) => hash.update(&next),
                Hash::Sha512(hash) => hash.update(&next),
            }
            if let Some(kept) = &mut self.kept {
                kept.push(&next);
            }
            self.count += next.len() as u64;
            self.current = next;
            self.at = 0;
        }
        let rest = &self.current[self.at..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

/// Bytes → files → checks → rename.
fn receive(
    artifact: &Artifact,
    mut arriving: Arriving,
    folder: Folder,
    place: &Path,
) -> Result<()> {
    let written = write(artifact, &mut arriving, folder.path());
    // A full disk is told as such; every other trouble may come from wrong
    // bytes, so the checksum speaks first.
    if let Err(error) = &written
        && matches!(error.code(), Code::Disk | Code::DiskFull)
    {
        return written.map(drop);
    }
    io::copy(&mut arriving, &mut io::sink())
        .context(Code::FetchUnpack, || "reading to the end".to_owned())?;
    let kept = arriving.kept.take();
    check(artifact, arriving)?;
    let record = written?;
    kept.map_or(Ok(()), Kept::finish)?;
    settle(&folder, &record, place)
}

fn check(artifact: &Artifact, arrived: Arriving) -> Result<()> {
    let name = &artifact.name;
    if let Some(size) = artifact.size
        && size != arrived.count
    {
        return Err(Error::new(
            Code::FetchSize,
            format!("{name} has {} bytes, {size} are pinned", arrived.count),
        ));
    }
    let found = match arrived.hash {
        Hash::Sha256(hash) => to_hex(&hash.finalize()),
        Hash::Sha512(hash) => to_hex(&hash.finalize()),
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

fn write(artifact: &Artifact, arriving: &mut Arriving, folder: &Path) -> Result<Record> {
    let unpacked = packing::unpacked(artifact.packing, artifact.size, arriving);
    let files = if artifact.packing.is_archive() {
        write_members(artifact, unpacked, folder)?
    } else {
        vec![write_one(artifact, unpacked, folder)?]
    };
    Ok(Record { files })
}

fn write_one(artifact: &Artifact, unpacked: impl Read, folder: &Path) -> Result<Known> {
    let [file] = artifact.files.as_slice() else {
        return Err(Error::new(
            Code::ConfigInvalid,
            format!(
                "{} is one file but is to become {}",
                artifact.name,
                artifact.files.len()
            ),
        ));
    };
    let known = match artifact.digest {
        // What arrives is the file: one hash is enough, and is checked later.
        Digest::Sha256(_) if artifact.packing == Packing::Plain => Some(artifact.digest.hex()),
        _ => None,
    };
    write_file(unpacked, folder, stored_name(file), known)
}

fn write_members(artifact: &Artifact, unpacked: impl Read, folder: &Path) -> Result<Vec<Known>> {
    let doing = || format!("unpacking {}", artifact.name);
    let mut missing: Vec<&ArtifactFile> = artifact.files.iter().collect();
    let mut written = Vec::new();
    let mut archive = tar::Archive::new(unpacked);
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
            written.push(write_file(entry, folder, stored_name(file), None)?);
        }
        if missing.is_empty() {
            // The rest passes through the hash alone, and is not unpacked.
            return Ok(written);
        }
    }
    let names: Vec<&str> = missing.iter().filter_map(|f| f.member.as_deref()).collect();
    Err(Error::new(
        Code::FetchUnpack,
        format!("{} has no {}", artifact.name, names.join(", ")),
    ))
}

/// Copies to a new file, hashes it, and puts it on the disk. Reading errors are
/// the archive's, writing errors the disk's. `known` is the file's SHA-256
/// where somebody else sees to it.
fn write_file(
    mut from: impl Read,
    folder: &Path,
    name: &str,
    known: Option<String>,
) -> Result<Known> {
    let to: PathBuf = folder.join(name);
    let doing = |error| disk(error, "writing", &to);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&to)
        .map_err(doing)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = fill(&mut from, &mut buffer)
            .context(Code::FetchUnpack, || format!("unpacking {name}"))?;
        if length == 0 {
            break;
        }
        if known.is_none() {
            hash.update(&buffer[..length]);
        }
        file.write_all(&buffer[..length]).map_err(doing)?;
    }
    // The creating umask may have taken bits away.
    let look = file
        .set_permissions(fs::Permissions::from_mode(0o755))
        .and_then(|()| file.sync_all())
        .and_then(|()| file.metadata())
        .map_err(doing)?;
    Ok(Known {
        name: name.to_owned(),
        sha256: known.unwrap_or_else(|| to_hex(&hash.finalize())),
        look: Look::from(&look),
    })
}

/// Fills the buffer as far as bytes come; 0 at the end.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Renames the verified folder into its place, durably. A folder that is there
/// has another list of wanted files, or was damaged: they change places, so
/// that there is one at every moment (renameat2(2)).
fn settle(folder: &Folder, record: &Record, place: &Path) -> Result<()> {
    let record = record::text(record)?;
    let settle = || -> io::Result<()> {
        let mut file = File::create_new(folder.path().join(record::NAME))?;
        file.write_all(&record)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        File::open(folder.path())?.sync_all()?;
        if place.exists() {
            let exchange = RenameFlags::RENAME_EXCHANGE;
            renameat2(AT_FDCWD, folder.path(), AT_FDCWD, place, exchange)?;
        } else {
            fs::rename(folder.path(), place)?;
        }
        match place.parent() {
            Some(store) => File::open(store)?.sync_all(),
            None => Ok(()),
        }
    };
    settle().map_err(|error| disk(error, "writing", place))
}
