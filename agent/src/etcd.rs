//! This machine's member of etcd, beyond its being started: how it comes into
//! its ring, or back into it (F28), what is saved of it, and what is kept
//! small.
//!
//! [`decide`], [`upkeep`] and [`snapshots`] decide from data; [`ring`] looks,
//! [`join`] does, and [`command`] is what an operator asks for.

pub mod command;
pub mod config;
pub mod decide;
pub mod join;
pub mod mark;
pub mod ring;
pub mod snapshots;
pub mod upkeep;

/// How etcd's own tools write the number of a member or a ring.
pub(crate) fn hex(id: u64) -> String {
    format!("{id:x}")
}
