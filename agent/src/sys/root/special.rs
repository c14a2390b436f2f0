//! Two rarer ways to write: several files as one, and a file that is others'
//! as well.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use super::atomic::{commit, discard, prepare, replace, settle};
use super::types::{Context as _, Result};
use super::{Changed, MODE_MASK, Root, has_content, write_new};

impl Root {
    /// As [`Root::write_atomic`] for files that belong together, a key and its
    /// certificate: all new ones are on the disk before the first is renamed,
    /// and the renames follow each other without anything in between.
    ///
    /// # Errors
    /// When a file cannot be prepared: then all old ones are still there. A
    /// rename that fails, as it does only on a broken disk, may leave some new.
    pub fn write_together(&self, files: &[(&str, &[u8], u32)]) -> Result<Changed> {
        let mut prepared: Vec<(PathBuf, PathBuf)> = Vec::new();
        for (path, bytes, mode) in files {
            let path = self.path(path);
            let made = has_content(&path, bytes, *mode).and_then(|right| {
                if right {
                    return Ok(None);
                }
                prepare(&path, |temp| write_new(temp, bytes, *mode)).map(Some)
            });
            match made {
                Ok(Some(temp)) => prepared.push((temp, path)),
                Ok(None) => {}
                Err(error) => {
                    let error = prepared
                        .iter()
                        .fold(error, |error, (temp, _)| discard(temp, error));
                    return Err(error).context("writing", &path);
                }
            }
        }
        for (temp, path) in &prepared {
            commit(temp, path).context("writing", path)?;
        }
        for (_, path) in &prepared {
            settle(path).context("writing", path)?;
        }
        Ok(if prepared.is_empty() {
            Changed::No
        } else {
            Changed::Yes
        })
    }

    /// Gives a file that is others' as well new content, and keeps its mode and
    /// owner. In one step where that can be; in place where the file is mounted
    /// or a link, as /etc/hosts is in containers. A missing file is made 0644.
    ///
    /// # Errors
    /// When that fails.
    pub fn rewrite(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<Changed> {
        let path = self.path(path);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                replace(&path, |temp| write_new(temp, bytes, 0o644)).context("writing", &path)?;
                return Ok(Changed::Yes);
            }
            Err(e) => return Err(e).context("looking at", &path),
        };
        if fs::read(&path).context("reading", &path)? == bytes {
            return Ok(Changed::No);
        }
        let mode = meta.mode() & MODE_MASK;
        let in_one_step = || {
            replace(&path, |temp| {
                write_new(temp, bytes, mode)?;
                chown(temp, Some(meta.uid()), Some(meta.gid()))
            })
        };
        let in_place = || {
            let mut file = OpenOptions::new().write(true).truncate(true).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let written = if meta.is_symlink() {
            in_place()
        } else {
            match in_one_step() {
                // A mount point cannot be renamed over.
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => in_place(),
                other => other,
            }
        };
        written.context("writing", &path)?;
        Ok(Changed::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_pair_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::new(folder.path());
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("there");
        let both: [(&str, &[u8], u32); 2] = [("/a.crt", b"1", 0o644), ("/a.key", b"1", 0o600)];
        assert_eq!(root.write_together(&both).expect("written"), Changed::Yes);
        assert_eq!(root.write_together(&both).expect("there"), Changed::No);
        let mode = root.stat("/a.key").expect("read").expect("there").mode;
        assert_eq!(mode, 0o600);
        let bad: [(&str, &[u8], u32); 2] = [("/a.crt", b"2", 0o644), ("/no/a.key", b"2", 0o600)];
        root.write_together(&bad).expect_err("no such folder");
        assert_eq!((read("a.crt"), read("a.key")), ("1".into(), "1".into()));
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2);
    }

    #[test]
    fn a_file_of_others_keeps_mode_owner_and_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::new(folder.path());
        let path = folder.path().join("hosts");
        assert_eq!(root.rewrite("/hosts", b"a").expect("made"), Changed::Yes);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("mode");
        let is_root = nix::unistd::geteuid().is_root();
        if is_root {
            chown(&path, Some(12), Some(34)).expect("owner");
        }
        assert_eq!(root.rewrite("/hosts", b"b").expect("written"), Changed::Yes);
        assert_eq!(root.rewrite("/hosts", b"b").expect("there"), Changed::No);
        let meta = fs::metadata(&path).expect("there");
        assert_eq!(meta.mode() & MODE_MASK, 0o664);
        if is_root {
            assert_eq!((meta.uid(), meta.gid()), (12, 34));
        }
        std::os::unix::fs::symlink("hosts", folder.path().join("link")).expect("link");
        root.rewrite("/link", b"c").expect("written");
        assert!(root.read_link("/link").expect("read").is_some());
        assert_eq!(fs::read(&path).expect("there"), b"c");
    }
}
