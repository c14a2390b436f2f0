//! The way of one artifact from its mirrors into the store.
//!
//! What has arrived stays: hash and unpacking go on in memory where a mirror
//! broke off, with the rest from there or from another. When knode itself ends
//! it starts over: the state of a hash and of a decompressor cannot be kept on
//! a disk, and half a file that is not hashed yet would have to be read again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::mirrors::server;
use super::{Board, Fetcher};
use crate::error::{Code, Error, Result};
use crate::sys::http::{Download, Limits, Point, Trouble};
use crate::sys::store::Incoming;
use units::node_config::Artifact;

/// Bytes that make another attempt at once worth it.
const PROGRESS: u64 = 64 * 1024;
/// How often a round may lose what it had and begin again at once.
const RESTARTS: u32 = 2;
/// Between attempts at a mirror that breaks off again and again.
const BREATH: Duration = Duration::from_millis(100);

/// One artifact's way, kept from attempt to attempt.
#[derive(Debug)]
pub struct Transfer<'a> {
    artifact: &'a Artifact,
    arrived: Option<Arrived>,
    /// Bytes of several mirrors together were wrong, and nobody knows whose:
    /// from now on each mirror has to bring all of them.
    apart: bool,
}

/// What came until now.
#[derive(Debug)]
struct Arrived {
    incoming: Incoming,
    point: Point,
    /// Who sent it.
    from: BTreeSet<String>,
}

/// Why a round ended without the artifact.
#[derive(Debug)]
pub struct Failed {
    /// The last mirror's reason, or the disk's.
    pub error: Error,
    /// The shortest time until another round makes sense, where a server said.
    pub pause: Option<Duration>,
    /// Whether bytes came.
    pub moved: bool,
}

/// What can be in the way of one mirror.
enum Trial {
    /// The mirror; the next one has its turn.
    Mirror(Trouble),
    /// The bytes are wrong, and all are this mirror's.
    Wrong(Error),
    /// The bytes of several mirrors together are wrong.
    Mixed(Error),
    /// This machine, or node.yaml: no mirror can help.
    Here(Error),
}

impl<'a> Transfer<'a> {
    /// An artifact of which nothing is there yet.
    pub fn new(artifact: &'a Artifact) -> Self {
        Self {
            artifact,
            arrived: None,
            apart: false,
        }
    }

    /// Asks each mirror once, those in good health first; and on, as long as
    /// bytes come, until the deadline. Returns how many the artifact has.
    ///
    /// # Errors
    ///
    /// No mirror has it, or this machine cannot take it. What arrived is kept
    /// for the next round.
    pub async fn round(
        &mut self,
        fetcher: &Fetcher,
        board: &Board,
        deadline: Option<Instant>,
    ) -> Result<u64, Failed> {
        let mut moved = false;
        let limits = fetcher.limits.by(deadline.map(Into::into));
        let outcome = self.try_mirrors(fetcher, board, limits, &mut moved).await;
        outcome.map_err(|error| Failed {
            pause: fetcher.mirrors().pause(&self.artifact.urls, Instant::now()),
            error,
            moved,
        })
    }

