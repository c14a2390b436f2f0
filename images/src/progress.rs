//! What is being done, for whoever waits: on a terminal the program's last line, in a
//! pipe one line a step.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

/// Tells of steps, one after the other.
pub(crate) struct Progress {
    terminal: bool,
    step: String,
    since: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            step: String::new(),
            since: Instant::now(),
        }
    }

    /// The next step begins; the one before it is done.
    pub(crate) fn step(&mut self, name: &str) {
        self.done();
        name.clone_into(&mut self.step);
        self.since = Instant::now();
        self.line("");
    }

    /// What the program of this step says now.
    pub(crate) fn line(&self, text: &str) {
        if self.terminal {
            let text: String = text
                .chars()
                .filter(|it| !it.is_control())
                .take(60)
                .collect();
            tell(&format!("\r\x1b[K{} {text}", self.step));
        }
    }

    /// The last step is done.
    pub(crate) fn done(&mut self) {
        if self.step.is_empty() {
            return;
        }
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let seconds = self.since.elapsed().as_secs_f64();
        tell(&format!("{clear}{} {seconds:.1} s\n", self.step));
        self.step.clear();
    }
}

impl Drop for Progress {
    /// An error is told on a line of its own.
    fn drop(&mut self) {
        if self.terminal && !self.step.is_empty() {
            tell("\n");
        }
    }
}

/// A build goes on where nobody listens any more.
fn tell(text: &str) {
    let mut stderr = stderr().lock();
    drop(stderr.write_all(text.as_bytes()));
    drop(stderr.flush());
}
