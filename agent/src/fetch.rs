//! Downloads of what a machine runs: verified, resumed, from whoever has it
//! (P21, P22, B2).
//!
//! The same code serves the step of `knode run` ([`crate::steps`]), which tries
//! for ever, and `knode fetch` ([`command`]), which tries once.

mod board;
pub mod command;
mod mirrors;
pub mod neighbours;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

pub use board::{Board, Entry, State};
use mirrors::Mirrors;
pub use transfer::Transfer;

use crate::error::{Code, Context, Error, Result};
use crate::sys::http::{self, Client, Limits, Trouble};
use crate::sys::store::Store;
use units::node_config::Artifact;

/// The longest time without a byte before the next mirror's turn.
const STALL: Duration = Duration::from_secs(30);
/// Bytes in that time that are progress: 1 KB/s.
const FLOOR: u64 = 30_000;
/// How long what a client read of this machine is taken to hold.
const CLIENT_AGE: Duration = Duration::from_secs(5);
/// How many artifacts are on their way at once. Those that wait for their next
/// attempt do not count.
const PARALLEL: usize = 6;

/// The limits of a machine's downloads: as slow as it has to be, but moving.
pub fn limits() -> Limits {
    Limits {
        stall: STALL,
        floor: FLOOR,
        deadline: None,
    }
}

/// What all downloads of a machine share.
#[derive(Debug)]
pub struct Fetcher {
    store: Store,
    limits: Limits,
    room: Semaphore,
    client: Mutex<Option<(Instant, Client)>>,
    /// The servers of neighbours, and how they are asked.
    neighbours: BTreeSet<String>,
    near: Mutex<Option<Client>>,
    mirrors: Mutex<Mirrors>,
    told: Mutex<BTreeMap<String, String>>,
}

impl Fetcher {
    /// Downloads into `store`, within `limits`.
    pub fn new(store: Store, limits: Limits) -> Self {
        Self {
            store,
            limits,
            room: Semaphore::new(PARALLEL),
            client: Mutex::default(),
            neighbours: BTreeSet::new(),
            near: Mutex::default(),
            mirrors: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The same, and these servers are neighbours ([`neighbours::servers`]): what
    /// they do not have is no trouble.
    #[must_use]
    pub fn with_neighbours(mut self, servers: Vec<String>) -> Self {
        self.neighbours = servers.into_iter().collect();
        self
    }

    /// Where verified artifacts go.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Splits artifacts: are they there, unaltered? Those that are get linked
    /// into their places, and are told to `installed`.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the store cannot be read or changed.
    pub async fn missing<'a>(
        &self,
        artifacts: &'a [Artifact],
        thorough: bool,
        mut installed: impl FnMut(&Artifact),
    ) -> Result<Vec<&'a Artifact>> {
        let mut missing = Vec::new();
        self.store.sweep()?;
        for artifact in artifacts {
            let (store, checked) = (self.store.clone(), artifact.clone());
            let there = tokio::task::spawn_blocking(move || store.verify(&checked, thorough))
                .await
                .context(Code::Disk, || format!("looking at {}", artifact.name))??;
            if there {
                self.store.link(artifact)?;
                installed(artifact);
                continue;
            }
            if self.store.has(artifact)? {
                tracing::warn!(
                    "{} {} in the store is not as it was verified; fetching it again",
                    artifact.name,
                    artifact.version
                );
            }
            missing.push(artifact);
        }
        Ok(missing)
    }

    /// Waits for one of the places that are few.
    async fn room(&self) -> Result<SemaphorePermit<'_>> {
        // Nobody closes it.
        let permit = self.room.acquire().await;
        permit.context(Code::Disk, || "waiting for a free place".to_owned())
    }

    /// How an address is asked, and within which limits.
    fn way(&self, url: &str, limits: Limits) -> Result<(Client, Limits)> {
        if !self.is_neighbour(url) {
            return Ok((self.client()?, limits));
        }
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match &*near {
            Some(client) => client.clone(),
            None => near.insert(http::near_client(neighbours::CONNECT)?).clone(),
        };
        Ok((client, neighbours::limits(limits)))
    }

    /// Ends the connections that are kept: each holds half a megabyte for what
    /// may come on it.
    pub fn rest(&self) {
        *self.near.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_neighbour(&self, url: &str) -> bool {
        neighbours::is_one(&self.neighbours, url)
    }

    /// A client with this moment's name servers, authorities and proxy; shared
    /// by attempts that begin at about the same time.
    fn client(&self) -> Result<Client> {
        let mut shared = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, client)) = &*shared
            && made.elapsed() < CLIENT_AGE
        {
            return Ok(client.clone());
        }
        let client = http::download_client()?;
        *shared = Some((Instant::now(), client.clone()));
        Ok(client)
    }

    fn mirrors(&self) -> MutexGuard<'_, Mirrors> {
        self.mirrors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mirror's trouble is remembered, and told once as long as it is the
    /// same: one that is away for hours is one line in the journal (F29).
    fn blame(&self, artifact: &Artifact, url: &str, trouble: &Trouble) {
        let now = Instant::now();
        self.mirrors()
            .failed(url, trouble.blame, trouble.retry_after, now);
        if self.is_neighbour(url) {
            let (name, error) = (&artifact.name, &trouble.error);
            return tracing::debug!(url, code = %error.code(), "{name}: {}", error.story());
        }
        self.tell(artifact, url, &trouble.error);
    }

    fn tell(&self, artifact: &Artifact, url: &str, error: &Error) {
        let story = error.story();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(url) == Some(&story) {
            return;
        }
        tracing::warn!(url, code = %error.code(), "{}: {}: {story}", artifact.name, error.code());
        told.insert(url.to_owned(), story);
    }
}
