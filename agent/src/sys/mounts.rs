//! Mounted file systems, as this process sees them.
//! Source: proc_pid_mountinfo(5), umount(2).

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::Changed;
use super::root::Root;
use crate::error::{Code, Context as _, Result};

/// The kernel's list.
const LIST: &str = "/proc/self/mountinfo";

/// The places below `folder` where something is mounted, the deepest first;
/// `folder` itself is not among them.
///
/// # Errors
///
/// [`Code::Disk`]: the kernel's list cannot be read.
pub fn below(root: &Root, folder: &str) -> Result<Vec<String>> {
    Ok(select(&root.read_to_string(LIST)?, folder))
}

/// Whether something is mounted at a place.
///
/// # Errors
///
/// [`Code::Disk`]: the kernel's list cannot be read.
pub fn is_at(root: &Root, place: &str) -> Result<bool> {
    let list = root.read_to_string(LIST)?;
    let mut places = list.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(places.any(|found| unescape(found) == place))
}

fn select(list: &str, folder: &str) -> Vec<String> {
    let places = list.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found: Vec<String> = places
        .map(unescape)
        .filter(|place| {
            let below = place.strip_prefix(folder);
            below.is_some_and(|below| below.starts_with('/'))
        })
        .collect();
    // What was mounted over another goes before it.
    found.reverse();
    found.sort_by_key(|place| std::cmp::Reverse(place.matches('/').count()));
    found
}

/// The kernel writes blanks and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let value =
            octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Nothing is mounted there. What is still in use vanishes from the tree at
/// once, and is unmounted when it is no longer.
///
/// # Errors
///
/// [`Code::Disk`]: the kernel refuses.
pub fn unmount(root: &Root, place: &str) -> Result<Changed> {
    let path = root.path(place);
    let flags = MntFlags::UMOUNT_NOFOLLOW;
    let outcome = match umount2(&path, flags) {
        Err(Errno::EBUSY) => umount2(&path, flags | MntFlags::MNT_DETACH),
        other => other,
    };
    match outcome {
        Ok(()) => Ok(Changed::Yes),
        // Not mounted, or not there: somebody was quicker.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(Changed::No),
        Err(error) => Err(error).context(Code::Disk, || format!("unmounting {place}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_below_a_folder_are_found_the_deepest_first() {
        let list = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            2 1 0:1 / /var/lib/kubelet rw shared:1 - xfs /dev/sdb rw\n\
            3 2 0:2 / /var/lib/kubelet/pods/a rw - tmpfs tmpfs rw\n\
            4 3 0:3 / /var/lib/kubelet/pods/a/with\\040blank/x rw - tmpfs tmpfs rw\n\
            5 1 0:4 / /var/lib/kubelet-mine/x rw - tmpfs tmpfs rw\n";
        assert_eq!(
            select(list, "/var/lib/kubelet"),
            [
                "/var/lib/kubelet/pods/a/with blank/x",
                "/var/lib/kubelet/pods/a"
            ]
        );
        assert_eq!(unescape("a\\b\\04"), "a\\b\\04");
    }

    #[test]
    fn what_is_not_mounted_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(unmount(&root, "/nowhere").unwrap(), Changed::No);
    }
}
