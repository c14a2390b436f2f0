//! Where what lies on the disk, and under which names: fixed, so that two builds are
//! the same.

/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 512;

/// Sectors of a MiB.
const MIB: u64 = 1024 * 1024 / SECTOR;

/// The disk's own name.
const DISK: &str = "6B6E6F64-6500-4000-8000-000000000000";

/// The root file system's UUID, by which GRUB and the kernel find it.
pub(crate) const ROOT: &str = "6b6e6f64-6500-4000-8000-0000000000f5";

/// The serial number of the EFI system partition.
pub(crate) const ESP_SERIAL: &str = "6b6e6f64";

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The first sector.
    pub start: u64,
    /// How many sectors.
    pub sectors: u64,
    kind: &'static str,
    uuid: &'static str,
    name: &'static str,
}

impl Partition {
    /// Where it begins, in bytes.
    pub(crate) const fn offset(&self) -> u64 {
        self.start * SECTOR
    }

    /// How many bytes it has.
    pub(crate) const fn size(&self) -> u64 {
        self.sectors * SECTOR
    }
}

/// A disk: what a BIOS loads, what UEFI loads, and the root, last so that it can grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How many sectors the disk has.
    pub sectors: u64,
    /// GRUB for a BIOS, which has no file system.
    pub bios: Partition,
    /// GRUB for UEFI, on FAT.
    pub esp: Partition,
    /// The root file system.
    pub root: Partition,
}

impl Layout {
    /// The layout of a disk of so many MiB; `None` if that is too small for any.
    pub(crate) fn new(mib: u64) -> Option<Self> {
        let sectors = mib.checked_mul(MIB)?;
        let bios = Partition {
            start: MIB,
            sectors: MIB,
            kind: "21686148-6449-6E6F-744E-656564454649",
            uuid: "6B6E6F64-6500-4000-8000-000000000001",
            name: "bios",
        };
        let esp = Partition {
            start: bios.start + bios.sectors,
            sectors: 64 * MIB,
            kind: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            uuid: "6B6E6F64-6500-4000-8000-000000000002",
            name: "esp",
        };
        let start = esp.start + esp.sectors;
        let root = Partition {
            start,
            // The table's copy is in the last MiB.
            sectors: sectors.checked_sub(start + MIB).filter(|left| *left > 0)?,
            kind: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
            uuid: "6B6E6F64-6500-4000-8000-000000000003",
            name: "root",
        };
        Some(Self {
            sectors,
            bios,
            esp,
            root,
        })
    }

    /// The partition table, as sfdisk reads it.
    pub(crate) fn script(&self) -> String {
        let mut script = format!("label: gpt\nlabel-id: {DISK}\nunit: sectors\n");
        for part in [self.bios, self.esp, self.root] {
            let Partition {
                start,
                sectors,
                kind,
                uuid,
                name,
            } = part;
            script.push_str(&format!(
                "start={start}, size={sectors}, type={kind}, uuid={uuid}, name={name}\n"
            ));
        }
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_aligned_and_leave_room_for_the_tables() {
        let layout = Layout::new(2048).expect("large enough");
        let parts = [layout.bios, layout.esp, layout.root];
        for (part, next) in parts.iter().zip(&parts[1..]) {
            assert_eq!(part.start + part.sectors, next.start);
        }
        assert!(parts.iter().all(|part| part.start % MIB == 0));
        assert_eq!(
            layout.root.start + layout.root.sectors + MIB,
            layout.sectors
        );
        assert_eq!(layout.sectors * SECTOR, 2 << 30);
    }

    #[test]
    fn a_disk_without_room_has_no_layout() {
        assert_eq!(Layout::new(67), None);
        assert_eq!(Layout::new(u64::MAX), None);
        assert!(Layout::new(68).is_some());
    }

    #[test]
    fn the_script_names_every_partition() {
        let script = Layout::new(1024).expect("large enough").script();
        let lines: Vec<_> = script.lines().skip(3).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("start=2048, size=2048, type=21686148-"));
        assert!(lines[2].ends_with("name=root"));
    }
}
