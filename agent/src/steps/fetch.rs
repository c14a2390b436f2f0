//! Downloads what this machine runs, verified, into the store (P21, F1, F2).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};

use super::name;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::http::{self, Client, Download};
use crate::sys::store::Store;
use units::node_config::Artifact;

/// The longest time without a byte before the next mirror's turn.
const STALL: Duration = Duration::from_secs(30);
/// How many artifacts are on their way at once.
const PARALLEL: usize = 4;

#[derive(Default)]
pub struct Fetch {
    told: Told,
}

/// What was said last of each address, so that a mirror that is away for
/// hours is one line in the journal (F29).
#[derive(Default)]
struct Told(Mutex<BTreeMap<String, String>>);

impl Told {
    fn warn(&self, url: &str, error: &Error) {
        let story = error.story();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(url) == Some(&story) {
            return;
        }
        tracing::warn!(url, code = %error.code(), "{}: {}: {story}", name::FETCH, error.code());
        told.insert(url.to_owned(), story);
    }
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
            let store = Store::new(machine.root.clone());
            store.sweep()?;
            let mut missing = Vec::new();
            for artifact in &machine.config.artifacts {
                if store.has(artifact)? {
                    install(machine, &store, artifact)?;
                } else {
                    missing.push(artifact);
                }
            }
            let bytes = download_all(machine, &store, &missing, &self.told).await?;
            Ok(format!(
                "{} artifacts, {} fetched ({} MB)",
                machine.config.artifacts.len(),
                missing.len(),
                bytes / 1_000_000
            ))
        })
    }
}

/// Links a stored artifact into its place and tells who waits for it.
fn install(machine: &Machine, store: &Store, artifact: &Artifact) -> Result<()> {
    store.link(artifact)?;
    machine.installed.send_modify(|installed| {
        installed.extend(artifact.files.iter().map(|file| file.path.clone()));
    });
    Ok(())
}

/// Downloads all, a few at once; what succeeded is installed even when others
/// fail. Returns the bytes downloaded.
async fn download_all(
    machine: &Machine,
    store: &Store,
    missing: &[&Artifact],
    told: &Told,
) -> Result<u64> {
    if missing.is_empty() {
        return Ok(0);
    }
    let client = http::download_client()?;
    let names: Vec<&str> = missing.iter().map(|a| a.name.as_str()).collect();
    let detail = format!("fetching {}", names.join(", "));
    machine.status.detail(name::FETCH, detail);
    let downloads: Vec<_> = missing
        .iter()
        .map(|artifact| async {
            let bytes = from_any_mirror(&client, store, artifact, told).await?;
            install(machine, store, artifact)?;
            Ok(bytes)
        })
        .collect();
    let outcomes: Vec<Result<u64>> = stream::iter(downloads)
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    outcomes.into_iter().sum()
}

/// Tries the mirrors in their order; the last one's reason is the error's,
/// the others' are logged.
async fn from_any_mirror(
    client: &Client,
    store: &Store,
    artifact: &Artifact,
    told: &Told,
) -> Result<u64> {
    let mut last = None;
    for url in &artifact.urls {
        match from_mirror(client, store, artifact, url).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => {
                told.warn(url, &error);
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        Error::new(
            Code::ConfigInvalid,
            format!("{} has no address to download from", artifact.name),
        )
    }))
}

async fn from_mirror(
    client: &Client,
    store: &Store,
    artifact: &Artifact,
    url: &str,
) -> Result<u64> {
    let mut download = Download::start(client, url, STALL).await?;
    let incoming = store.receive(artifact)?;
    let mut bytes = 0;
    while let Some(chunk) = download.chunk().await? {
        bytes += chunk.len() as u64;
        if !incoming.push(chunk).await {
            break;
        }
    }
    let outcome = incoming.finish().await;
    outcome.map(|()| bytes).map_err(|error| {
        let doing = format!("fetching {} from {url}", artifact.name);
        Error::new(error.code(), doing).because(error.story())
    })
}
