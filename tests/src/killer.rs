//! Kills a machine's knode from outside: whenever a step begins, fails or is done for the
//! first time, and at moments that nobody chose (B3).

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const KNODE: &str = "/opt/knode/bin/knode";
const LOOK: Duration = Duration::from_millis(3);
/// The longest that knode lives until it is killed at a moment by chance.
const LONGEST: u64 = 1500;

/// What was done to it.
#[derive(Debug, Default)]
pub struct Killed {
    /// The step and its state that were just told, one kill each.
    pub at: BTreeSet<(String, String)>,
    /// Kills by chance.
    pub by_chance: usize,
}

/// A thread that kills, until the last step was done once or it is told to end.
#[derive(Debug)]
pub struct Killer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Killed>>>,
}

impl Killer {
    /// Begins with the machine whose PID 1 has this number on the host; `by_chance` kills
    /// come in between.
    pub fn start(init: i32, by_chance: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || work(init, by_chance, &told));
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Whether the last step was done, and knode killed for it.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the killing; says what was done.
    pub fn finish(mut self) -> Result<Killed> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished before")?;
        thread.join().map_err(|_| anyhow!("the killer panicked"))?
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A test that failed has said why already.
            let _outcome = thread.join();
        }
    }
}

fn work(init: i32, by_chance: usize, stop: &AtomicBool) -> Result<Killed> {
    let status = PathBuf::from(format!("/proc/{init}/root/run/knode/status.json"));
    let mut killed = Killed::default();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let Some(process) = knode(init)? else {
            continue;
        };
        let ends = Instant::now() + Duration::from_millis(fastrand::u64(..LONGEST));
        while !stop.load(Ordering::Relaxed) && is_knode(process) {
            let news = fs::read(&status).ok().and_then(|text| {
                let told = states(&serde_json::from_slice(&text).ok()?);
                told.into_iter().find(|pair| !killed.at.contains(pair))
            });
            if let Some(pair) = news {
                let last = pair == ("ready".to_owned(), "done".to_owned());
                killed.at.insert(pair);
                end(process)?;
                if last {
                    return Ok(killed);
                }
            } else if killed.by_chance < by_chance && Instant::now() >= ends {
                killed.by_chance += 1;
                end(process)?;
            }
            thread::sleep(LOOK);
        }
    }
    Ok(killed)
}

/// Each step that has begun, and its state.
fn states(status: &Value) -> BTreeSet<(String, String)> {
    let steps = status["steps"].as_array().into_iter().flatten();
    let pair = |step: &Value| {
        Some((
            step["name"].as_str()?.into(),
            step["state"].as_str()?.into(),
        ))
    };
    steps
        .filter(|step| step["state"] != "pending")
        .filter_map(pair)
        .collect()
}

/// The agent on the machine, by its number on the host.
fn knode(init: i32) -> Result<Option<Pid>> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid"));
    let theirs = namespace(&init.to_string()).context("looking at the machine's PID 1")?;
    for entry in fs::read_dir("/proc").context("listing processes")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let process = Pid::from_raw(number);
        // A process may end at any moment.
        if is_knode(process) && namespace(&number.to_string()).is_ok_and(|ns| ns == theirs) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

/// Whether it is the agent: not `knode status`, not a zombie.
fn is_knode(process: Pid) -> bool {
    let program = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
    let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    program.to_string_lossy().starts_with(KNODE) && arguments.ends_with(b"\0run\0")
}

/// Kills it and waits until it is gone.
fn end(process: Pid) -> Result<()> {
    match kill(process, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).context("killing knode"),
    }
    while is_knode(process) {
        thread::sleep(LOOK);
    }
    Ok(())
}
