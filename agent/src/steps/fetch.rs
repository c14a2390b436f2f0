//! Downloads what this machine runs, verified, into the store (P21, F1, F2).

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::OnceCell;

use super::name;
use crate::error::Result;
use crate::fetch::{self, Board, Fetcher, Transfer, neighbours};
use crate::graph::Step;
use crate::machine::Machine;
use crate::retry::Backoff;
use crate::sys::store::Store;
use units::node_config::Artifact;

/// The pause after an artifact's first failure, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long an artifact may take before that is told as a failure; what arrived
/// stays, and the next round goes on with it (F2).
const ROUND: Duration = Duration::from_secs(3600);
/// How often the status tells how far downloads came.
const TELL: Duration = Duration::from_secs(1);

/// What is known of mirrors is kept while the agent runs.
#[derive(Default)]
pub struct Fetch {
    fetcher: OnceCell<Fetcher>,
}

impl Step<Machine> for Fetch {
    fn name(&self) -> &'static str {
        name::FETCH
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let settings = machine.config.neighbours.as_ref();
            // Whoever asks neighbours is one, too.
            let store = Store::new(machine.root.clone()).keeping_downloads(settings.is_some());
            let (artifacts, near) = match settings {
                Some(settings) => (
                    neighbours::first(&machine.config.artifacts, settings),
                    neighbours::servers(settings),
                ),
                None => (machine.config.artifacts.clone(), Vec::new()),
            };
            let artifacts = artifacts.as_slice();
            let new = || async { Fetcher::new(store, fetch::limits()).with_neighbours(near) };
            let fetcher = self.fetcher.get_or_init(new).await;
            let board = Board::new(artifacts);
            let there = |artifact: &Artifact| {
                board.stored(&artifact.name);
                installed(machine, artifact);
            };
            let missing = fetcher.missing(artifacts, false, there).await?;
            let bytes = download_all(machine, fetcher, &board, &missing).await;
            fetcher.rest();
            collect(fetcher, artifacts).await;
            Ok(format!(
                "{} artifacts, {} fetched ({} MB)",
                artifacts.len(),
                missing.len(),
                bytes / 1_000_000
            ))
        })
    }
}

/// Tells who waits for an artifact that it is in its place.
fn installed(machine: &Machine, artifact: &Artifact) {
    machine.installed.send_modify(|installed| {
        installed.extend(artifact.files.iter().map(|file| file.path.clone()));
    });
}

/// Downloads all, each with attempts of its own until it is there, so that
/// none waits for another's trouble. Returns the bytes downloaded.
async fn download_all(
    machine: &Machine,
    fetcher: &Fetcher,
    board: &Board,
    missing: &[&Artifact],
) -> u64 {
    if missing.is_empty() {
        return 0;
    }
    let names: Vec<&str> = missing.iter().map(|a| a.name.as_str()).collect();
    let detail = format!("fetching {}", names.join(", "));
    machine.status.detail(name::FETCH, detail);
    let all = join_all(
        missing
            .iter()
            .map(|artifact| until_there(machine, fetcher, board, artifact)),
    );
    let told = async {
        loop {
            tokio::time::sleep(TELL).await;
            if board.failure().is_none() {
                machine.status.recovered(name::FETCH);
            }
            machine
                .status
                .progress(name::FETCH, board.line(Instant::now()));
        }
    };
    tokio::select! {
        bytes = all => bytes.into_iter().sum(),
        () = told => 0,
    }
}

/// One artifact, for as long as it takes (F3).
async fn until_there(
    machine: &Machine,
    fetcher: &Fetcher,
    board: &Board,
    artifact: &Artifact,
) -> u64 {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut transfer = Transfer::new(artifact);
    loop {
        let deadline = Some(Instant::now() + ROUND);
        let failed = match transfer.round(fetcher, board, deadline).await {
            Ok(bytes) => match fetcher.store().link(artifact) {
                Ok(_) => {
                    board.fetched(&artifact.name, bytes);
                    installed(machine, artifact);
                    return bytes;
                }
                Err(error) => error.into(),
            },
            Err(failed) => failed,
        };
        if failed.moved {
            backoff.reset();
        }
        let pause = backoff.pause().max(failed.pause.unwrap_or_default());
        board.failed(&artifact.name, &failed.error, Some(pause));
        let all = board.failure();
        machine
            .status
            .failed(name::FETCH, all.as_ref().unwrap_or(&failed.error), pause);
        tokio::time::sleep(pause).await;
    }
}

/// Old versions go once the new ones are all there. The machine works without.
async fn collect(fetcher: &Fetcher, artifacts: &[Artifact]) {
    let (store, artifacts) = (fetcher.store().clone(), artifacts.to_vec());
    let collected = tokio::task::spawn_blocking(move || store.collect(&artifacts)).await;
    match collected {
        Ok(Ok(removed)) if removed.is_empty() => {}
        Ok(Ok(removed)) => {
            let count = removed.len();
            tracing::info!(
                step = name::FETCH,
                "removed {count} artifacts of earlier versions"
            );
        }
        Ok(Err(error)) => tracing::warn!(
            code = %error.code(),
            "{}: {}: old versions are kept: {}", name::FETCH, error.code(), error.story()
        ),
        Err(error) => tracing::warn!("old versions are kept: {error}"),
    }
}
