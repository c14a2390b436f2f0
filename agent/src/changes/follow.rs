//! Follows node.yaml: what is new, valid and whole is handed on, what is not
//! is told while the one before it goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::refusal::{self, Refusal, Stand};
use crate::document;
use crate::error::{Code, Error, Result};
use crate::retry::Backoff;
use crate::run::understand;
use crate::status::{Failure, Status};
use crate::sys::folder;
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::NodeConfig;
use units::paths;
use units::types::NodeName;

/// Files of a document come one after the other: how long it is quiet before
/// node.yaml is looked at.
const QUIET: Duration = Duration::from_millis(300);
/// How long a document may be on its way before what is missing is told.
const DELIVERY: Duration = Duration::from_secs(10);
/// The first and the longest pause between two looks at what is no use yet.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often it is looked whether a boot wrote files of a refused document.
const HELD: Duration = Duration::from_secs(10);

/// What one look found.
enum Look {
    /// What is applied, in other words or none.
    Same,
    /// Something else, valid and whole.
    New(Box<(NodeName, NodeConfig)>),
    /// No use.
    Bad(Error),
}

/// Follows node.yaml.
#[derive(Debug)]
pub struct Follower {
    root: Root,
    /// `systemctl reload knode`: SIGHUP.
    asked: Signal,
    ears: Option<folder::Watch>,
    /// The digest of the last node.yaml that was taken, or says the same.
    seen: String,
    taken: Option<(NodeName, NodeConfig)>,
    /// Since when it is of no use, and whether and how that was told.
    bad: Option<(Instant, Option<String>)>,
    backoff: Backoff,
    /// Rings when the node.yaml that was taken is refused.
    refused: Arc<Notify>,
    /// The document in whose place the good one is.
    refusal: Option<Box<Refusal>>,
    /// Files were put back, which steps have not seen.
    again: bool,
}

impl Follower {
    /// Follows the node.yaml below `root`; `asked` is to make it look.
    pub fn new(root: Root, asked: Signal) -> Self {
        let mut follower = Self {
            root,
            asked,
            ears: None,
            seen: String::new(),
            taken: None,
            bad: None,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            refused: Arc::default(),
            refusal: None,
            again: false,
        };
        follower.listen();
        follower
    }

    /// The next node.yaml that differs from the last one, is valid, and whose
    /// files are all there; at the start, the first valid one, since what is
    /// wrong with its files is told by the step `identity`. A bad one is told.
    /// Nothing is lost when it is dropped and called again.
    pub async fn next(&mut self, status: &Status) -> (NodeName, NodeConfig) {
        loop {
            match self.look() {
                Ok(Look::New(found)) => {
                    self.good(status);
                    self.taken = Some((*found).clone());
                    return *found;
                }
                Ok(Look::Same) => self.good(status),
                Ok(Look::Bad(error)) | Err(error) => self.tell(status, &error),
            }
            self.wait().await;
        }
    }

    /// To be rung when the node.yaml that was taken is refused.
    pub fn refused(&self) -> Arc<Notify> {
        Arc::clone(&self.refused)
    }

