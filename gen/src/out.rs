//! The one writer of files: all or nothing, and never with a looser mode than
//! asked for, not even for a moment.
//!
//! What is to be written is gathered in a [`Stage`]. When it is committed, all of
//! it is on the disk under temporary names before the first file is renamed, so
//! that a file system commits twice and not twice a file. A large stage goes to
//! its temporary files while it is gathered: thousands of documents are never in
//! memory at once.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempPath;
use zeroize::Zeroizing;

/// The mode of anything with a key in it.
pub const SECRET_MODE: u32 = 0o600;
/// The mode of what its owner alone may run.
pub const SCRIPT_MODE: u32 = 0o700;
/// The mode of what everybody may read.
pub const PUBLIC_MODE: u32 = 0o644;
/// So many bytes are gathered before they go to temporary files.
const GATHERED: usize = 4 << 20;
/// More files than this are synced with their whole file system at once.
const ONE_BY_ONE: usize = 32;

/// What a file became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There was no such file.
    Created,
    /// The file had other bytes, or another mode.
    Updated,
    /// The file was as it should be and was not touched.
    Unchanged,
    /// The file is gone.
    Removed,
}

/// Files to be written and taken away, in their order. Nothing of it is to be seen
/// before [`Stage::commit`], and nothing is left of one that goes without it.
#[derive(Debug, Default)]
pub struct Stage {
    gathered: Vec<Wanted>,
    bytes: usize,
    staged: Vec<Staged>,
    removed: BTreeSet<PathBuf>,
    /// Folders in which something changes.
    folders: BTreeSet<PathBuf>,
    /// Folders that were made for it, the outer ones first.
    made: Vec<PathBuf>,
    committed: bool,
}

#[derive(Debug)]
enum Wanted {
    Write {
        path: PathBuf,
        bytes: Zeroizing<Vec<u8>>,
        mode: u32,
    },
    Remove(PathBuf),
}

#[derive(Debug)]
struct Staged {
    path: PathBuf,
    change: Change,
    temporary: Option<TempPath>,
}

impl Stage {
    /// Makes a file have these bytes and this mode; its folder is made where
    /// there is none, for its owner alone.
    pub fn write(
        &mut self,
        path: impl Into<PathBuf>,
        bytes: impl Into<Vec<u8>>,
        mode: u32,
    ) -> Result<()> {
        let (path, bytes) = (path.into(), Zeroizing::new(bytes.into()));
        self.bytes += bytes.len();
        self.gathered.push(Wanted::Write { path, bytes, mode });
        if self.bytes > GATHERED {
            self.stage()?;
        }
        Ok(())
    }

    /// Takes a file away, which has to be there.
    pub fn remove(&mut self, path: impl Into<PathBuf>) {
        self.gathered.push(Wanted::Remove(path.into()));
    }

    /// Takes over what another stage gathered, of other files.
    pub fn append(&mut self, mut other: Self) -> Result<()> {
        self.bytes += other.bytes;
        self.gathered.append(&mut other.gathered);
        self.staged.append(&mut other.staged);
        self.removed.append(&mut other.removed);
        self.folders.append(&mut other.folders);
        self.made.append(&mut other.made);
        if self.bytes > GATHERED {
            self.stage()?;
        }
        Ok(())
    }

    /// Does all of it in its order, and says what each did.
    pub fn commit(mut self) -> Result<Vec<(PathBuf, Change)>> {
        self.stage()?;
        let temporaries = self.staged.iter().filter_map(|s| s.temporary.as_deref());
        sync_all(temporaries)?;
        self.committed = true;
        let mut changes = Vec::with_capacity(self.staged.len());
        for staged in std::mem::take(&mut self.staged) {
            let path = staged.path;
            match (staged.change, staged.temporary) {
                (Change::Unchanged, _) => {}
                (_, Some(temporary)) => temporary
                    .persist(&path)
                    .map_err(|e| e.error)
                    .with_context(|| format!("writing {}", path.display()))?,
                (_, None) => fs::remove_file(&path)
                    .with_context(|| format!("removing {}", path.display()))?,
            }
            changes.push((path, staged.change));
        }
        sync_all(self.folders.iter().map(PathBuf::as_path))?;
        Ok(changes)
    }

    /// Brings what was gathered to the disk, under temporary names.
    fn stage(&mut self) -> Result<()> {
        self.bytes = 0;
        for wanted in std::mem::take(&mut self.gathered) {
            let staged = match wanted {
                Wanted::Remove(path) => {
                    self.folders.insert(folder_of(&path).to_owned());
                    self.removed.insert(path.clone());
                    Staged {
                        path,
                        change: Change::Removed,
                        temporary: None,
                    }
                }
                Wanted::Write { path, bytes, mode } => self.stage_one(path, &bytes, mode)?,
            };
            self.staged.push(staged);
        }
        Ok(())
    }

    fn stage_one(&mut self, path: PathBuf, bytes: &[u8], mode: u32) -> Result<Staged> {
        let change = if self.removed.contains(&path) {
            Change::Created
        } else {
            compare(&path, bytes, mode)?
        };
        if change == Change::Unchanged {
            return Ok(Staged {
                path,
                change,
                temporary: None,
            });
        }
        let folder = folder_of(&path);
        if !folder.is_dir() {
            self.make_folder(folder)?;
        }
        self.folders.insert(folder.to_owned());
        let temporary = temporary(folder, bytes, mode)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(Staged {
            path,
            change,
            temporary: Some(temporary),
        })
    }

