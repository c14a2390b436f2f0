//! What the tests of effects share: network namespaces of their own, and the real tools.
#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// A test that cannot run must not look as if it had passed.
pub fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: run `cargo test` as root"
    );
}

/// In a thread with a umask and mounts of its own.
pub fn apart(job: impl FnOnce() + Send + 'static) {
    require_root();
    let run = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
        job();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        resume_unwind(panic);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, held by a thread: it goes with the thread, whatever happens in a test.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// The holding thread's number, by which `ip link set … netns` finds the namespace.
    pub tid: i32,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback link that is up.
    pub fn new() -> Self {
        require_root();
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            sh("ip link set lo up");
            ready
                .send(nix::unistd::gettid().as_raw())
                .expect("the test waits");
            for job in queue {
                job();
            }
        });
        let tid = is_ready.recv().expect("the namespace came up");
        Namespace {
            jobs: Some(jobs),
            thread: Some(thread),
            tid,
        }
    }

    /// Runs something in the namespace and waits for it; its panics are passed on.
    pub fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = mpsc::channel::<Result<R, Box<dyn Any + Send>>>();
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            // Nobody waits any more only if the test itself is over.
            let _gone = done.send(outcome);
        });
        self.jobs
            .as_ref()
            .expect("open until drop")
            .send(job)
            .expect("the thread lives");
        match result.recv().expect("the thread lives") {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs a future in the namespace, on a tokio runtime of its own.
    pub fn block_on<R, F>(&self, job: impl FnOnce() -> F + Send + 'static) -> R
    where
        R: Send + 'static,
        F: Future<Output = R>,
    {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async { job().await })
        })
    }

    /// Runs a shell command line in the namespace.
    pub fn sh(&self, line: &str) -> String {
        let line = line.to_owned();
        self.run(move || sh(&line))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in a job was passed on already.
            let _outcome = thread.join();
        }
    }
}

/// Runs a shell command line in this thread's namespace, and returns its standard output.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", line])
        .output()
        .expect("sh runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`{line}`: {}: {stderr}",
        output.status
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The JSON that a command prints.
pub fn json(line: &str) -> serde_json::Value {
    let text = sh(line);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("`{line}` printed {text:?}: {e}"))
}
