//! `etcd`: what is done for its members besides their configuration.

use std::time::Duration;

use units::node_config::Snapshots;

use super::keys::number;
use super::pools;
use crate::yaml::{Node, Reader};

/// The shortest and the longest time between two snapshots.
const INTERVALS: [Duration; 2] = [Duration::from_mins(1), Duration::from_hours(30 * 24)];
/// The most that are kept.
const MOST: u32 = 1000;
/// Where knode may write. Source: knode.service.
const WRITABLE: [&str; 2] = ["/var/lib/", "/opt/"];

/// Two days of snapshots, where nothing is said of them: enough to notice what
/// went wrong, and to have a state from before it.
pub fn every_six_hours() -> Snapshots {
    Snapshots {
        interval: Duration::from_hours(6).as_secs(),
        keep: 8,
        folder: "/var/lib/etcd-snapshots".to_owned(),
    }
}

/// Reads `etcd.snapshots`; none where none are kept.
pub fn snapshots(r: &mut Reader, node: &Node, path: &str) -> Option<Snapshots> {
    let mut snapshots = every_six_hours();
    let mut o = r.object(node, path)?;
    let interval = o.read(r, "interval", |r, n, p| r.parse_with(n, p, interval));
    if let Some(interval) = interval {
        snapshots.interval = interval.value.as_secs();
    }
    if let Some(keep) = o.read(r, "keep", |r, n, p| number(r, n, p, 0..=MOST)) {
        snapshots.keep = keep.value;
    }
    let folder = o.read(r, "folder", |r, n, p| r.parse_with(n, p, folder));
    if let Some(folder) = folder {
        snapshots.folder = folder.value;
    }
    o.finish(r);
    (snapshots.keep > 0).then_some(snapshots)
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = pools::duration(text).ok_or_else(|| {
        format!("{text:?} is not a time: write a number with m, h or d, as in 6h")
    })?;
    if (INTERVALS[0]..=INTERVALS[1]).contains(&time) {
        return Ok(time);
    }
    Err(format!("{text} is not from 1m to 30d"))
}

fn folder(text: &str) -> Result<String, String> {
    let plain = text
        .split('/')
        .skip(1)
        .all(|part| !matches!(part, "" | "." | ".."));
    let below = WRITABLE.iter().any(|folder| text.starts_with(folder));
    if below && plain && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a folder below /var/lib or /opt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_folders_that_cannot_be_are_refused() {
        assert_eq!(interval("90m"), Ok(Duration::from_mins(90)));
        for bad in ["", "6", "0m", "31d", "6h30m"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
        assert!(folder("/var/lib/backup/etcd").is_ok());
        for bad in [
            "/",
            "/root/a",
            "/var/lib/",
            "/var/lib/../a",
            "/var/library/a",
            "backup",
        ] {
            assert!(folder(bad).is_err(), "{bad}");
        }
    }
}
