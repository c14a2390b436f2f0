//! Hearing that files of a folder were written, without polling: inotify(7).
//!
//! A folder and not the file itself, since whoever replaces a file as a whole
//! renames another one over it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An ear on one folder, from [`watch`]. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    inotify: AsyncFd<Ear>,
}

/// Names its file in the way that tokio asks for.
#[derive(Debug)]
struct Ear(Inotify);

impl AsRawFd for Ear {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Listens for files of `folder` (not of folders in it) that are written,
/// moved or removed, from now on.
///
/// # Errors
///
/// There is no such folder, or the kernel has no room for another watch
/// (`ENOSPC`: fs.inotify.max_user_watches).
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn watch(folder: &Path) -> io::Result<Watch> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let events = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(folder, events)?;
    // What replaces it is unsafe, for those whose file is not their own.
    #[expect(deprecated)]
    let inotify = AsyncFd::with_interest(Ear(inotify), Interest::READABLE)?;
    Ok(Watch { inotify })
}

impl Watch {
    /// Returns when something happened to a file of the folder; all that
    /// happened until then is one change.
    ///
    /// # Errors
    ///
    /// The folder itself is gone or is another one now: listen anew.
    pub async fn changed(&self) -> io::Result<()> {
        let mut guard = self.inotify.readable().await?;
        loop {
            match self.inotify.get_ref().0.read_events() {
                Ok(events) => {
                    let lost = AddWatchFlags::IN_IGNORED
                        | AddWatchFlags::IN_DELETE_SELF
                        | AddWatchFlags::IN_MOVE_SELF;
                    if events.iter().any(|event| event.mask.intersects(lost)) {
                        return Err(io::ErrorKind::NotFound.into());
                    }
                }
                Err(Errno::EAGAIN) => {
                    guard.clear_ready();
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn heard(watch: &Watch) -> io::Result<()> {
        let changed = tokio::time::timeout(LIMIT, watch.changed());
        changed.await.expect("a change is heard")
    }

    #[tokio::test]
    async fn writes_and_renames_are_heard_and_the_end_of_the_folder_is_told() {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("knode");
        fs::create_dir(&folder).unwrap();
        let watch = watch(&folder).unwrap();
        fs::write(folder.join("node.yaml"), "1").unwrap();
        heard(&watch).await.unwrap();
        // As a whole, from a file of another folder.
        fs::write(outside.path().join("new"), "2").unwrap();
        fs::rename(outside.path().join("new"), folder.join("node.yaml")).unwrap();
        heard(&watch).await.unwrap();
        fs::rename(&folder, outside.path().join("other")).unwrap();
        assert!(heard(&watch).await.is_err());
        assert!(super::watch(&folder).is_err(), "there is none now");
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("node.yaml"), "1").unwrap();
        let watch = watch(folder.path()).unwrap();
        fs::read(folder.path().join("node.yaml")).unwrap();
        fs::write(folder.path().join("marker"), "").unwrap();
        heard(&watch).await.unwrap();
        let again = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(again.is_err(), "only the marker was heard");
    }
}
