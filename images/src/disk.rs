//! The disk image, made of files alone: no loop device, no mount, nothing booted.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, file};
use crate::grub;
use crate::layout::{ESP_SERIAL, Layout, ROOT, SECTOR};
use crate::programs::{program, run, run_with};
use crate::progress::Progress;
use crate::root::Root;

/// What is copied at once; only what is not all zeros is written.
const BLOCK: usize = 64 * 1024;

/// Makes disk.raw in `work`, and returns its path.
pub(crate) fn build(
    root: &Root,
    mib: u64,
    epoch: i64,
    work: &Path,
    progress: &mut Progress,
) -> Result<PathBuf> {
    let layout = Layout::new(mib).ok_or_else(|| Error::Space {
        doing: "laying out the disk".to_owned(),
        said: format!("{mib} MiB hold no system"),
    })?;
    progress.step("root file system for a disk");
    let ext4 = root_file_system(root, &layout, epoch, work, progress)?;
    progress.step("disk");
    let (boot, core) = grub::bios(&layout, epoch, work, progress)?;
    let esp = esp(&layout, epoch, work, progress)?;

    let raw = work.join("disk.raw");
    let failed = |doing: &'static str| file(doing, &raw);
    let mut disk = File::create(&raw).map_err(failed("making"))?;
    disk.set_len(layout.sectors * SECTOR)
        .map_err(failed("making"))?;
    let script = work.join("sfdisk");
    fs::write(&script, layout.script()).map_err(file("writing", &script))?;
    let mut sfdisk = program("sfdisk", epoch);
    sfdisk
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(&raw);
    run_with(&mut sfdisk, Some(&script), progress)?;

    disk.write_all(&boot).map_err(failed("writing"))?;
    disk.seek(SeekFrom::Start(layout.bios.offset()))
        .and_then(|_| disk.write_all(&core))
        .map_err(failed("writing"))?;
    copy_sparse(&esp, &mut disk, layout.esp.offset())?;
    copy_sparse(&ext4, &mut disk, layout.root.offset())?;
    for part in [&esp, &ext4] {
        fs::remove_file(part).map_err(file("removing", part))?;
    }
    Ok(raw)
}

/// The same disk for QEMU, compressed. Its clusters are written in their order.
pub(crate) fn qcow2(
    raw: &Path,
    epoch: i64,
    work: &Path,
    progress: &mut Progress,
) -> Result<PathBuf> {
    progress.step("qcow2");
    let path = work.join("disk.qcow2");
    let mut convert = program("qemu-img", epoch);
    convert
        .args(["convert", "-f", "raw", "-O", "qcow2", "-c", "-m", "1"])
        .args([raw, &path]);
    run(&mut convert, progress)?;
    Ok(path)
}

/// ext4 with the root's files and GRUB's menu.
fn root_file_system(
    root: &Root,
    layout: &Layout,
    epoch: i64,
    work: &Path,
    progress: &Progress,
) -> Result<PathBuf> {
    let menu = work.join("grub.cfg");
    fs::write(&menu, grub::menu()).map_err(file("writing", &menu))?;
    let folder = root.folder().join("boot/grub");
    let mut install = program("install", epoch);
    install
        .args(["-D", "-m", "0644"])
        .arg(&menu)
        .arg(folder.join("grub.cfg"));
    run(&mut install, progress)?;
    let mut touch = program("touch", epoch);
    touch.arg(format!("--date=@{epoch}"));
    touch.args([folder.join("grub.cfg"), folder.clone()]);
    run(touch.arg(root.folder().join("boot")), progress)?;

    let ext4 = work.join("root.ext4");
    let mut mke2fs = program("mke2fs", epoch);
    mke2fs
        .args(["-q", "-t", "ext4", "-L", "root", "-U", ROOT, "-m", "1"])
        // GRUB 2.06 does not know these two; the table is whole from the beginning.
        .args(["-O", "^metadata_csum_seed,^orphan_file"])
        .arg(format!(
            "-Ehash_seed={ROOT},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
        ))
        .arg("-d")
        .args([root.folder(), ext4.as_path()])
        .arg(format!("{}k", layout.root.size() / 1024));
    run(&mut mke2fs, progress)?;

    // The time of a change comes from the build's own files, and nobody can set it there.
    let dates = work.join("dates");
    let used = inodes(&ext4, epoch, progress)?;
    fs::write(&dates, dating(used, epoch)).map_err(file("writing", &dates))?;
    let mut debugfs = program("debugfs", epoch);
    debugfs.arg("-w").arg("-f").args([&dates, &ext4]);
    run(&mut debugfs, progress)?;
    Ok(ext4)
}

