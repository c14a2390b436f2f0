//! Where each download stands, for the status and for people who watch.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Code, Error};
use units::node_config::Artifact;

/// The state of one artifact's download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was in the store already.
    Stored,
    /// Others are before it.
    Queued,
    /// On its way.
    Loading {
        /// Bytes that are here.
        at: u64,
        /// The server that sends.
        from: String,
    },
    /// Failed, and waits for its next attempt.
    Failed {
        /// When that is; absent: there is none.
        again: Option<Instant>,
    },
    /// Downloaded, verified, and in its place.
    Fetched {
        /// Bytes that were downloaded.
        bytes: u64,
    },
}

/// One artifact.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How many bytes there are to load, once that is known.
    pub total: Option<u64>,
    /// Where it stands.
    pub state: State,
    /// Why it failed last, with its code; until it is in its place, so that
    /// what fails again and again does not come and go.
    pub failure: Option<(Code, String)>,
}

/// All artifacts of a machine, in node.yaml's order.
#[derive(Debug)]
pub struct Board {
    entries: Mutex<Vec<Entry>>,
}

impl Board {
    /// A board on which everything waits.
    pub fn new(artifacts: &[Artifact]) -> Self {
        let entry = |artifact: &Artifact| Entry {
            name: artifact.name.clone(),
            version: artifact.version.clone(),
            total: artifact.size,
            state: State::Queued,
            failure: None,
        };
        Self {
            entries: Mutex::new(artifacts.iter().map(entry).collect()),
        }
    }

    /// All of them, now.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// It was there already.
    pub fn stored(&self, name: &str) {
        self.set(name, State::Stored);
    }

    /// It is in its place.
    pub fn fetched(&self, name: &str, bytes: u64) {
        self.set(name, State::Fetched { bytes });
    }

    /// It failed; tried again after `pause`, or not at all.
    pub fn failed(&self, name: &str, error: &Error, pause: Option<Duration>) {
        let again = pause.map(|pause| Instant::now() + pause);
        if let Some(entry) = find(&mut self.lock(), name) {
            entry.state = State::Failed { again };
            entry.failure = Some((error.code(), error.story()));
        }
    }

    pub(super) fn asking(&self, name: &str, at: u64, total: Option<u64>, from: &str) {
        if let Some(entry) = find(&mut self.lock(), name) {
            entry.total = entry.total.or(total);
            let from = from.to_owned();
            entry.state = State::Loading { at, from };
        }
    }

    pub(super) fn moved(&self, name: &str, now_at: u64) {
        if let Some(entry) = find(&mut self.lock(), name)
            && let State::Loading { at, .. } = &mut entry.state
        {
            *at = now_at;
        }
    }

    /// Everything that failed and is not there yet, as one error: the first one's code, and all
    /// stories.
    pub fn failure(&self) -> Option<Error> {
        let entries = self.lock();
        let failing: Vec<(Code, &str)> = entries
            .iter()
            .filter_map(|entry| entry.failure.as_ref())
            .map(|(code, story)| (*code, story.as_str()))
            .collect();
        let (code, _) = failing.first()?;
        let stories: Vec<String> = failing
            .iter()
            .map(|(its, story)| match its == code {
                true => (*story).to_owned(),
                false => format!("{its}: {story}"),
            })
            .collect();
        Some(Error::new(*code, stories.join("; ")))
    }

    /// All that is not done, in one line: `1 of 3 in place; kubelet 12 of 74 MB;
    /// etcd E-CONNECT, again in 3 s`.
    pub fn line(&self, now: Instant) -> String {
        let entries = self.lock();
        let done = |entry: &&Entry| matches!(entry.state, State::Stored | State::Fetched { .. });
        let ready = entries.iter().filter(done).count();
        let mut parts = vec![format!("{ready} of {} in place", entries.len())];
        parts.extend(entries.iter().filter_map(|entry| {
            let name = &entry.name;
            let code = entry.failure.as_ref().map(|(code, _)| format!(" {code}"));
            let code = code.unwrap_or_default();
            match &entry.state {
                State::Stored | State::Fetched { .. } => None,
                State::Queued => Some(format!("{name} is next")),
                State::Loading { at, .. } => {
                    Some(format!("{name}{code} {}", progress(*at, entry.total)))
                }
                State::Failed { again: None } => Some(format!("{name}{code}")),
                State::Failed { again: Some(again) } => {
                    let left = again.saturating_duration_since(now).as_secs_f64().ceil();
                    Some(format!("{name}{code}, again in {left} s"))
                }
            }
        }));
        parts.join("; ")
    }

    fn set(&self, name: &str, state: State) {
        if let Some(entry) = find(&mut self.lock(), name) {
            entry.state = state;
            entry.failure = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `12 of 74 MB`.
pub(super) fn progress(at: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{} of {} MB", at / 1_000_000, total.div_ceil(1_000_000)),
        None => format!("{} MB", at / 1_000_000),
    }
}

fn find<'a>(entries: &'a mut [Entry], name: &str) -> Option<&'a mut Entry> {
    entries.iter_mut().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::node_config::Packing;

    fn artifact(name: &str, size: Option<u64>) -> Artifact {
        Artifact {
            name: name.to_owned(),
            version: "1".to_owned(),
            urls: Vec::new(),
            digest: crate::sys::store::sha256(name.as_bytes()),
            size,
            packing: Packing::Plain,
            files: Vec::new(),
        }
    }

    #[test]
    fn everything_that_fails_or_waits_is_told_and_not_one_alone() {
        let all = ["runc", "etcd", "cni", "kubelet", "proxy"];
        let all = all.map(|name| artifact(name, (name == "kubelet").then_some(74_300_000)));
        let board = Board::new(&all);
        assert!(board.failure().is_none());
        board.stored("runc");
        let pause = Some(Duration::from_secs(3));
        board.failed("etcd", &Error::new(Code::Connect, "asking a"), pause);
        board.failed("cni", &Error::new(Code::FetchHash, "fetching cni"), None);
        board.asking("kubelet", 0, None, "http://a");
        board.moved("kubelet", 12_900_000);
        assert_eq!(
            board.line(Instant::now()),
            "1 of 5 in place; etcd E-CONNECT, again in 3 s; cni E-FETCH-HASH; \
             kubelet 12 of 75 MB; proxy is next"
        );
        let failure = board.failure().unwrap();
        assert_eq!(failure.code(), Code::Connect);
        assert_eq!(failure.story(), "asking a; E-FETCH-HASH: fetching cni");

        // It is told until it is there.
        board.asking("etcd", 0, None, "http://b");
        board.moved("etcd", 1);
        assert!(
            board
                .line(Instant::now())
                .contains("; etcd E-CONNECT 0 MB; ")
        );
        board.fetched("etcd", 5);
        assert_eq!(board.failure().unwrap().code(), Code::FetchHash);
        board.fetched("cni", 5);
        assert!(board.failure().is_none());
    }
}
