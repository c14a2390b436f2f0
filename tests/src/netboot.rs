//! A kernel and an initrd that boot a machine wholly from the network: the root
//! file system of all nodes and Debian's kernel for clouds, in RAM.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::run;
use crate::{cache, rootfs};

/// The package that brings kernel and modules.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What nobody reads on a machine, so that it has not to be sent there.
const SPARE: [&str; 7] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/perl",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Packs the folder; names in order, owners root's.
const PACK: &str = "find . -print0 | LC_ALL=C sort -z | \
     cpio --null --create --format=newc --owner=0:0 --quiet | zstd -1 -q -o \"$0\"";

/// The files of a network boot.
#[derive(Debug, Clone)]
pub struct NetBoot {
    /// The folder that they are in.
    pub folder: PathBuf,
}

/// What the files are called.
pub const FILES: [&str; 2] = ["vmlinuz", "initrd.img"];

/// Builds them when these packages have none yet.
pub fn files() -> Result<NetBoot> {
    let (root, kernel) = (rootfs::directory()?, rootfs::unpacked(&[KERNEL])?);
    let parts = [&root, &kernel].map(|folder| folder.display().to_string());
    let parts = parts.iter().map(String::as_bytes);
    let own = [PACK.as_bytes()].into_iter();
    let spare = SPARE.iter().map(|path| path.as_bytes());
    let key = cache::digest(parts.chain(own).chain(spare));
    let folder = cache::once(&format!("netboot-{}", &key[..16]), |target| {
        fs::create_dir_all(target)?;
        build(&root, &kernel, target)
    })?;
    Ok(NetBoot { folder })
}

fn build(root: &Path, kernel: &Path, target: &Path) -> Result<()> {
    let [vmlinuz, initrd] = FILES.map(|file| target.join(file));
    let staged = target.join("root");
    run(Command::new("cp").arg("-a").arg(root).arg(&staged))?;
    for path in SPARE {
        let path = staged.join(path);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    let modules = kernel.join("usr/lib/modules");
    let mut versions = fs::read_dir(&modules).context("looking for the kernel's modules")?;
    let version = versions.next().context("no modules")??.file_name();
    let version = version.to_str().context("an odd version")?.to_owned();
    ensure!(versions.next().is_none(), "several kernels");
    let ours = staged.join("usr/lib/modules");
    fs::create_dir_all(&ours)?;
    run(Command::new("cp")
        .arg("-a")
        .arg(modules.join(&version))
        .arg(&ours))?;
    run(Command::new("chroot")
        .arg(&staged)
        .args(["depmod", &version]))?;
    symlink("sbin/init", staged.join("init")).context("making /init")?;
    let image = kernel.join("boot").join(format!("vmlinuz-{version}"));
    fs::copy(&image, &vmlinuz).with_context(|| format!("copying {}", image.display()))?;
    let mut pack = Command::new("bash");
    pack.args(["-eo", "pipefail", "-c", PACK]).arg(&initrd);
    run(pack.current_dir(&staged))?;
    fs::remove_dir_all(&staged).context("removing what was packed")?;
    Ok(())
}
