//! What was built, and of what: catalogue.json, beside the images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, file};

/// The name of the catalogue's file.
pub const NAME: &str = "catalogue.json";

/// The catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalogue {
    /// Of this format: 1.
    pub version: u32,
    /// The Debian release.
    pub suite: String,
    /// As Debian calls it.
    pub architecture: String,
    /// The date of the packages' index, RFC 3339; every time stamp in the images is it.
    pub snapshot: String,
    /// The kernel's version, as `uname -r` says it.
    pub kernel: String,
    /// The knode inside.
    pub knode: Content,
    /// The images, by their names.
    pub files: BTreeMap<String, Content>,
    /// Every package inside, with its version.
    pub packages: BTreeMap<String, String>,
}

/// A file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Content {
    /// Reads a file through.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let mut opened = File::open(path).map_err(file("reading", path))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut size = 0;
        loop {
            let read = opened.read(&mut buffer).map_err(file("reading", path))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            size += read as u64;
        }
        let sha256 = hash
            .finalize()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        Ok(Self { size, sha256 })
    }
}

/// Reads what dpkg-query says: `name version` lines.
pub(crate) fn packages(installed: &str) -> Result<BTreeMap<String, String>> {
    let pair = |line: &str| {
        let (name, version) = line.split_once(' ').filter(|(_, it)| !it.is_empty())?;
        Some((name.to_owned(), version.to_owned()))
    };
    let strange = |line: &str| Error::Content(format!("dpkg-query says of a package: {line}"));
    installed
        .lines()
        .map(|line| pair(line).ok_or_else(|| strange(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn content_is_size_and_checksum() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("abc");
        fs::write(&path, "abc").expect("written");
        let content = Content::of(&path).expect("read");
        assert_eq!(content.size, 3);
        assert_eq!(
            content.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn packages_have_versions() {
        let found = packages("runc 1.1.15\nzstd 1.5.7\n").expect("two packages");
        assert_eq!(found["runc"], "1.1.15");
        assert_eq!(found.len(), 2);
        assert!(packages("runc \n").is_err());
        assert!(packages("runc\n").is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let content = Content {
            size: 3,
            sha256: "ba".repeat(32),
        };
        let catalogue = Catalogue {
            version: 1,
            suite: "trixie".into(),
            architecture: "amd64".into(),
            snapshot: "2026-09-12T07:55:41Z".into(),
            kernel: "6.12".into(),
            knode: content.clone(),
            files: BTreeMap::from([("vmlinuz".into(), content)]),
            packages: BTreeMap::from([("runc".into(), "1.1.15".into())]),
        };
        let text = serde_json::to_string(&catalogue).expect("written");
        assert_eq!(
            serde_json::from_str::<Catalogue>(&text).expect("read"),
            catalogue
        );
    }
}
