//! What the file system tells, and what can go wrong with it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What could not be done to which path. The reason is the [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Error {
    /// The full path on this machine, the root's folder included.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of the reason, for matching.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// `true` when there is no such file or folder.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    /// `true` when the file system has no space or no inodes left (failure mode F14).
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Adds what was being done, and to which path.
pub(super) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

/// What lies at a path; a symbolic link is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// File, folder, link or something else.
    pub kind: Kind,
    /// Permission bits with set-user-ID, set-group-ID and sticky (`0o7777` at most).
    pub mode: u32,
    /// Size in bytes; for a link the length of its target.
    pub len: u64,
    /// Owner, a numeric user ID.
    pub uid: u32,
    /// Time of the last change of the content.
    pub modified: SystemTime,
}

/// Kinds of directory entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link, wherever it leads.
    Symlink,
    /// A socket, a device, a FIFO.
    Other,
}

impl From<fs::FileType> for Kind {
    fn from(t: fs::FileType) -> Self {
        match t {
            t if t.is_file() => Kind::File,
            t if t.is_dir() => Kind::Dir,
            t if t.is_symlink() => Kind::Symlink,
            _ => Kind::Other,
        }
    }
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name within the folder.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
}

/// The file system that holds a path: room left and how it is mounted (failure modes F14, F15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filesystem {
    /// Bytes that can still be written by us.
    pub available_bytes: u64,
    /// Files that can still be created; `None` where the file system has no such limit (btrfs).
    pub available_inodes: Option<u64>,
    /// Mounted read-only.
    pub read_only: bool,
    /// Mounted so that nothing on it can be executed.
    pub noexec: bool,
}