    /// The SHA-256 of the node.yaml that was taken, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.seen
    }

    /// Looks at node.yaml; in the place of a refused one the good one is put.
    fn look(&mut self) -> Result<Look> {
        let mut text = self.root.read_if_exists(paths::NODE_CONFIG)?;
        let stand = refusal::look(&self.root, &hex(text.as_ref()))?;
        let other = stand == Stand::Other;
        match stand {
            Stand::Free => self.refusal = None,
            Stand::Other => {}
            Stand::Holds(refusal, changed) => {
                self.refusal = Some(refusal);
                self.again |= changed;
                text = self.root.read_if_exists(paths::NODE_CONFIG)?;
            }
        }
        let found = self.judge(text)?;
        if other && !matches!(found, Look::Bad(_)) {
            refusal::forget(&self.root)?;
            self.refusal = None;
        }
        Ok(found)
    }

    /// What a node.yaml's text is to be taken for.
    fn judge(&mut self, text: Option<Vec<u8>>) -> Result<Look> {
        let digest = hex(text.as_ref());
        if self.taken.is_some() && digest == self.seen && !self.again {
            return Ok(Look::Same);
        }
        let found = match read(&self.root, text) {
            Ok(found) => found,
            Err(error) => return Ok(Look::Bad(error)),
        };
        match &self.taken {
            // Another comment or order: nothing to do.
            Some(taken) if *taken == found && !self.again => {
                self.seen = digest;
                return Ok(Look::Same);
            }
            Some(_) => {
                if let Err(error) = document::whole(&self.root, &found.1.manifest) {
                    return Ok(Look::Bad(error));
                }
            }
            None => {}
        }
        self.seen = digest;
        self.again = false;
        Ok(Look::New(Box::new(found)))
    }

    /// What was wrong is over.
    fn good(&mut self, status: &Status) {
        self.backoff.reset();
        if self.bad.take().is_some_and(|(_, told)| told.is_some()) {
            tracing::info!("{} is good again", paths::NODE_CONFIG);
        }
        let Some(refusal) = &self.refusal else {
            return status.recovered_outside();
        };
        let error = refusal.told();
        let failure = Some(Failure::from(&error));
        if status.read(|report| report.failure != failure) {
            status.failed_outside(&error);
        }
    }

    /// Tells what is wrong, once; of a document on its way nothing is told.
    fn tell(&mut self, status: &Status, error: &Error) {
        let (since, told) = self.bad.get_or_insert((Instant::now(), None));
        let on_its_way = error.code() == Code::ConfigAltered && since.elapsed() < DELIVERY;
        let story = match self.taken {
            Some(_) => format!("{}; the one before it goes on", error.story()),
            None => error.story(),
        };
        if on_its_way || told.as_ref() == Some(&story) {
            return;
        }
        status.failed_outside(&Error::new(error.code(), &*story));
        *told = Some(story);
    }

    /// Until there is a reason to look.
    async fn wait(&mut self) {
        if self.ears.is_none() {
            self.listen();
        }
        // What is no use may become some by files of other folders; and where
        // nothing can be heard, it is looked at.
        let pause = match self.bad.is_some() || self.ears.is_none() {
            true => Some(self.backoff.pause()),
            false => self.refusal.as_ref().map(|_| HELD),
        };
        let again = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let heard = async {
            match &self.ears {
                Some(ears) => ears.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = heard => {
                if !heard {
                    self.ears = None;
                }
                tokio::time::sleep(QUIET).await;
            }
            asked = self.asked.recv() => match asked {
                Some(()) => tracing::info!("asked to look at {}", paths::NODE_CONFIG),
                None => std::future::pending().await,
            },
            () = self.refused.notified() => {}
            () = again => {}
        }
    }

    fn listen(&mut self) {
        let folder = Path::new(paths::NODE_CONFIG).parent();
        let folder: PathBuf = self.root.path(folder.unwrap_or(Path::new("/")));
        match folder::watch(&folder) {
            Ok(ears) => self.ears = Some(ears),
            Err(error) => tracing::debug!("listening to {}: {error}", folder.display()),
        }
    }
}

/// The SHA-256 of a node.yaml that may be missing, in hexadecimal.
fn hex(text: Option<&Vec<u8>>) -> String {
    sha256(text.map_or(&[], Vec::as_slice)).hex()
}

fn read(root: &Root, text: Option<Vec<u8>>) -> Result<(NodeName, NodeConfig)> {
    let bad = |how: &str| {
        let text = format!("reading {}: {how}", paths::NODE_CONFIG);
        Error::new(Code::ConfigRead, text)
    };
    let text = text.ok_or_else(|| bad("there is no such file"))?;
    let text = String::from_utf8(text).map_err(|_| bad("it is not UTF-8"))?;
    understand(root, &text, paths::NODE_CONFIG)
}

#[cfg(test)]
mod tests;
