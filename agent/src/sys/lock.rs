//! A lock between processes: a file's, which the kernel lets go of whenever its
//! holder ends.
//!
//! Beneath: flock(2) through nix.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Code, Context as _, Error, Result};
use crate::sys::root::Root;

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it unlocks when it is dropped")] Flock<File>);

impl Lock {
    /// Takes it; `None` where another holds it. Its folder must exist.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`].
    pub fn take(root: &Root, path: &str) -> Result<Option<Self>> {
        let full = root.path(path);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let doing = || format!("opening {path}");
        let file = options.open(full).context(Code::Disk, doing)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => {
                Err(Error::new(Code::Disk, format!("locking {path}")).because(errno))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let first = Lock::take(&root, "/one").unwrap();
        assert!(first.is_some());
        assert!(Lock::take(&root, "/one").unwrap().is_none());
        drop(first);
        assert!(Lock::take(&root, "/one").unwrap().is_some());
    }
}
