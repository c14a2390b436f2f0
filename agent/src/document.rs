//! The files that came with node.yaml, by its manifest: whether they are all
//! here, as kgen wrote them.

use crate::error::{Code, Error, Result};
use crate::renewals;
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::node_config::ManifestEntry;

/// Whether a file is as kgen wrote it.
///
/// # Errors
///
/// [`Code::ConfigAltered`] with the file and how it differs; [`Code::Disk`].
pub fn intact(root: &Root, entry: &ManifestEntry) -> Result<()> {
    let altered = |how: String| Error::new(Code::ConfigAltered, format!("{} {how}", entry.path));
    let bytes = root
        .read_if_exists(&entry.path)?
        .ok_or_else(|| altered("is missing".to_owned()))?;
    let mode = root.stat(&entry.path)?.map_or(0, |stat| stat.mode);
    if mode & 0o7777 != entry.mode.bits() {
        return Err(altered(format!(
            "has mode {:04o}, not {}",
            mode & 0o7777,
            entry.mode
        )));
    }
    if sha256(&bytes) != entry.digest {
        return Err(altered(format!(
            "is not as it was generated ({} bytes)",
            bytes.len()
        )));
    }
    Ok(())
}

/// Whether every file is as kgen wrote it, or is what this machine renewed of
/// it. Nothing is changed.
///
/// # Errors
///
/// As [`intact`], of the first file that is not.
pub fn whole(root: &Root, manifest: &[ManifestEntry]) -> Result<()> {
    let renewals = renewals::current(root, manifest)?;
    for entry in manifest {
        if !renewals.iter().any(|renewal| renewal.replaces(entry)) {
            intact(root, entry)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::types::FileMode;

    #[test]
    fn a_document_that_is_not_all_there_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let entry = |path: &str, text: &str| ManifestEntry {
            path: path.to_owned(),
            mode: FileMode::PUBLIC,
            digest: sha256(text.as_bytes()),
        };
        let manifest = [entry("/etc/a", "a"), entry("/etc/b", "b")];
        root.create_dir("/etc", 0o755).unwrap();
        root.write_atomic("/etc/a", b"a", 0o644).unwrap();
        let story = || whole(&root, &manifest).unwrap_err().story();
        assert_eq!(story(), "/etc/b is missing");
        root.write_atomic("/etc/b", b"c", 0o644).unwrap();
        assert!(story().starts_with("/etc/b is not as it was generated"));
        root.write_atomic("/etc/b", b"b", 0o600).unwrap();
        assert_eq!(story(), "/etc/b has mode 0600, not 0644");
        root.write_atomic("/etc/b", b"b", 0o644).unwrap();
        whole(&root, &manifest).unwrap();
    }
}
