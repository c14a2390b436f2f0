//! What this machine renewed of the files that its user-data brought.
//!
//! The user-data keeps the old ones, and coreos-cloudinit writes them again at
//! every boot. So each renewal is kept with the digest of what it replaced:
//! while the document says the same, the renewed files are put back; once a new
//! document says otherwise, that is what counts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Context, Result};
use crate::sys::Changed;
use crate::sys::root::Root;
use units::node_config::{ManifestEntry, Service};
use units::paths;
use units::types::{Digest, FileMode};

/// Where renewals are kept: one file each, 0600, as it holds keys.
const FOLDER: &str = "/var/lib/knode/renewed";

/// Files that were renewed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// What it is: `etcd-server`.
    pub name: String,
    /// The files; a key and its certificate, or a kubeconfig.
    pub files: Vec<RenewedFile>,
    /// A service that still runs with the old ones.
    #[serde(default)]
    pub restart: Option<Service>,
}

/// A renewed file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewedFile {
    /// Where it is.
    pub path: String,
    /// Its permission bits.
    pub mode: FileMode,
    /// The digest, in the document's manifest, of the file that it replaced;
    /// none where the manifest does not name it.
    pub origin: Option<Digest>,
    /// The text; may be a private key.
    pub content: String,
}

impl fmt::Debug for RenewedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RenewedFile({}, {})", self.path, self.mode)
    }
}

impl RenewedFile {
    /// A file that replaces the one that the document brought.
    pub fn new(manifest: &[ManifestEntry], path: &str, mode: FileMode, content: String) -> Self {
        Self {
            path: path.to_owned(),
            mode,
            origin: origin(manifest, path),
            content,
        }
    }
}

fn origin(manifest: &[ManifestEntry], path: &str) -> Option<Digest> {
    let entry = manifest.iter().find(|entry| entry.path == path);
    entry.map(|entry| entry.digest.clone())
}

impl Renewal {
    /// Whether the document still brings what this replaced.
    fn is_current(&self, manifest: &[ManifestEntry]) -> bool {
        let mut files = self.files.iter();
        files.all(|file| file.origin == origin(manifest, &file.path))
    }

    /// Whether this takes the place of that file of the document.
    pub fn replaces(&self, entry: &ManifestEntry) -> bool {
        self.files.iter().any(|file| file.path == entry.path)
    }

    /// Keeps the renewal, then puts its files in their places.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`], [`Code::DiskFull`]: the files are then the old ones.
    pub fn install(&self, root: &Root) -> Result<Changed> {
        self.keep(root)?;
        self.put(root)
    }

    /// Keeps the renewal.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`], [`Code::DiskFull`].
    pub fn keep(&self, root: &Root) -> Result<()> {
        root.create_dir(paths::STATE_DIR, 0o700)?;
        root.create_dir(FOLDER, 0o700)?;
        let text = serde_json::to_vec(self)
            .context(Code::Disk, || format!("keeping the new {}", self.name))?;
        root.write_atomic(format!("{FOLDER}/{}.json", self.name), &text, 0o600)?;
        Ok(())
    }

    /// Puts the files in their places, as one.
    fn put(&self, root: &Root) -> Result<Changed> {
        let files: Vec<(&str, &[u8], u32)> = self
            .files
            .iter()
            .map(|file| {
                (
                    file.path.as_str(),
                    file.content.as_bytes(),
                    file.mode.bits(),
                )
            })
            .collect();
        Ok(root.write_together(&files)?)
    }
}

/// The renewals that count with this document; those that do not are removed.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn read(root: &Root, manifest: &[ManifestEntry]) -> Result<Vec<Renewal>> {
    let mut renewals = Vec::new();
    for (path, renewal) in all(root)? {
        match renewal {
            Some(renewal) if renewal.is_current(manifest) => renewals.push(renewal),
            Some(renewal) => {
                tracing::info!("the document brings a new {}, which counts", renewal.name);
                root.remove(&path)?;
            }
            // Cut by a power loss (F13): the document's own is still there.
            None => {
                tracing::warn!("{path} is not readable, and was removed");
                root.remove(&path)?;
            }
        }
    }
    Ok(renewals)
}

