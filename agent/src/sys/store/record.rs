//! What was verified: each stored file's digest, and by what it is known again
//! without reading all of it.
//!
//! The record lies beside the files and comes with them in one rename, so there
//! are no files without it.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Code, Context as _, Result};
use crate::sys::root::Root;
use units::types::to_hex;

/// The record's name in an artifact's folder.
pub const NAME: &str = ".verified.json";

/// The files of one artifact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// In no particular order.
    pub files: Vec<Known>,
}

/// One file as it was when it was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its name in the store.
    pub name: String,
    /// Its own SHA-256, hexadecimal.
    pub sha256: String,
    /// Where and when it was; another look is another file.
    #[serde(flatten)]
    pub look: Look,
}

/// What stat(2) tells of a file that nobody touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970, and the nanoseconds.
    pub modified: (i64, i64),
    /// Its inode; a copy has another.
    pub inode: u64,
}

impl From<&Metadata> for Look {
    fn from(found: &Metadata) -> Self {
        Self {
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            inode: found.ino(),
        }
    }
}

/// Writes the record of an artifact's folder.
///
/// # Errors
///
/// The disk's.
pub fn write(root: &Root, folder: &Path, record: &Record) -> Result<()> {
    root.write_atomic(folder.join(NAME), &text(record)?, 0o644)?;
    Ok(())
}

/// The record as it is written.
///
/// # Errors
///
/// None that a record has.
pub fn text(record: &Record) -> Result<Vec<u8>> {
    serde_json::to_vec(record).context(Code::Disk, || "putting a record into words".to_owned())
}

/// The SHA-256 of a file, hexadecimal.
///
/// # Errors
///
/// It cannot be read.
pub fn hash(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; super::BUFFER];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(to_hex(&hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}
