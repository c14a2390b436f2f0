//! The machine's console: the one thing that an operator sees of a machine
//! that nobody can log in to.

use std::fs::OpenOptions;
use std::io::{self, Write};

use crate::sys::root::Root;

/// Writes one line to `/dev/console` in a single write.
///
/// # Errors
///
/// The machine has no console (most containers), or it is not writable.
pub fn say(root: &Root, line: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(root.path("/dev/console"))?
        .write_all(format!("{line}\r\n").as_bytes())
}
