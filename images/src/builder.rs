//! One build, from the check of what is needed to the last rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalogue::{self, Catalogue, Content};
use crate::cli::{Build, Kind};
use crate::error::{Error, Result, file};
use crate::progress::Progress;
use crate::root::Root;
use crate::source::Source;
use crate::{disk, elf, netboot, programs};

/// Where a build works, beside its results.
const WORK: &str = ".unfinished";

/// Builds what is asked for. The images come to their places when all of them are
/// built, the catalogue last.
///
/// # Errors
///
/// Each names its cause and cure; nothing in the folder was changed then, unless it
/// says that a file could not be moved.
pub fn build(build: &Build) -> Result<()> {
    programs::check(&build.kind)?;
    let knode = build.knode();
    elf::check(&knode)?;
    let work = Work::begin(&build.out)?;
    let mut progress = Progress::new();
    progress.step("packages' index");
    let source = Source::find(build, &work.folder, &progress)?;

    progress.step("root file system");
    let root = Root::build(build, &source, &work.folder, &progress)?;
    root.finish(&knode, &work.folder, &progress)?;

    let mut images = Vec::new();
    if build.kind.contains(&Kind::Netboot) {
        images.extend(netboot::build(
            &root,
            source.epoch,
            &work.folder,
            &mut progress,
        )?);
    }
    if build.kind.iter().any(|kind| *kind != Kind::Netboot) {
        let raw = disk::build(
            &root,
            build.disk_size,
            source.epoch,
            &work.folder,
            &mut progress,
        )?;
        if build.kind.contains(&Kind::Qcow2) {
            images.push(disk::qcow2(
                &raw,
                source.epoch,
                &work.folder,
                &mut progress,
            )?);
        }
        if build.kind.contains(&Kind::Raw) {
            images.push(raw);
        }
    }

    progress.step("catalogue");
    let catalogue = Catalogue {
        version: 1,
        suite: build.suite.clone(),
        architecture: build.arch.name().to_owned(),
        snapshot: date(source.epoch)?,
        kernel: root.kernel()?,
        knode: Content::of(&knode)?,
        files: contents(&images)?,
        packages: catalogue::packages(&root.installed(&progress)?)?,
    };
    let written = work.folder.join(catalogue::NAME);
    let text = serde_json::to_string_pretty(&catalogue)
        .map_err(|error| Error::Content(format!("the catalogue: {error}")))?;
    fs::write(&written, text + "\n").map_err(file("writing", &written))?;
    images.push(written);
    for path in &images {
        put(path, &build.out)?;
    }
    progress.done();
    Ok(())
}

/// RFC 3339.
fn date(epoch: i64) -> Result<String> {
    let strange = || Error::Content(format!("{epoch} is no date"));
    let date = OffsetDateTime::from_unix_timestamp(epoch).map_err(|_| strange())?;
    date.format(&Rfc3339).map_err(|_| strange())
}

fn contents(images: &[PathBuf]) -> Result<BTreeMap<String, Content>> {
    let entry = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok((name.into_owned(), Content::of(path)?))
    };
    images.iter().map(entry).collect()
}

/// Moves a finished file to its place, once its bytes are on the disk.
fn put(path: &Path, out: &Path) -> Result<()> {
    let target = out.join(path.file_name().unwrap_or_default());
    File::open(path)
        .and_then(|opened| opened.sync_all())
        .and_then(|()| fs::rename(path, &target))
        .map_err(file("moving what was built to", &target))
}

/// A folder of this build alone, which is gone when it ends. One that was killed leaves
/// it to the next.
struct Work {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Work {
    fn begin(out: &Path) -> Result<Self> {
        fs::create_dir_all(out).map_err(file("making", out))?;
        let out = out.canonicalize().map_err(file("finding", out))?;
        let lock = File::open(&out).map_err(file("opening", &out))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            let doing = format!("waiting for no other build in {}", out.display());
            let source = errno.into();
            Error::File { doing, source }
        })?;
        let folder = out.join(WORK);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(file("removing what a killed build left in", &folder)(error));
            }
            _ => fs::create_dir(&folder).map_err(file("making", &folder))?,
        }
        Ok(Self {
            folder,
            _lock: lock,
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What is left is removed by the next build.
        drop(fs::remove_dir_all(&self.folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_build_left_is_removed_and_two_do_not_meet() {
        let out = tempfile::tempdir().expect("a folder");
        let left = out.path().join(".unfinished/root/etc");
        fs::create_dir_all(&left).expect("made");
        let work = Work::begin(out.path()).expect("alone");
        assert!(!left.exists() && work.folder.is_dir());
        let other = Work::begin(out.path()).err().expect("not alone");
        assert!(
            other.to_string().starts_with("E-IMAGE-FILE: waiting"),
            "{other}"
        );
        drop(work);
        assert!(!out.path().join(".unfinished").exists());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(1_789_199_741).expect("a date"), "2026-09-12T07:55:41Z");
    }
}
