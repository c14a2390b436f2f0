//! Boot images with knode inside, for PXE and disks, and the catalogue of
//! what was built.
//!
//! ```text
//! Debian packages ─ root ─┬─ netboot  vmlinuz, initrd.img: all of it runs from RAM
//!                         └─ disk     disk.raw, disk.qcow2: GPT, for BIOS and UEFI
//!                                     catalogue.json: what is in them, with checksums
//! ```
//!
//! Two builds from the same packages give the same bytes: every time stamp is that of
//! the packages' index, every identifier is fixed, and nothing that belongs to one
//! machine is left in.

pub mod builder;
pub mod catalogue;
pub mod cli;
mod disk;
mod elf;
pub mod error;
mod grub;
mod layout;
mod modules;
mod netboot;
mod packages;
mod programs;
mod progress;
mod root;
mod source;
