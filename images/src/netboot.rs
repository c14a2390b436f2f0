//! The netboot image: a kernel, and an initrd that is the whole machine.
//!
//! The root file system is a squashfs inside the initrd, under an overlay in RAM. Unpacked
//! as an initramfs it would take three times the memory, and containers could not start:
//! runc's pivot_root(2) does not work from an initramfs.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lzma_rust2::XzReader;

use crate::error::{Error, Result, file};
use crate::modules;
use crate::programs::{program, run, run_with};
use crate::progress::Progress;
use crate::root::Root;

/// The first program that runs.
const INIT: &str = include_str!("../files/init");

/// What the first program needs of the kernel.
const MODULES: [&str; 3] = ["squashfs", "loop", "overlay"];

/// Where the first program mounts what it works with.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "squash", "ram", "new"];

/// Only a disk has what these are for; it is loaded by what the netboot image was.
const NOT_IN_RAM: [&str; 3] = ["boot", "initrd.img", "vmlinuz"];

/// Makes vmlinuz and initrd.img in `work`, and returns their paths.
pub(crate) fn build(
    root: &Root,
    epoch: i64,
    work: &Path,
    progress: &mut Progress,
) -> Result<[PathBuf; 2]> {
    let version = root.kernel()?;
    let vmlinuz = work.join("vmlinuz");
    let kernel = root.folder().join(format!("boot/vmlinuz-{version}"));
    fs::copy(&kernel, &vmlinuz).map_err(file("copying", &kernel))?;

    let tree = work.join("initrd");
    for folder in MOUNT_POINTS.iter().chain(&["bin", "modules"]) {
        let folder = tree.join(folder);
        fs::create_dir_all(&folder).map_err(file("making", &folder))?;
    }
    let busybox = root.folder().join("usr/bin/busybox");
    fs::copy(&busybox, tree.join("bin/busybox")).map_err(file("copying", &busybox))?;
    let init = tree.join("init");
    fs::write(&init, INIT).map_err(file("writing", &init))?;
    fs::set_permissions(&init, Permissions::from_mode(0o755)).map_err(file("writing", &init))?;
    let folder = root.folder().join("usr/lib/modules").join(&version);
    unpack_modules(&folder, &tree.join("modules"))?;

    progress.step("root file system for RAM");
    let squashfs = tree.join("root.squashfs");
    let time = epoch.to_string();
    let mut mksquashfs = program("mksquashfs", epoch);
    // These options and the variable that says the same exclude each other.
    mksquashfs.env_remove("SOURCE_DATE_EPOCH");
    mksquashfs
        .args([root.folder(), squashfs.as_path()])
        .args(["-noappend", "-no-progress", "-no-exports", "-quiet"])
        .args(["-all-time", &time, "-mkfs-time", &time])
        .args(["-comp", "zstd", "-Xcompression-level", "9", "-b", "256K"])
        .arg("-e")
        .args(NOT_IN_RAM);
    run(&mut mksquashfs, progress)?;

    progress.step("initrd");
    let initrd = work.join("initrd.img");
    pack(&tree, &initrd, epoch, progress)?;
    fs::remove_dir_all(&tree).map_err(file("removing", &tree))?;
    Ok([vmlinuz, initrd])
}

/// Modules as the first program loads them: by the order of their names, not compressed.
fn unpack_modules(folder: &Path, target: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(file("reading", &path))
    };
    let order = modules::order(&read("modules.dep")?, &read("modules.builtin")?, &MODULES)?;
    for (number, path) in order.iter().enumerate() {
        let source = folder.join(path);
        let name = path.rsplit('/').next().unwrap_or(path);
        let name = name.strip_suffix(".xz").unwrap_or(name);
        let target = target.join(format!("{number}-{name}"));
        let opened = File::open(&source).map_err(file("reading", &source))?;
        let mut opened = BufReader::new(opened);
        let mut module = File::create(&target).map_err(file("making", &target))?;
        if path.ends_with(".xz") {
            io::copy(&mut XzReader::new(opened, true), &mut module)
        } else {
            io::copy(&mut opened, &mut module)
        }
        .map_err(file("unpacking", &source))?;
    }
    Ok(())
}

/// A tree as a cpio archive for the kernel, in the order of names. It is not compressed:
/// nearly all of it is.
fn pack(tree: &Path, initrd: &Path, epoch: i64, progress: &Progress) -> Result<()> {
    let mut names = Vec::new();
    list(tree, Path::new("."), &mut names)?;
    let time = u64::try_from(epoch).map_err(|_| Error::Content("a date before 1970".into()))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time);
    for name in &names {
        let path = tree.join(name);
        File::open(&path)
            .and_then(|opened| opened.set_times(FileTimes::new().set_modified(time)))
            .map_err(file("dating", &path))?;
    }
    let list = initrd.with_extension("list");
    let text: Vec<String> = names.iter().map(|it| it.display().to_string()).collect();
    fs::write(&list, text.join("\n") + "\n").map_err(file("writing", &list))?;
    let mut cpio = program("cpio", epoch);
    cpio.current_dir(tree)
        .args([
            "--create",
            "--format=newc",
            "--reproducible",
            "--owner=+0:+0",
            "--quiet",
        ])
        .arg("--file")
        .arg(initrd);
    run_with(&mut cpio, Some(&list), progress)?;
    fs::remove_file(&list).map_err(file("removing", &list))
}

/// All names below a folder, each after its parent, sorted.
fn list(tree: &Path, folder: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    names.push(folder.to_owned());
    let path = tree.join(folder);
    let mut entries = Vec::new();
    for entry in fs::read_dir(&path).map_err(file("reading", &path))? {
        entries.push(entry.map_err(file("reading", &path))?.file_name());
    }
    entries.sort();
    for entry in entries {
        let name = folder.join(entry);
        if tree.join(&name).is_dir() {
            list(tree, &name, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}
