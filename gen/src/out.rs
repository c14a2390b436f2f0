//! The one writer of files: all or nothing, and never with a looser mode than
//! asked for, not even for a moment.
//!
//! Files are written in batches: all of a batch are on the disk under temporary
//! names before the first is renamed, so that a file system commits twice a
//! batch and not twice a file.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempPath;

/// The mode of anything with a key in it.
pub const SECRET_MODE: u32 = 0o600;
/// The mode of what everybody may read.
pub const PUBLIC_MODE: u32 = 0o644;
/// How many files are written at once.
const BATCH: usize = 512;

/// One thing to do.
#[derive(Debug)]
pub enum Job<'b> {
    /// Make a file have these bytes and this mode.
    Write {
        /// The file; its folder is made, for its owner alone.
        path: PathBuf,
        /// The bytes.
        bytes: &'b [u8],
        /// The permission bits.
        mode: u32,
    },
    /// Take a file away.
    Remove {
        /// The file.
        path: PathBuf,
    },
}

impl Job<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Write { path, .. } | Self::Remove { path } => path,
        }
    }

    fn removes(&self, file: &Path) -> bool {
        matches!(self, Self::Remove { path } if path == file)
    }
}

/// What a job did.
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

/// Does the jobs in their order, and says what each did.
pub fn apply(jobs: &[Job<'_>]) -> Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(jobs.len());
    for batch in jobs.chunks(BATCH) {
        changes.extend(apply_batch(batch)?);
    }
    Ok(changes)
}

fn apply_batch(jobs: &[Job<'_>]) -> Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(jobs.len());
    let mut staged = Vec::new();
    let mut folders = BTreeSet::new();
    for job in jobs {
        let gone = jobs[..changes.len()].iter().any(|j| j.removes(job.path()));
        let (change, temporary) = stage(job, gone, &mut folders)?;
        if change != Change::Unchanged {
            staged.push((job, temporary));
        }
        changes.push(change);
    }
    for temporary in staged
        .iter()
        .filter_map(|(_, temporary)| temporary.as_ref())
    {
        sync(temporary)?;
    }
    for (job, temporary) in staged {
        match (job, temporary) {
            (Job::Write { path, .. }, Some(temporary)) => temporary
                .persist(path)
                .map_err(|e| e.error)
                .with_context(|| format!("writing {}", path.display()))?,
            (Job::Remove { path } | Job::Write { path, .. }, _) => {
                fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?
            }
        }
    }
    folders.iter().try_for_each(|folder| sync(folder))?;
    Ok(changes)
}

/// Everything of a job but the last step; notes the folders it changes. `gone`
/// is whether an earlier job takes the file away.
fn stage(
    job: &Job<'_>,
    gone: bool,
    folders: &mut BTreeSet<PathBuf>,
) -> Result<(Change, Option<TempPath>)> {
    let (path, bytes, mode) = match job {
        Job::Remove { path } => {
            folders.insert(folder_of(path).to_owned());
            return Ok((Change::Removed, None));
        }
        Job::Write { path, bytes, mode } => (path, *bytes, *mode),
    };
    let change = if gone {
        Change::Created
    } else {
        compare(path, bytes, mode)?
    };
    if change == Change::Unchanged {
        return Ok((change, None));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        private_folder(folder)?;
        folders.insert(folder_of(folder).to_owned());
    }
    folders.insert(folder.to_owned());
    let temporary =
        temporary(folder, bytes, mode).with_context(|| format!("writing {}", path.display()))?;
    Ok((change, Some(temporary)))
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

fn private_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making the folder {}", path.display()))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("syncing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: &[u8], mode: u32) -> Change {
        let path = path.to_owned();
        apply(&[Job::Write { path, bytes, mode }]).unwrap()[0]
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
    fn jobs_are_done_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("a"), "old").unwrap();
        let path = file("a");
        let jobs = [
            Job::Remove { path: path.clone() },
            Job::Write {
                path: file("b"),
                bytes: b"b",
                mode: SECRET_MODE,
            },
            // Even where it is written again as it was.
            Job::Write {
                path,
                bytes: b"old",
                mode: PUBLIC_MODE,
            },
        ];
        let changes = apply(&jobs).unwrap();
        assert_eq!(changes, [Change::Removed, Change::Created, Change::Created]);
        assert_eq!(fs::read(file("a")).unwrap(), b"old");
        assert_eq!(fs::read(file("b")).unwrap(), b"b");
    }

    #[test]
    fn a_batch_that_fails_leaves_every_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "old").unwrap();
        let job = |path: PathBuf| Job::Write {
            path,
            bytes: b"new",
            mode: SECRET_MODE,
        };
        let error = apply(&[job(file.clone()), job(file.join("below"))]).unwrap_err();
        assert!(
            format!("{error:#}").contains("making the folder"),
            "{error:#}"
        );
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
