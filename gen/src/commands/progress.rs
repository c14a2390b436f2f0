//! How far something is, on a terminal, when it takes more than a second.
//!
//! One line on standard error that is written over and taken away at the end;
//! no colours, so that there is nothing for NO_COLOR to take away. Nothing is
//! written in a pipe, or where TERM says that lines cannot be written over.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What takes no longer is not worth a line.
const QUIET: Duration = Duration::from_secs(1);
/// How often the line is written.
const PERIOD: Duration = Duration::from_millis(100);

/// A line that says how far something is.
#[derive(Debug)]
pub struct Progress<W: Write = io::Stderr> {
    out: Option<W>,
    begun: Instant,
    /// When the line was written last.
    shown: Option<Instant>,
}

impl Progress {
    /// A line on standard error, if somebody is looking at it.
    pub fn new() -> Self {
        let dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let watched = io::stderr().is_terminal() && !dumb;
        Self::to(watched.then(io::stderr))
    }
}

impl<W: Write> Progress<W> {
    /// A line written to `out`, or to nothing.
    fn to(out: Option<W>) -> Self {
        Self {
            out,
            begun: Instant::now(),
            shown: None,
        }
    }

    /// Says how far it is, now and then.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        self.tell_at(Instant::now(), line);
    }

    fn tell_at(&mut self, now: Instant, line: impl FnOnce() -> String) {
        let due = match self.shown {
            None => now.duration_since(self.begun) >= QUIET,
            Some(shown) => now.duration_since(shown) >= PERIOD,
        };
        let Some(out) = self.out.as_mut().filter(|_| due) else {
            return;
        };
        self.shown = Some(now);
        // Nobody is left to be told that standard error is closed. "\x1b[K"
        // (ECMA-48, EL) takes away the rest of a longer line.
        drop(write!(out, "\rkgen: {}\x1b[K", line()).and_then(|()| out.flush()));
    }

    /// Takes the line away, before something else is written.
    pub fn clear(&mut self) {
        if let (Some(out), Some(_)) = (&mut self.out, self.shown.take()) {
            drop(write!(out, "\r\x1b[K").and_then(|()| out.flush()));
        }
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_is_quiet_and_a_line_is_taken_away() {
        let mut seen = Vec::new();
        let mut progress = Progress::to(Some(&mut seen));
        let begun = progress.begun;
        progress.tell_at(begun + QUIET / 2, || "1 of 3".to_owned());
        progress.clear();
        progress.tell_at(begun + QUIET, || "2 of 3".to_owned());
        progress.tell_at(begun + QUIET, || "too soon".to_owned());
        progress.tell_at(begun + QUIET + PERIOD, || "3 of 3".to_owned());
        drop(progress);
        assert_eq!(
            String::from_utf8(seen).unwrap(),
            "\rkgen: 2 of 3\x1b[K\rkgen: 3 of 3\x1b[K\r\x1b[K"
        );
        Progress::to(None::<io::Stderr>).tell_at(begun + 2 * QUIET, || unreachable!());
    }
}