/// The renewals that would count with this document; all are left as they are.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn current(root: &Root, manifest: &[ManifestEntry]) -> Result<Vec<Renewal>> {
    let renewals = all(root)?.into_iter().filter_map(|(_, renewal)| renewal);
    Ok(renewals.filter(|one| one.is_current(manifest)).collect())
}

/// Every renewal by its file; none where that cannot be understood.
fn all(root: &Root) -> Result<Vec<(String, Option<Renewal>)>> {
    let mut all = Vec::new();
    if !root.exists(FOLDER)? {
        return Ok(all);
    }
    for entry in root.list(FOLDER)? {
        let name = entry.name.to_string_lossy();
        if !name.ends_with(".json") || name.starts_with('.') {
            continue;
        }
        let path = format!("{FOLDER}/{name}");
        let renewal = serde_json::from_slice(&root.read(&path)?).ok();
        all.push((path, renewal));
    }
    Ok(all)
}

/// Puts all of them back in their places; says how many were not there.
///
/// # Errors
///
/// [`Code::Disk`], [`Code::DiskFull`].
pub fn put_back(root: &Root, renewals: &[Renewal]) -> Result<usize> {
    let mut count = 0;
    for renewal in renewals {
        count += usize::from(renewal.put(root)?.is_changed());
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::store::sha256;

    const PATH: &str = "/etc/kubernetes/pki/apiserver.crt";
    const KEY: &str = "/etc/kubernetes/pki/apiserver.key";

    fn manifest(certificate: &str) -> Vec<ManifestEntry> {
        let entry = |path: &str, mode: FileMode, text: &str| ManifestEntry {
            path: path.to_owned(),
            mode,
            digest: sha256(text.as_bytes()),
        };
        vec![
            entry(PATH, FileMode::PUBLIC, certificate),
            entry(KEY, FileMode::SECRET, "old key"),
        ]
    }

    fn write(root: &Root, path: &str, text: &str) {
        let folder = path.rsplit_once('/').unwrap().0;
        root.create_dir(folder, 0o755).unwrap();
        root.write_atomic(path, text.as_bytes(), 0o644).unwrap();
    }

    /// B13: coreos-cloudinit writes the document's files again at every boot.
    #[test]
    fn renewed_files_are_put_back_until_the_document_brings_others() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let old = manifest("old");
        write(&root, PATH, "old");
        write(&root, KEY, "old key");
        assert!(read(&root, &old).unwrap().is_empty());
        let file =
            |path: &str, mode, text: &str| RenewedFile::new(&old, path, mode, text.to_owned());
        let renewal = Renewal {
            name: "apiserver".to_owned(),
            files: vec![
                file(PATH, FileMode::PUBLIC, "new"),
                file(KEY, FileMode::SECRET, "new key"),
            ],
            restart: None,
        };
        assert!(!format!("{renewal:?}").contains("new key"));
        renewal.install(&root).unwrap();
        assert_eq!(root.read_to_string(PATH).unwrap(), "new");
        assert_eq!(root.stat(KEY).unwrap().unwrap().mode, 0o600);
        let kept = "/var/lib/knode/renewed/apiserver.json";
        assert_eq!(root.stat(kept).unwrap().unwrap().mode, 0o600);

        write(&root, PATH, "old");
        let found = read(&root, &old).unwrap();
        assert!(found[0].replaces(&old[0]));
        assert_eq!(put_back(&root, &found).unwrap(), 1);
        assert_eq!(put_back(&root, &found).unwrap(), 0);
        assert_eq!(root.read_to_string(PATH).unwrap(), "new");

        assert!(read(&root, &manifest("newer")).unwrap().is_empty());
        assert!(!root.exists(kept).unwrap());
        renewal.install(&root).unwrap();
        root.write_atomic(kept, b"{\"name\": ", 0o600).unwrap();
        assert!(read(&root, &old).unwrap().is_empty());
    }
}
