//! The step engine: dependencies, concurrency, retry, and what is told.
//!
//! A step brings one part of the machine into its wanted state: it observes,
//! plans with a pure function, and applies. It is idempotent and safe to be
//! killed anywhere, so the engine's one answer to a failure is to tell it and
//! to try again, with back-off and for ever (failure mode F3).

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::Result;
use crate::retry::Backoff;
use crate::status::Status;

/// One part of a node's way to its wanted state; `C` is what steps share.
pub trait Step<C>: Send + Sync {
    /// The name, in the status and in other steps' `after`.
    fn name(&self) -> &'static str;

    /// The steps that must have succeeded once before this one begins.
    fn after(&self) -> &[&'static str];

    /// Brings the machine into the wanted state; says in a few words what it
    /// found or did.
    ///
    /// # Errors
    ///
    /// Why it could not; the engine tells it and tries again.
    fn converge<'a>(&'a self, context: &'a C) -> BoxFuture<'a, Result<String>>;

    /// Returns when the step should look again; by default never.
    fn again<'a>(&'a self, _context: &'a C) -> BoxFuture<'a, ()> {
        Box::pin(pending())
    }
}

/// Why a set of steps is not a graph.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two steps with one name.
    #[error("two steps are named {0}")]
    Duplicate(&'static str),
    /// A step comes after one that is not there.
    #[error("step {step} comes after {after}, which is not a step of this machine")]
    Unknown {
        /// The step.
        step: &'static str,
        /// What it names.
        after: &'static str,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other: {0}")]
    Cycle(String),
}

/// Steps in an order in which each comes after those it needs.
pub struct Graph<C> {
    steps: Vec<Arc<dyn Step<C>>>,
}

impl<C: Send + Sync + 'static> Graph<C> {
    /// Checks the dependencies and orders the steps by them.
    ///
    /// # Errors
    ///
    /// A name that is used twice or not at all, or a cycle.
    pub fn new(steps: Vec<Arc<dyn Step<C>>>) -> Result<Self, GraphError> {
        let mut waiting: BTreeMap<&str, Arc<dyn Step<C>>> = BTreeMap::new();
        let order: Vec<&str> = steps.iter().map(|step| step.name()).collect();
        for step in steps {
            let name = step.name();
            if waiting.insert(name, step).is_some() {
                return Err(GraphError::Duplicate(name));
            }
        }
        for step in waiting.values() {
            if let Some(after) = step.after().iter().find(|a| !waiting.contains_key(**a)) {
                return Err(GraphError::Unknown {
                    step: step.name(),
                    after,
                });
            }
        }
        let mut sorted: Vec<Arc<dyn Step<C>>> = Vec::new();
        while !waiting.is_empty() {
            let free = order.iter().find(|name| {
                waiting
                    .get(**name)
                    .is_some_and(|step| step.after().iter().all(|a| !waiting.contains_key(a)))
            });
            let Some(step) = free.and_then(|name| waiting.remove(name)) else {
                let stuck: Vec<&str> = waiting.into_keys().collect();
                return Err(GraphError::Cycle(stuck.join(", ")));
            };
            sorted.push(step);
        }
        Ok(Self { steps: sorted })
    }

    /// The steps' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(|step| step.name())
    }

    /// Runs every step as soon as those before it succeeded, and again when
    /// it asks for it. `all_done` becomes true when each succeeded once.
    /// Dropping the returned set stops them.
    pub fn run(
        self,
        context: Arc<C>,
        status: &Status,
        all_done: watch::Sender<bool>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let mut done: BTreeMap<&str, watch::Receiver<bool>> = BTreeMap::new();
        for step in self.steps {
            let (tell, told) = watch::channel(false);
            let needs: Vec<watch::Receiver<bool>> = step
                .after()
                .iter()
                .filter_map(|name| done.get(name).cloned())
                .collect();
            done.insert(step.name(), told);
            tasks.spawn(drive(
                step,
                Arc::clone(&context),
                status.clone(),
                needs,
                tell,
            ));
        }
        let every: Vec<watch::Receiver<bool>> = done.into_values().collect();
        tasks.spawn(async move {
            wait_for_all(every).await;
            all_done.send_replace(true);
            pending::<()>().await;
        });
        tasks
    }
}

/// Returns when every one is true; for ever if a sender is gone before.
async fn wait_for_all(all: Vec<watch::Receiver<bool>>) {
    for mut one in all {
        if one.wait_for(|done| *done).await.is_err() {
            pending::<()>().await;
        }
    }
}

/// One step's whole life.
async fn drive<C>(
    step: Arc<dyn Step<C>>,
    context: Arc<C>,
    status: Status,
    needs: Vec<watch::Receiver<bool>>,
    tell: watch::Sender<bool>,
) {
    wait_for_all(needs).await;
    let name = step.name();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        status.begin(name);
        match step.converge(&context).await {
            Ok(detail) => {
                status.done(name, detail);
                backoff.reset();
                tell.send_replace(true);
                step.again(&context).await;
            }
            Err(error) => {
                let pause = backoff.pause();
                status.failed(name, &error, pause);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};
    use crate::sys::root::Root;
    use std::sync::Mutex;

    struct Fake {
        name: &'static str,
        after: &'static [&'static str],
        fail_first: u32,
    }

    type Log = Mutex<Vec<&'static str>>;

    impl Step<Log> for Fake {
        fn name(&self) -> &'static str {
            self.name
        }
        fn after(&self) -> &[&'static str] {
            self.after
        }
        fn converge<'a>(&'a self, log: &'a Log) -> BoxFuture<'a, Result<String>> {
            Box::pin(async move {
                let mut log = log.lock().unwrap();
                log.push(self.name);
                let tries = log.iter().filter(|n| **n == self.name).count();
                if tries <= self.fail_first as usize {
                    return Err(Error::new(Code::Disk, "failing on purpose"));
                }
                Ok(String::new())
            })
        }
    }

    fn step(name: &'static str, after: &'static [&'static str]) -> Arc<dyn Step<Log>> {
        Arc::new(Fake {
            name,
            after,
            fail_first: u32::from(name == "flaky") * 2,
        })
    }

    #[test]
    fn bad_graphs_are_refused() {
        let error = |steps| Graph::new(steps).err().unwrap();
        assert_eq!(
            error(vec![step("a", &[]), step("a", &[])]),
            GraphError::Duplicate("a")
        );
        assert_eq!(
            error(vec![step("a", &["b"])]),
            GraphError::Unknown {
                step: "a",
                after: "b"
            }
        );
        assert_eq!(
            error(vec![step("a", &["b"]), step("b", &["a"]), step("c", &[])]),
            GraphError::Cycle("a, b".to_owned())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn steps_run_after_what_they_need_and_failures_are_retried() {
        let folder = tempfile::tempdir().unwrap();
        let graph = Graph::new(vec![
            step("last", &["flaky", "first"]),
            step("flaky", &["first"]),
            step("first", &[]),
        ])
        .unwrap();
        let status = Status::new(Root::new(folder.path()), graph.names());
        let log = Arc::new(Log::default());
        let (tell, mut done) = watch::channel(false);
        let _tasks = graph.run(Arc::clone(&log), &status, tell);
        done.wait_for(|done| *done).await.unwrap();
        assert_eq!(
            *log.lock().unwrap(),
            ["first", "flaky", "flaky", "flaky", "last"]
        );
        assert!(status.read(|r| r.first_failure().is_none()));
    }
}
