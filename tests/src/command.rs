//! Running programs: one way to do it, and errors that say what the program said.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What a program did.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Its exit status; 128 + the signal's number when a signal ended it.
    pub fn code(&self) -> i32 {
        let signal = || 128 + self.status.signal().unwrap_or_default();
        self.status.code().unwrap_or_else(signal)
    }

    /// Standard output, if it exited with status 0.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.success(),
            "exit status {}: {}",
            self.code(),
            self.said()
        );
        Ok(self.stdout)
    }

    fn said(&self) -> String {
        let text = format!("{}\n{}", self.stdout.trim(), self.stderr.trim());
        tail(text.trim(), 4000).to_owned()
    }
}

/// Runs a program to its end, however long it takes, and returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {name}"))?;
    Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
    .ok()
    .with_context(|| format!("running {name}"))
}

/// Runs a program that gets `input` and has `limit` to finish; it and what it started
/// are killed then.
///
/// Output goes by way of files, so that a program left in the background cannot hold
/// the caller by keeping a pipe open.
pub fn run_within(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let name = describe(command);
    let mut stdin = tempfile::tempfile().context("making a file for standard input")?;
    stdin.write_all(input)?;
    stdin.rewind()?;
    let stdout = tempfile::tempfile().context("making a file for standard output")?;
    let stderr = tempfile::tempfile().context("making a file for standard error")?;
    let mut child = command
        .stdin(stdin)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL)
                .with_context(|| format!("killing {name}"))?;
            child.wait()?;
            bail!(
                "{name} did not finish within {limit:?}; it said: {}",
                tail(&contents(stdout)?, 2000)
            );
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    Ok(Output {
        status,
        stdout: contents(stdout)?,
        stderr: contents(stderr)?,
    })
}

fn contents(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last `limit` bytes of a text, from the start of a character.
pub(crate) fn tail(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
