//! GRUB without a disk to install it on: its programs as files, and the two places in
//! them that say where on the disk they lie.
//!
//! grub-install and grub-bios-setup want a block device. What they write into the two
//! images is documented in GRUB's `include/grub/i386/pc/boot.h`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, file};
use crate::layout::{Layout, ROOT, SECTOR};
use crate::programs::{program, run};
use crate::progress::Progress;

/// Where Debian's packages put GRUB.
const GRUB: &str = "/usr/lib/grub";

/// How much of the first sector is a program; the rest is the partition table's.
const BOOT_CODE: usize = 440;
/// In the first sector: the first sector of what it loads.
const KERNEL_SECTOR: usize = 0x5c;
/// In the first sector: a jump that distrusts the BIOS's word for a hard disk.
const DRIVE_CHECK: usize = 0x66;
/// In the first sector of what is loaded: where the rest of it is.
const REST: usize = SECTOR as usize - 12;

const MODULES: [&str; 9] = [
    "configfile",
    "ext2",
    "linux",
    "normal",
    "part_gpt",
    "search",
    "search_fs_uuid",
    "serial",
    "terminal",
];

/// Finds the root file system and goes on with its configuration.
fn early() -> String {
    format!(
        "search --no-floppy --fs-uuid --set=root {ROOT}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    )
}

/// GRUB's menu on the root file system.
pub(crate) fn menu() -> String {
    include_str!("../files/grub.cfg").replace("@ROOT@", ROOT)
}

/// Makes GRUB for UEFI and returns its path.
pub(crate) fn efi(epoch: i64, work: &Path, progress: &Progress) -> Result<PathBuf> {
    let path = work.join("BOOTX64.EFI");
    let more = ["efi_gop", "efi_uga", "fat"];
    image("x86_64-efi", &more, &path, epoch, work, progress)?;
    Ok(path)
}

/// Makes GRUB for a BIOS: the first sector's code, and the content of its partition.
pub(crate) fn bios(
    layout: &Layout,
    epoch: i64,
    work: &Path,
    progress: &Progress,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let path = work.join("core.img");
    image("i386-pc", &["biosdisk"], &path, epoch, work, progress)?;
    let core = fs::read(&path).map_err(file("reading", &path))?;
    let boot = Path::new(GRUB).join("i386-pc/boot.img");
    let boot = fs::read(&boot).map_err(file("reading", &boot))?;
    place(boot, core, layout)
}

fn image(
    platform: &str,
    more: &[&str],
    path: &Path,
    epoch: i64,
    work: &Path,
    progress: &Progress,
) -> Result<()> {
    let folder = Path::new(GRUB).join(platform);
    if !folder.is_dir() {
        return Err(Error::Program {
            programs: folder.display().to_string(),
            packages: "grub-pc-bin grub-efi-amd64-bin".to_owned(),
        });
    }
    let config = work.join("early.cfg");
    fs::write(&config, early()).map_err(file("writing", &config))?;
    let mut mkimage = program("grub-mkimage", epoch);
    mkimage
        .arg(format!("--format={platform}"))
        .arg(format!("--config={}", config.display()))
        .arg(format!("--output={}", path.display()))
        .args(["--prefix=/boot/grub"])
        .args(MODULES.iter().chain(more));
    run(&mut mkimage, progress)?;
    Ok(())
}

/// Tells both parts where they lie.
fn place(mut boot: Vec<u8>, mut core: Vec<u8>, layout: &Layout) -> Result<(Vec<u8>, Vec<u8>)> {
    let strange = |what: &str| Error::Content(format!("GRUB's {what}, which is unknown here"));
    if boot.len() != SECTOR as usize {
        return Err(strange("boot.img is not one sector"));
    }
    let room = usize::try_from(layout.bios.size()).unwrap_or(usize::MAX);
    if core.len() < 2 * SECTOR as usize || core.len() > room {
        return Err(strange("core.img does not fit its partition"));
    }
    boot.truncate(BOOT_CODE);
    boot[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&layout.bios.start.to_le_bytes());
    // Two instructions that do nothing.
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    core[REST..REST + 8].copy_from_slice(&(layout.bios.start + 1).to_le_bytes());
    let length = u16::from_le_bytes([core[REST + 8], core[REST + 9]]);
    let sectors = core.len().div_ceil(SECTOR as usize) - 1;
    if usize::from(length) != sectors {
        return Err(strange("core.img does not say how long it is"));
    }
    Ok((boot, core))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> (Vec<u8>, Vec<u8>) {
        let mut core = vec![7; 4 * 512];
        core[508..510].copy_from_slice(&3_u16.to_le_bytes());
        (vec![1; 512], core)
    }

    #[test]
    fn both_parts_know_where_they_lie() {
        let layout = Layout::new(1024).expect("large enough");
        let (boot, core) = parts();
        let (boot, core) = place(boot, core, &layout).expect("GRUB as it is");
        assert_eq!(boot.len(), 440);
        assert_eq!(boot[0x5c..0x64], 2048_u64.to_le_bytes());
        assert_eq!(boot[0x66..0x68], [0x90, 0x90]);
        assert_eq!(core[500..508], 2049_u64.to_le_bytes());
        assert_eq!(core[512..], vec![7; 3 * 512]);
    }

    #[test]
    fn another_grub_is_not_trusted() {
        let layout = Layout::new(1024).expect("large enough");
        let (boot, mut core) = parts();
        core[508] = 9;
        assert!(place(boot.clone(), core, &layout).is_err());
        assert!(place(boot, vec![0; 2 << 20], &layout).is_err());
        assert!(place(vec![0; 1024], parts().1, &layout).is_err());
    }

    #[test]
    fn the_menu_boots_the_root_that_is_made() {
        assert!(menu().contains(&format!("root=UUID={ROOT} ")));
        assert!(early().contains(ROOT));
    }
}
