//! A node's disk: an overlay on the shared root file system, with plain folders where
//! programs want no overlay beneath them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// containerd and Docker put overlays of their own here, etcd and the kubelet measure what is below
/// them, and /opt holds the store.
const PLAIN: [&str; 5] = [
    "opt",
    "var/lib/containerd",
    "var/lib/docker",
    "var/lib/etcd",
    "var/lib/kubelet",
];
const LOCKS: &str = "/run/systemd/nspawn/locks";
const NONE: Option<&str> = None;

/// A mounted disk. It stays mounted while its node is off, so that a test can look at it
/// and damage it.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// Makes and mounts a fresh disk in `directory`; upper layers come first.
    pub(crate) fn new(directory: &Path, layers: &[PathBuf]) -> Result<Self> {
        let disk = Self {
            directory: directory.to_owned(),
        };
        let [upper, work] = ["upper", "work"].map(|name| directory.join(name));
        let root = disk.root();
        for folder in [&upper, &work, &root] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let layers: Vec<_> = layers.iter().map(|layer| layer.to_string_lossy()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            layers.join(":"),
            upper.display(),
            work.display()
        );
        mount(
            Some("overlay"),
            &root,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .with_context(|| format!("mounting {} ({options})", root.display()))?;
        for path in PLAIN {
            let [source, target] = [directory.join("plain").join(path), root.join(path)];
            for folder in [&source, &target] {
                fs::create_dir_all(folder)
                    .with_context(|| format!("making {}", folder.display()))?;
            }
            mount(Some(&source), &target, NONE, MsFlags::MS_BIND, NONE)
                .with_context(|| format!("mounting {}", target.display()))?;
        }
        Ok(disk)
    }

    /// The node's root folder as the host sees it.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount_below(&self.directory) {
            eprintln!("{error:#}");
        }
    }
}

/// Unmounts all that is mounted at or below a folder, the last mount first.
pub(crate) fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let targets: Vec<_> = targets
        .map(Path::new)
        .filter(|target| target.starts_with(directory))
        .collect();
    for target in targets.into_iter().rev() {
        remove_lock(target)?;
        match umount2(target, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("unmounting {}", target.display()));
            }
        }
    }
    Ok(())
}

/// A killed nspawn leaves the lock that it held on its root.
fn remove_lock(root: &Path) -> Result<()> {
    let Ok(file) = root.metadata() else {
        return Ok(());
    };
    let lock = format!("{LOCKS}/inode-{}:{}", file.dev(), file.ino());
    match fs::remove_file(&lock) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {lock}"))
        }
        _ => Ok(()),
    }
}
