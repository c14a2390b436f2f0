//! The container runtime: its configuration, its start, and that it really
//! answers (F4, F27).

mod config;
mod toml;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{again, name, services};
use crate::check;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::retry::Backoff;
use crate::sys::root::Stat;
use crate::sys::{cri, version};
use units::node_config::{RuntimeSource, Service};
use units::paths;

/// How long containerd may take to answer after its start.
const ANSWER: Duration = Duration::from_secs(20);

/// What containerd needs to start and to run a container.
const PROGRAMS: [&str; 3] = [
    "/opt/kubernetes/bin/containerd",
    "/opt/kubernetes/bin/containerd-shim-runc-v2",
    "/opt/kubernetes/bin/runc",
];

/// The containerd whose version is known, by its path and what lies there.
type Known = (PathBuf, Option<Stat>, Option<u32>);

#[derive(Default)]
pub struct Runtime {
    known: Mutex<Option<Known>>,
}

impl Step<Machine> for Runtime {
    fn name(&self) -> &'static str {
        name::RUNTIME
    }

    fn after(&self) -> &[&'static str] {
        &[name::KERNEL]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let Some(runtime) = &machine.config.runtime else {
                return Ok("none on this machine".to_owned());
            };
            machine.until_installed(name::RUNTIME, &PROGRAMS).await;
            let major = self.major(machine, runtime.source).await;
            let text = config::text(runtime, major);
            let path = paths::CONTAINERD_CONFIG;
            let changed = machine.root.write_atomic(path, text.as_bytes(), 0o644)?;
            let bus = services::connect().await?;
            // A distribution's containerd may run since boot, with its own
            // configuration: ours is in force once we started it.
            let if_active = if changed.is_changed() {
                services::IfActive::Restart
            } else {
                services::IfActive::Leave
            };
            services::ensure_active(machine, &bus, Service::Containerd, if_active).await?;
            answering(machine).await
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(again::when_stopped(machine, &[Service::Containerd]))
    }
}

impl Runtime {
    /// The major version of the containerd that will run. It is asked again
    /// only when it is another one.
    async fn major(&self, machine: &Machine, source: RuntimeSource) -> Option<u32> {
        let path = match source {
            RuntimeSource::Artifact => Some(PathBuf::from(PROGRAMS[0])),
            RuntimeSource::Distribution => check::containerd(&machine.root),
        }?;
        let path = machine.root.path(path).canonicalize().ok()?;
        let stat = machine.root.stat(&path).ok().flatten();
        let known = self.known().clone();
        if let Some((at, was, major)) = known
            && at == path
            && was == stat
        {
            return major;
        }
        let major = match version::of(&path).await {
            Ok(printed) => config::major(&printed),
            Err(error) => {
                tracing::warn!(code = %error.code(), "{}", error.story());
                None
            }
        };
        *self.known() = Some((path, stat, major));
        major
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks over its socket until it answers; a started unit is not enough.
async fn answering(machine: &Machine) -> Result<String> {
    let runtime = cri::Runtime::at(machine.root.path(paths::CONTAINERD_SOCKET))?;
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
    let ask = async {
        loop {
            match runtime.version().await {
                Ok(version) => return version,
                Err(error) => machine.status.detail(name::RUNTIME, error.story()),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    };
    tokio::time::timeout(ANSWER, ask).await.map_err(|_| {
        Error::new(
            Code::Runtime,
            format!("containerd does not answer after {} s", ANSWER.as_secs()),
        )
    })
}