    async fn try_mirrors(
        &mut self,
        fetcher: &Fetcher,
        board: &Board,
        limits: Limits,
        moved: &mut bool,
    ) -> Result<u64> {
        let _place = fetcher.room().await?;
        let mut tried = BTreeSet::new();
        let mut restarts = 0;
        let mut last = None;
        while let Some(url) = self.next(fetcher, &tried)
            && !limits.is_over()
        {
            let before = self.arrived();
            match self.from(fetcher, limits, &url, board).await {
                Ok(bytes) => {
                    fetcher.mirrors().succeeded(&url);
                    return Ok(bytes);
                }
                Err(Trial::Here(error)) => {
                    self.arrived = None;
                    return Err(error);
                }
                Err(Trial::Wrong(error)) => {
                    self.wrong(fetcher, &url, &error);
                    tried.insert(url);
                    last = Some(error);
                }
                Err(Trial::Mixed(error)) => {
                    fetcher.tell(self.artifact, &url, &error);
                    self.apart = true;
                    tried.clear();
                    last = Some(error);
                }
                Err(Trial::Mirror(trouble)) => {
                    fetcher.blame(self.artifact, &url, &trouble);
                    // A neighbour that has it not is no reason to tell.
                    let reason = !fetcher.is_neighbour(&url);
                    let now = self.arrived();
                    let more = now.saturating_sub(before) >= PROGRESS;
                    restarts += u32::from(now < before);
                    *moved |= more;
                    if more && restarts <= RESTARTS {
                        tried.clear();
                        tokio::time::sleep(BREATH).await;
                    } else {
                        tried.insert(url);
                    }
                    last = match reason {
                        true => Some(trouble.error),
                        false => last.or(Some(trouble.error)),
                    };
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nobody(&limits)))
    }

    fn next(&self, fetcher: &Fetcher, tried: &BTreeSet<String>) -> Option<String> {
        let mirrors = fetcher.mirrors();
        let order = mirrors.order(&self.artifact.urls, Instant::now());
        let mut untried = order.into_iter().filter(|url| !tried.contains(*url));
        untried.next().map(str::to_owned)
    }

    fn nobody(&self, limits: &Limits) -> Error {
        let name = &self.artifact.name;
        if self.artifact.urls.is_empty() {
            let text = format!("{name} has no address to download from");
            return Error::new(Code::ConfigInvalid, text);
        }
        if limits.is_over() {
            return Error::new(Code::FetchStall, format!("the time for {name} is up"));
        }
        let text = format!("every mirror of {name} asks for a pause");
        Error::new(Code::FetchHttp, text)
    }

    fn arrived(&self) -> u64 {
        self.arrived.as_ref().map_or(0, |arrived| arrived.point.at)
    }

    fn wrong(&self, fetcher: &Fetcher, url: &str, error: &Error) {
        fetcher.tell(self.artifact, url, error);
        if fetcher.mirrors().lied(url) {
            tracing::warn!(
                "{} sends wrong bytes: others are asked from now on",
                server(url)
            );
        }
    }

    /// One mirror: what is missing, or all where it cannot go on.
    async fn from(
        &mut self,
        fetcher: &Fetcher,
        limits: Limits,
        url: &str,
        board: &Board,
    ) -> Result<u64, Trial> {
        let (client, limits) = fetcher.way(url, limits).map_err(Trial::Here)?;
        let name = &self.artifact.name;
        let server = server(url).to_owned();
        if self.apart
            && self
                .arrived
                .as_ref()
                .is_some_and(|a| !a.from.contains(&server))
        {
            self.arrived = None;
        }
        let known = match &self.arrived {
            Some(arrived) => arrived.point.clone(),
            None => Point::start(self.artifact.size),
        };
        board.asking(name, known.at, known.total, &server);
        let mut download = Download::start(&client, url, &known, limits)
            .await
            .map_err(Trial::Mirror)?;
        match download.point().at {
            0 if known.at > 0 => {
                tracing::info!(
                    "{name}: {server} cannot go on at byte {}: starting over",
                    known.at
                );
                self.arrived = None;
            }
            0 => {}
            at => tracing::info!("{name}: going on at byte {at} from {server}"),
        }
        let arrived = match &mut self.arrived {
            Some(arrived) => arrived,
            none => none.insert(Arrived {
                incoming: fetcher.store.receive(self.artifact).map_err(Trial::Here)?,
                point: download.point().clone(),
                from: BTreeSet::new(),
            }),
        };
        loop {
            let chunk = download.chunk().await.map_err(Trial::Mirror)?;
            let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else {
                break;
            };
            if !arrived.from.contains(&server) {
                arrived.from.insert(server.clone());
            }
            if !arrived.incoming.push(chunk).await {
                break;
            }
            arrived.point = download.point().clone();
            board.moved(name, arrived.point.at);
        }
        self.finish(url).await
    }

    async fn finish(&mut self, url: &str) -> Result<u64, Trial> {
        let Some(Arrived {
            incoming,
            point,
            from,
        }) = self.arrived.take()
        else {
            return Ok(0);
        };
        let Err(error) = incoming.finish().await else {
            return Ok(point.at);
        };
        let doing = format!("fetching {} from {url}", self.artifact.name);
        let error = Error::new(error.code(), doing).because(error.story());
        Err(match error.code() {
            Code::FetchHash | Code::FetchSize if from.len() > 1 => Trial::Mixed(error),
            Code::FetchHash | Code::FetchSize => Trial::Wrong(error),
            _ => Trial::Here(error),
        })
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            pause: None,
            moved: false,
        }
    }
}
