//! What the cluster itself needs, made and kept by its masters: bindings of
//! groups, role labels, and the objects that came with the masters' documents
//! (P15, P41, P43).

mod applied;
mod discovery;
mod folder;
mod inventory;
mod keep;
mod rbac;
mod roles;

use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use self::applied::{Applied, Live};
use self::discovery::Discovery;
use super::name;
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::clock;

/// How often is looked whether somebody changed it.
const ROUND: Duration = Duration::from_secs(60);
/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Remembers what it applied, so that what nobody changed is left alone.
#[derive(Default)]
pub struct Objects {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    discovery: Discovery,
    applied: Applied,
}

impl Step<Machine> for Objects {
    fn name(&self) -> &'static str {
        name::OBJECTS
    }

    fn after(&self) -> &[&'static str] {
        &[name::APISERVER]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let api = machine.administrator_api()?;
            let mut last = self.memory.lock().await;
            // After a failure nothing is taken for granted.
            let mut memory = std::mem::take(&mut *last);
            let live = Live::read(&api, &memory.applied, &mut memory.discovery).await?;
            rbac::bind(&api, &mut memory.applied, &live).await?;
            let labels = roles::label(&api, machine).await?;
            let found = folder::read(&machine.root, OffsetDateTime::now_utc())?;
            let kept = keep::keep(&api, machine, found, &mut memory, &live).await?;
            memory.discovery.end_round();
            *last = memory;
            Ok(format!("groups bound, {labels} role labels set, {kept}"))
        })
    }

    /// A Node that comes wants its label, so look when the Nodes change; and
    /// when the folder does.
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        let mut peers = machine.peers.subscribe();
        Box::pin(async move {
            let stamp = folder::stamp(&machine.root);
            let changed = async {
                while folder::stamp(&machine.root) == stamp {
                    clock::pause(LOOK).await;
                }
            };
            tokio::select! {
                _ = peers.changed() => {}
                () = changed => {}
                () = clock::pause(ROUND) => {}
            }
        })
    }
}
