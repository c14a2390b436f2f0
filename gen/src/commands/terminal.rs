//! Standard output and standard error.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};

use crate::report::Report;

/// Whether somebody is looking at what is printed.
pub fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// Whether findings are told in colours: to somebody who looks, and has not
/// said otherwise (no-color.org).
pub fn in_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}

/// Prints a result. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing to standard output"),
    }
}

/// Says what is worth a second thought, if anything is.
pub fn warn(report: &Report) {
    if !report.is_empty() {
        say(report.render(in_colour()).trim_end());
    }
}

/// Says something beside the result.
pub fn say(text: &str) {
    // Nobody is left to be told that standard error is closed.
    drop(writeln!(io::stderr().lock(), "{text}"));
}
