//! The file system, seen from a folder: `/` in production, a temporary folder in a test.
//!
//! Every path goes through [`Root`], so a test of a step runs in a folder and never touches the
//! machine. There is one writer, [`Root::write_atomic`]: whoever reads the file sees the old
//! content or the new one, never half of it, not even after a power loss (failure mode F13).
//!
//! All calls are synchronous and may wait for the disk (they `fsync`); on an async task put long
//! runs of them into `spawn_blocking`.

mod atomic;
mod special;
mod types;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Component, Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::Changed;
use atomic::replace;
use types::{Context as _, Result};
pub use types::{Entry, Error, Filesystem, Kind, Stat};

/// Permission bits, set-user-ID, set-group-ID and sticky: what a mode may hold.
const MODE_MASK: u32 = 0o7777;

/// A handle on the file system below one folder. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    prefix: PathBuf,
}

impl Default for Root {
    /// The machine's own root, `/`.
    fn default() -> Self {
        Root::new("/")
    }
}

impl Root {
    /// The file system as seen from `prefix`; `/` for the machine itself.
    pub fn new(prefix: impl Into<PathBuf>) -> Self {
        Root {
            prefix: prefix.into(),
        }
    }

    /// Where `path` lies on this machine. Absolute and relative paths mean the same, and `..`
    /// never leads out of the root. Symbolic links are not resolved here: an absolute link inside
    /// a test's folder leads out of it, so make links relative.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let mut below = PathBuf::new();
        for component in path.as_ref().components() {
            match component {
                Component::Normal(name) => below.push(name),
                Component::ParentDir => {
                    below.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        self.prefix.join(below)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read; [`Error::is_not_found`] when it is not there.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = self.path(path);
        fs::read(&path).context("reading", &path)
    }

    /// Reads a text file.
    ///
    /// # Errors
    /// As [`Root::read`], and [`io::ErrorKind::InvalidData`] when it is not UTF-8.
    pub fn read_to_string(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = self.path(path);
        fs::read_to_string(&path).context("reading", &path)
    }

    /// Reads a file that may be missing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read_if_exists(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        match self.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens a file for reading, for what is too large to be held in memory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = self.path(path);
        File::open(&path).context("opening", &path)
    }

    /// What lies at `path`, a link not followed; `None` when nothing does.
    ///
    /// # Errors
    /// When that cannot be found out, e.g. because a parent is a file.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Option<Stat>> {
        let path = self.path(path);
        let meta = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context("looking at", &path)?,
        };
        Ok(Some(Stat {
            kind: meta.file_type().into(),
            mode: meta.mode() & MODE_MASK,
            len: meta.len(),
            uid: meta.uid(),
            modified: meta.modified().context("looking at", &path)?,
        }))
    }

    /// Whether `path` leads to something; links are followed, a dangling one does not exist.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = self.path(path);
        path.try_exists().context("looking at", &path)
    }

    /// The entries of a folder, sorted by name.
    ///
    /// # Errors
    /// When the folder cannot be read; [`Error::is_not_found`] when it is not there.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<Entry>> {
        let path = self.path(path);
        let read = || -> io::Result<Vec<Entry>> {
            fs::read_dir(&path)?
                .map(|entry| {
                    let entry = entry?;
                    Ok(Entry {
                        name: entry.file_name(),
                        kind: entry.file_type()?.into(),
                    })
                })
                .collect()
        };
        let mut entries = read().context("listing", &path)?;
        entries.sort();
        Ok(entries)
    }

    /// Where a symbolic link leads, as written in it; `None` when there is no link.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let path = self.path(path);
        match fs::read_link(&path) {
            Ok(target) => Ok(Some(target)),
            // EINVAL: something lies there, and it is not a link.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e).context("reading the link", &path),
        }
    }

    /// Makes `path` a regular file with this content and mode, in one step as seen by readers.
    ///
    /// Nothing is touched when content and mode are right already. Otherwise a new file is made
    /// beside it, with its final mode before the first byte (a key is never readable by others,
    /// not even for a moment), written out to the disk, and renamed into place; whatever was at
    /// `path`, also a link, is replaced. The folder must exist.
    ///
    /// # Errors
    /// When any of that fails: the old file is then still there, whole.
    pub fn write_atomic(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<Changed> {
        let path = self.path(path);
        if has_content(&path, bytes, mode).context("comparing", &path)? {
            return Ok(Changed::No);
        }
        replace(&path, |temp| write_new(temp, bytes, mode)).context("writing", &path)?;
        Ok(Changed::Yes)
    }

    /// Makes `link` a symbolic link to `target`, in one step; a file or link there is replaced.
    /// A relative target is relative to the link's folder.
    ///
    /// # Errors
    /// When that fails, also when a folder is in the way.
    pub fn symlink_atomic(
        &self,
        target: impl AsRef<Path>,
        link: impl AsRef<Path>,
    ) -> Result<Changed> {
        let target = target.as_ref();
        if self.read_link(&link)?.as_deref() == Some(target) {
            return Ok(Changed::No);
        }
        let link = self.path(link);
        replace(&link, |temp| std::os::unix::fs::symlink(target, temp))
            .context("linking", &link)?;
        Ok(Changed::Yes)
    }

    /// Makes `path` a folder with this mode. Missing parents are made with mode 0755. The mode of
    /// an existing folder is corrected; a link to a folder counts as one.
    ///
    /// # Errors
    /// When that fails, also when a file is in the way.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<Changed> {
        let path = self.path(path);
        let mode = mode & MODE_MASK;
        let make = || -> io::Result<Changed> {
            match fs::metadata(&path) {
                Ok(meta) if !meta.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
                Ok(meta) if meta.mode() & MODE_MASK == mode => return Ok(Changed::No),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    if let Some(parent) = path.parent() {
                        DirBuilder::new()
                            .recursive(true)
                            .mode(0o755)
                            .create(parent)?;
                    }
                    DirBuilder::new().recursive(true).mode(mode).create(&path)?;
                }
                Err(e) => return Err(e),
            }
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            Ok(Changed::Yes)
        };
        make().context("making the folder", &path)
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// When it is there and cannot be removed, or is a folder.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<Changed> {
        let path = self.path(path);
        removed(fs::remove_file(&path)).context("removing", &path)
    }

    /// Removes a folder with all that is in it; links in it are removed, not followed.
    ///
    /// # Errors
    /// When it is there and cannot be removed, or is no folder. Part of it may then be gone.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> Result<Changed> {
        let path = self.path(path);
        removed(fs::remove_dir_all(&path)).context("removing the folder", &path)
    }

    /// Removes a folder that holds nothing.
    ///
    /// # Errors
    /// When it holds something, is no folder, or something is mounted on it.
    pub fn remove_empty(&self, path: impl AsRef<Path>) -> Result<Changed> {
        let path = self.path(path);
        removed(fs::remove_dir(&path)).context("removing the folder", &path)
    }

    /// Moves a file or a folder to `to`, in one step as seen by readers, within one file system.
    /// A file that is at `to` is replaced, an empty folder too; the folder above must exist.
    ///
    /// # Errors
    /// When `from` is not there, `to` is on another file system, or is a folder that holds
    /// something. See rename(2).
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        fs::rename(&from, &to).context("moving", &from)?;
        // Both folders: a power loss must not leave it in neither or in both.
        for folder in [from.parent(), to.parent()].into_iter().flatten() {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .context("writing out", folder)?;
        }
        Ok(())
    }

    /// The value of a kernel setting, e.g. `net.ipv4.ip_forward`, without the line's end.
    ///
    /// As with sysctl(8), the first separator decides: `net/ipv4/conf/eth0.1/forwarding` is
    /// how to name an interface with a dot.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when this kernel has no such setting (its module is not loaded).
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let value = self.read_to_string(sysctl_path(key))?;
        Ok(value.trim_end().to_owned())
    }

    /// Sets a kernel setting, if it has another value now. Blanks between several values do not
    /// count (`4096\t131072` is `4096 131072`).
    ///
    /// # Errors
    /// As [`Root::sysctl`], and when the kernel refuses the value or /proc/sys is read-only.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<Changed> {
        if self
            .sysctl(key)?
            .split_whitespace()
            .eq(value.split_whitespace())
        {
            return Ok(Changed::No);
        }
        let path = self.path(sysctl_path(key));
        // One write(2), into a file that exists: /proc takes nothing else.
        let write = || {
            let mut file = OpenOptions::new().write(true).truncate(true).open(&path)?;
            file.write_all(format!("{value}\n").as_bytes())
        };
        write().context("setting", &path)?;
        Ok(Changed::Yes)
    }

    /// The file system that holds `path`, which must exist.
    ///
    /// # Errors
    /// When `path` is not there.
    pub fn filesystem(&self, path: impl AsRef<Path>) -> Result<Filesystem> {
        let path = self.path(path);
        let stat = statvfs(&path)
            .map_err(io::Error::from)
            .context("asking for the room at", &path)?;
        Ok(Filesystem {
            available_bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
            available_inodes: (stat.files() != 0).then(|| stat.files_available()),
            read_only: stat.flags().contains(FsFlags::ST_RDONLY),
            noexec: stat.flags().contains(FsFlags::ST_NOEXEC),
        })
    }
}

fn sysctl_path(key: &str) -> PathBuf {
    let dots = key.find('.').unwrap_or(usize::MAX) < key.find('/').unwrap_or(usize::MAX);
    let below = if dots {
        key.replace('.', "/")
    } else {
        key.to_owned()
    };
    Path::new("/proc/sys").join(below.trim_start_matches('/'))
}

fn removed(result: io::Result<()>) -> io::Result<Changed> {
    match result {
        Ok(()) => Ok(Changed::Yes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Changed::No),
        Err(e) => Err(e),
    }
}

/// Makes a new file, with its mode before the first byte, and writes it out.
fn write_new(temp: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode & MODE_MASK)
        .open(temp)?;
    // The umask may have taken bits away; it never adds any.
    file.set_permissions(Permissions::from_mode(mode & MODE_MASK))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether `path` is a regular file with this content and mode.
fn has_content(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(meta.is_file()
            && meta.mode() & MODE_MASK == mode & MODE_MASK
            && meta.len() == bytes.len() as u64
            && fs::read(path)? == bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