    fn make_folder(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<PathBuf> = folder
            .ancestors()
            .take_while(|f| !f.as_os_str().is_empty() && !f.is_dir())
            .map(Path::to_owned)
            .collect();
        for folder in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => {}
                // Another stage of this program was quicker.
                Err(_) if folder.is_dir() => continue,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("making the folder {}", folder.display()));
                }
            }
            self.folders.insert(folder_of(&folder).to_owned());
            self.made.push(folder);
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        self.staged.clear();
        for folder in self.made.iter().rev() {
            // One that others use by now stays.
            fs::remove_dir(folder).ok();
        }
    }
}

fn compare(path: &Path, bytes: &[u8], mode: u32) -> Result<Change> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Change::Created),
        // A file where the folder should be is told when the folder is made.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Change::Created),
        Err(error) => {
            return Err(error).with_context(|| format!("looking at {}", path.display()));
        }
    };
    let same = meta.len() == bytes.len() as u64
        && meta.permissions().mode() & 0o7777 == mode
        && fs::read(path).with_context(|| format!("reading {}", path.display()))? == bytes;
    Ok(if same {
        Change::Unchanged
    } else {
        Change::Updated
    })
}

fn temporary(folder: &Path, bytes: &[u8], mode: u32) -> io::Result<TempPath> {
    // Created with O_EXCL and this mode; a umask can only make it stricter.
    let mut temporary = tempfile::Builder::new()
        .prefix(".kgen-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary
        .as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    Ok(temporary.into_temp_path())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Everything is on the disk: file by file, or by file systems where there are
/// many, which is what they are quickest at.
fn sync_all<'p>(paths: impl Iterator<Item = &'p Path> + Clone) -> Result<()> {
    if paths.clone().count() <= ONE_BY_ONE {
        return paths.into_iter().try_for_each(|path| {
            open(path)?
                .sync_all()
                .with_context(|| format!("syncing {}", path.display()))
        });
    }
    let mut synced = BTreeSet::new();
    for path in paths {
        let meta = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
        if synced.insert(meta.dev()) {
            nix::unistd::syncfs(open(path)?)
                .with_context(|| format!("syncing the file system of {}", path.display()))?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: &[u8], mode: u32) -> Change {
        let mut stage = Stage::default();
        stage.write(path, bytes, mode).unwrap();
        stage.commit().unwrap()[0].1
    }

    #[test]
    fn writes_once_and_reports_what_changed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let file = folder.join("key");
        assert_eq!(write(&file, b"x", SECRET_MODE), Change::Created);
        for folder in [&folder, &dir.path().join("a")] {
            let mode = fs::metadata(folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        let made = fs::metadata(&file).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&file, b"x", SECRET_MODE), Change::Unchanged);
        assert_eq!(
            fs::metadata(&file).unwrap().modified().unwrap(),
            made.modified().unwrap()
        );
        assert_eq!(write(&file, b"y", SECRET_MODE), Change::Updated);
        assert_eq!(write(&file, b"y", PUBLIC_MODE), Change::Updated);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn everything_is_done_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("a"), "old").unwrap();
        let mut stage = Stage::default();
        stage.remove(file("a"));
        stage.write(file("b"), *b"b", SECRET_MODE).unwrap();
        // Even where it is written again as it was.
        stage.write(file("a"), *b"old", PUBLIC_MODE).unwrap();
        let changes = stage.commit().unwrap();
        let changes: Vec<Change> = changes.into_iter().map(|(_, change)| change).collect();
        assert_eq!(changes, [Change::Removed, Change::Created, Change::Created]);
        assert_eq!(fs::read(file("a")).unwrap(), b"old");
        assert_eq!(fs::read(file("b")).unwrap(), b"b");
    }

    #[test]
    fn what_fails_leaves_every_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "old").unwrap();
        let mut stage = Stage::default();
        stage.write(&file, *b"new", SECRET_MODE).unwrap();
        stage
            .write(dir.path().join("f/g/h"), *b"new", SECRET_MODE)
            .unwrap();
        stage
            .write(file.join("below"), *b"new", SECRET_MODE)
            .unwrap();
        let error = stage.commit().unwrap_err();
        assert!(
            format!("{error:#}").contains("making the folder"),
            "{error:#}"
        );
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_large_stage_is_on_the_disk_before_it_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = (0..100)
            .map(|i| dir.path().join(format!("d/{i}")))
            .collect();
        let gather = || {
            let mut stage = Stage::default();
            for name in &names {
                stage
                    .write(name, vec![7; GATHERED / 64], SECRET_MODE)
                    .unwrap();
            }
            stage
        };
        let stage = gather();
        assert!(stage.bytes <= GATHERED);
        let there = fs::read_dir(dir.path().join("d")).unwrap();
        for entry in there {
            let entry = entry.unwrap();
            assert!(entry.file_name().to_str().unwrap().starts_with(".kgen-"));
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        drop(stage);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let changes = gather().commit().unwrap();
        assert!(changes.iter().all(|(_, change)| *change == Change::Created));
        assert!(
            names
                .iter()
                .all(|name| fs::metadata(name).unwrap().len() > 0)
        );
        let again = gather().commit().unwrap();
        assert!(again.iter().all(|(_, change)| *change == Change::Unchanged));
    }
}
