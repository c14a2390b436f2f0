//! The temporary name behind every atomic change: made, renamed, and swept when left over.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Ends the name of every temporary file, so that leftovers of a killed process are recognised.
const TEMP_SUFFIX: &str = ".knode-tmp";

/// A temporary file this old belongs to a process that was killed.
const TEMP_MAX_AGE: Duration = Duration::from_secs(600);

/// Lets `make` make something under a temporary name, then renames it to `path`.
pub(super) fn replace(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let temp = prepare(path, make)?;
    commit(&temp, path)?;
    settle(path)
}

/// Lets `make` make something under a temporary name beside `path`.
pub(super) fn prepare(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    // The name is new every time, so two writers never write into one file; one left over by a
    // killed process of the same number is stepped over.
    loop {
        let mut temp_name = temp_prefix(name);
        temp_name.push(format!(
            "{}.{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        ));
        temp_name.push(TEMP_SUFFIX);
        let temp = folder.join(temp_name);
        match make(&temp) {
            Ok(()) => return Ok(temp),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(discard(&temp, e)),
        }
    }
}

/// Renames what was prepared to `path`.
pub(super) fn commit(temp: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temp, path).map_err(|e| discard(temp, e))
}

/// Makes the rename last; without this it can be lost with the power.
pub(super) fn settle(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    File::open(folder)?.sync_all()?;
    sweep(folder, name);
    Ok(())
}

/// Removes what a failed write left; the failure itself is what gets reported.
pub(super) fn discard(temp: &Path, error: io::Error) -> io::Error {
    match fs::remove_file(temp) {
        Ok(()) => error,
        Err(e) if e.kind() == io::ErrorKind::NotFound => error,
        Err(e) => {
            tracing::warn!(path = %temp.display(), error = %e, "a temporary file could not be removed");
            error
        }
    }
}

fn temp_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

/// Removes old temporary files of `name`, left by processes that were killed. Done after a
/// successful write, where a failure costs nothing but room: it is tried again next time.
fn sweep(folder: &Path, name: &OsStr) {
    let prefix = temp_prefix(name);
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let bytes = file_name.as_encoded_bytes();
        if !bytes.starts_with(prefix.as_encoded_bytes()) || !bytes.ends_with(TEMP_SUFFIX.as_bytes())
        {
            continue;
        }
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .map(|t| t.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > TEMP_MAX_AGE)
            && let Err(e) = fs::remove_file(entry.path())
        {
            tracing::debug!(path = %entry.path().display(), error = %e, "an old temporary file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn leftovers_of_a_killed_writer_are_swept_and_others_files_are_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let make = |name: &str, age: u64| {
            let file = File::create(folder.path().join(name)).expect("a file");
            let then = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(then).expect("a time in the past");
        };
        make(".a.conf.77.0.knode-tmp", 3600);
        make(".a.conf.78.0.knode-tmp", 5);
        make(".b.conf.77.0.knode-tmp", 3600);
        make(".a.conf.swp", 3600);
        replace(&folder.path().join("a.conf"), |temp| fs::write(temp, "new")).expect("written");
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                ".a.conf.78.0.knode-tmp",
                ".a.conf.swp",
                ".b.conf.77.0.knode-tmp",
                "a.conf"
            ]
        );
    }

    #[test]
    fn failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.conf");
        fs::write(&path, "old").expect("written");
        let error = replace(&path, |temp| {
            fs::write(temp, "half of it")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
