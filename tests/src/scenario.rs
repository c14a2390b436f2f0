//! What every test on a whole cluster does around its own steps: it says by name what
//! it lacks, and keeps the machines' logs when it fails.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::kube::Binaries;
use crate::{report, scope};

/// Makes a cluster and goes through the steps on it. Where no node can run, the test is
/// skipped by its name. When a step fails, what the machines logged is in `evidence/NAME`
/// of [`scope::base`].
pub fn on_cluster(
    name: &str,
    make: impl FnOnce() -> Result<Cluster>,
    steps: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip(name, &reason);
        return Ok(());
    }
    let mut cluster = make()?;
    let outcome = steps(&mut cluster);
    if outcome.is_err() {
        let evidence = scope::base().join("evidence").join(name);
        cluster.evidence(&evidence)?;
        eprintln!("the machines' logs are in {}", evidence.display());
    }
    outcome
}

/// The same for steps that need Kubernetes: without its binaries the test is skipped, too.
pub fn with_kubernetes(
    name: &str,
    make: impl FnOnce() -> Result<Cluster>,
    steps: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    if let Err(reason) = Binaries::find() {
        report::skip(name, &format!("no Kubernetes: {reason:#}"));
        return Ok(());
    }
    on_cluster(name, make, steps)
}

/// Runs the clusters of one program one after the other, where two at once would wait
/// for each other's processors.
pub fn in_turn<T>(work: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}
