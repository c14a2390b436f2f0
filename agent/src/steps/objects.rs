//! What the cluster itself needs, made and kept by its masters: bindings of
//! groups, role labels, and the objects that came with the masters' documents
//! (P15, P41, P43).

mod discovery;
mod folder;
mod inventory;
mod keep;
mod rbac;
mod roles;

use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::name;
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;

/// How often everything is applied again, should somebody have changed it.
const ROUND: Duration = Duration::from_secs(60);
/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(5);

pub struct Objects;

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
            rbac::bind(&api).await?;
            let labels = roles::label(&api, machine).await?;
            let found = folder::read(&machine.root, OffsetDateTime::now_utc())?;
            let kept = keep::keep(&api, machine, found).await?;
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
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::select! {
                _ = peers.changed() => {}
                () = changed => {}
                () = tokio::time::sleep(ROUND) => {}
            }
        })
    }
}