/// The number of the last inode in use: mke2fs takes one after the other.
fn inodes(ext4: &Path, epoch: i64, progress: &Progress) -> Result<u64> {
    let mut dumpe2fs = program("dumpe2fs", epoch);
    let header = run(dumpe2fs.arg("-h").arg(ext4), progress)?;
    let number = |key: &str| -> Option<u64> {
        let line = header.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse().ok()
    };
    number("Inode count:")
        .zip(number("Free inodes:"))
        .and_then(|(all, free)| all.checked_sub(free))
        .ok_or_else(|| Error::Content("dumpe2fs tells no number of inodes".to_owned()))
}

/// What gives inodes one date, as debugfs reads it: the root and all after the reserved.
fn dating(used: u64, epoch: i64) -> String {
    let inodes = [2].into_iter().chain(11..=used);
    let mut script = String::new();
    for inode in inodes {
        for field in ["atime", "ctime"] {
            script.push_str(&format!("sif <{inode}> {field} @{epoch}\n"));
            script.push_str(&format!("sif <{inode}> {field}_extra 0\n"));
        }
    }
    script
}

/// FAT with GRUB where every UEFI looks for it.
fn esp(layout: &Layout, epoch: i64, work: &Path, progress: &Progress) -> Result<PathBuf> {
    let grub = grub::efi(epoch, work, progress)?;
    let esp = work.join("esp.fat");
    let mut mkfs = program("mkfs.vfat", epoch);
    mkfs.args([
        "-F",
        "32",
        "-s",
        "1",
        "-n",
        "ESP",
        "-i",
        ESP_SERIAL,
        "--invariant",
        "-C",
    ])
    .arg(&esp)
    .arg((layout.esp.size() / 1024).to_string());
    run(&mut mkfs, progress)?;
    for folder in ["::EFI", "::EFI/BOOT"] {
        run(
            program("mmd", epoch).arg("-i").arg(&esp).arg(folder),
            progress,
        )?;
    }
    let mut copy = program("mcopy", epoch);
    copy.arg("-i")
        .args([&esp, &grub])
        .arg("::EFI/BOOT/BOOTX64.EFI");
    run(&mut copy, progress)?;
    Ok(esp)
}

/// Copies a file to a place of the disk, holes and zeros left as holes.
fn copy_sparse(from: &Path, disk: &mut File, offset: u64) -> Result<()> {
    let failed = |doing: &'static str| file(doing, from);
    let mut source = OpenOptions::new()
        .read(true)
        .open(from)
        .map_err(failed("reading"))?;
    let (mut buffer, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = offset;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("reading")(error)),
        };
        if buffer[..read] != zeros[..read] {
            disk.seek(SeekFrom::Start(at))
                .and_then(|_| disk.write_all(&buffer[..read]))
                .map_err(failed("writing to the disk"))?;
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_copy_has_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let from = folder.path().join("from");
        let mut bytes = vec![0; 3 * BLOCK + 5];
        bytes[BLOCK + 1] = 1;
        bytes[3 * BLOCK + 4] = 2;
        fs::write(&from, &bytes).expect("written");
        let to = folder.path().join("to");
        let mut disk = File::create(&to).expect("made");
        disk.set_len(4 * BLOCK as u64).expect("sized");
        copy_sparse(&from, &mut disk, 512).expect("copied");
        let all = fs::read(&to).expect("read");
        assert_eq!(all[512..512 + bytes.len()], bytes);
        assert!(all[..512].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_inode_in_use_is_dated() {
        let script = dating(12, 5);
        let lines: Vec<_> = script.lines().collect();
        assert_eq!(lines[0], "sif <2> atime @5");
        assert_eq!(lines.len(), 3 * 4);
        assert_eq!(lines[11], "sif <12> ctime_extra 0");
    }
}
