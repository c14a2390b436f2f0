//! Snapshots that are made by themselves: when, how they are called, and which
//! of them go. Pure, but for [`run`].
//!
//! Every member makes its own. A snapshot is a copy of the member's own
//! database and costs the others nothing; so no member has to agree with
//! others on who does it, and the loss of any machine leaves the others'.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::join;
use crate::error::{Code, Error, Result};
use crate::sys::etcd::{Gateway, LOCAL, Status};
use crate::sys::root::Root;
use units::node_config::Snapshots;

/// The newest snapshot, and when the next one is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its file's name; absent: there is none yet.
    pub newest: Option<String>,
    /// How long it is until the next one.
    pub next: Duration,
}

/// What a snapshot of this member is called, by when it is begun.
pub fn name(member: &str) -> String {
    format!("etcd-{member}-{}.db", join::stamp())
}

/// Makes one if it is due, and removes those that are too many.
///
/// # Errors
///
/// [`Code::EtcdSnapshot`], [`Code::DiskFull`], [`Code::Disk`], [`Code::Etcd`].
pub async fn run(
    root: &Root,
    gateway: &Gateway,
    member: &str,
    settings: &Snapshots,
    own: &Status,
) -> Result<State> {
    let folder = Path::new(&settings.folder);
    if !root.exists(folder)? {
        root.create_dir(folder, 0o700)?;
    }
    let interval = Duration::from_secs(settings.interval);
    let mut own_files = files(root, folder, member)?;
    let since = match own_files.last() {
        Some(newest) => {
            let stat = root.stat(folder.join(newest))?;
            let made = stat.map_or(SystemTime::UNIX_EPOCH, |stat| stat.modified);
            // A clock that went back makes it due.
            SystemTime::now().duration_since(made).unwrap_or(interval)
        }
        None => interval,
    };
    let mut next = interval.saturating_sub(since);
    if next.is_zero() {
        let room = root.filesystem(folder)?.available_bytes;
        if room < own.size + own.size / 4 {
            let story = format!(
                "{}: a snapshot of {} MB and nothing but {} MB left",
                settings.folder,
                own.size.div_ceil(1_000_000),
                room / 1_000_000
            );
            return Err(Error::new(Code::DiskFull, story));
        }
        let file = name(member);
        let path = root.path(folder.join(&file));
        let size = gateway.save(LOCAL, &path, |_, _| ()).await?;
        tracing::info!(size, "a snapshot of etcd is in {}", path.display());
        own_files.push(file);
        next = interval;
    }
    for old in too_many(&own_files, settings.keep) {
        root.remove(folder.join(old))?;
    }
    Ok(State {
        newest: own_files.pop(),
        next,
    })
}

/// This member's snapshots, the oldest first.
fn files(root: &Root, folder: &Path, member: &str) -> Result<Vec<String>> {
    let names = root.list(folder)?.into_iter();
    let names = names.filter_map(|entry| entry.name.into_string().ok());
    // By name is by time, and what else is there is not ours.
    Ok(names.filter(|name| is_of(name, member)).collect())
}

fn is_of(name: &str, member: &str) -> bool {
    let time = name.strip_prefix("etcd-");
    let time = time.and_then(|rest| rest.strip_prefix(member)?.strip_prefix('-'));
    let time = time.and_then(|rest| rest.strip_suffix("Z.db"));
    time.is_some_and(|time| {
        let (day, hour) = time.split_once('T').unwrap_or_default();
        let digits = |text: &str, count| {
            text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        digits(day, 8) && digits(hour, 6)
    })
}

fn too_many(oldest_first: &[String], keep: u32) -> &[String] {
    let keep = usize::try_from(keep).unwrap_or(usize::MAX).max(1);
    &oldest_first[..oldest_first.len().saturating_sub(keep)]
}

/// Where a snapshot goes that an operator asks for: `file`, or the folder of
/// the others.
pub fn target(file: Option<&Path>, settings: Option<&Snapshots>, member: &str) -> PathBuf {
    match (file, settings) {
        (Some(file), _) => file.to_owned(),
        (None, Some(settings)) => Path::new(&settings.folder).join(name(member)),
        (None, None) => PathBuf::from(name(member)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_members_snapshots_are_counted() {
        assert!(is_of(&name("etcd-1"), "etcd-1"));
        let one = "etcd-etcd-1-20261121T160000Z.db";
        assert!(is_of(one, "etcd-1"));
        for other in [
            "etcd-etcd-11-20261121T160000Z.db",
            "etcd-etcd-1-before-the-upgrade.db",
            "etcd-etcd-1-20261121T160000Z.db.part",
            "etcd-etcd-1-.db",
            "notes",
        ] {
            assert!(!is_of(other, "etcd-1"), "{other}");
        }
    }

    #[test]
    fn the_newest_are_kept() {
        let files = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(too_many(&files, 2), ["a"]);
        assert_eq!(too_many(&files, 8), [""; 0]);
        // Never the one that was just made.
        assert_eq!(too_many(&files, 0), ["a", "b"]);
    }

    #[test]
    fn they_are_listed_by_time_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.create_dir("/s", 0o700).unwrap();
        for name in [
            "etcd-m-20261121T160000Z.db",
            "etcd-m-20261120T235959Z.db",
            "mine.db",
        ] {
            root.write_atomic(format!("/s/{name}"), b"x", 0o600)
                .unwrap();
        }
        assert_eq!(
            files(&root, Path::new("/s"), "m").unwrap(),
            ["etcd-m-20261120T235959Z.db", "etcd-m-20261121T160000Z.db"]
        );
    }
}
