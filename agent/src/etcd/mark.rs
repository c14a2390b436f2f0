//! What is kept of this machine's member besides its data, in
//! `/var/lib/knode/etcd.json`: that it has been one, so that data which are
//! gone are missed.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Context as _, Result};
use crate::sys::root::Root;
use units::paths;

/// Below [`paths::STATE_DIR`].
const FILE: &str = "/var/lib/knode/etcd.json";

/// What is known of this machine's member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mark {
    /// Its number in the ring; absent: it has not been in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<u64>,
    /// An operator took it out of the ring.
    pub left: bool,
    /// An operator wants it back, also where that would not be done by itself.
    pub asked: bool,
}

/// What is kept; nothing where that is not known.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn read(root: &Root) -> Result<Mark> {
    let text = root.read_if_exists(FILE)?;
    let known = text.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(known.unwrap_or_default())
}

/// Keeps it.
///
/// # Errors
///
/// [`Code::Disk`], [`Code::DiskFull`].
pub fn keep(root: &Root, mark: &Mark) -> Result<()> {
    let text = serde_json::to_vec(mark).context(Code::Disk, || {
        "putting what is known of etcd into words".into()
    })?;
    if !root.exists(paths::STATE_DIR)? {
        root.create_dir(paths::STATE_DIR, 0o700)?;
    }
    root.write_atomic(FILE, &text, 0o600)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_nothing_where_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(read(&root).unwrap(), Mark::default());
        let mark = Mark {
            member: Some(u64::MAX),
            left: true,
            asked: false,
        };
        keep(&root, &mark).unwrap();
        assert_eq!(read(&root).unwrap(), mark);
        root.write_atomic(FILE, b"{", 0o600).unwrap();
        assert_eq!(read(&root).unwrap(), Mark::default());
    }
}
