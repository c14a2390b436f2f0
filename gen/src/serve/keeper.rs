//! The thread that has the journal: it reads documents, and writes what came
//! together with one sync.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::{mpsc, oneshot};

use super::journal::Journal;
use super::ledger::{Refusal, Terms, Verdict};
use crate::cluster::Mac;
use crate::secret::Secret;

/// So many questions are decided with one sync.
const TOGETHER: usize = 1024;

/// What the thread is told.
#[derive(Debug)]
pub enum Message {
    /// Somebody asks for a document.
    Asked {
        /// Whose it is.
        mac: Mac,
        /// Who asks.
        peer: IpAddr,
        /// Where the document is.
        file: PathBuf,
        /// Who waits for what is decided.
        reply: oneshot::Sender<Result<Decided, Unable>>,
    },
    /// A document was sent to its end.
    Sent(Mac),
}

/// What is decided upon a question.
#[derive(Debug)]
pub enum Decided {
    /// This document is given.
    Given(Secret),
    /// None is, and why.
    Refused(Refusal),
}

/// Why nothing can be decided.
#[derive(Debug)]
pub enum Unable {
    /// The document cannot be read.
    Read(io::Error),
    /// Nothing can be written down; in words.
    Write(String),
}

/// The thread that has the journal.
#[derive(Debug)]
pub struct Keeper {
    thread: JoinHandle<()>,
    clerk: Clerk,
}

/// The way to that thread.
#[derive(Debug, Clone)]
pub struct Clerk(mpsc::UnboundedSender<Message>);

impl Keeper {
    /// Starts it.
    pub fn start(journal: Journal, terms: Terms) -> Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || keep(journal, receiver, terms))
            .context("starting a thread for the journal")?;
        Ok(Self {
            thread,
            clerk: Clerk(sender),
        })
    }

    /// A way to it.
    pub fn clerk(&self) -> Clerk {
        self.clerk.clone()
    }

    /// Ends it, once all ways to it are gone and all is written.
    pub fn end(self) -> Result<()> {
        drop(self.clerk);
        let joined = self.thread.join();
        joined.map_err(|_| anyhow!("the journal's thread panicked"))
    }
}

impl Clerk {
    /// Whether `peer`, who says to be this machine, gets its document. That it
    /// does is on the disk by then.
    ///
    /// # Errors
    ///
    /// Where nothing can be read or written down, so that nothing is given.
    pub async fn ask(&self, mac: Mac, peer: IpAddr, file: &Path) -> Result<Decided, Unable> {
        let (reply, answer) = oneshot::channel();
        let gone = || Unable::Write("the journal's thread has ended".to_owned());
        let file = file.to_owned();
        let message = Message::Asked {
            mac,
            peer,
            file,
            reply,
        };
        self.0.send(message).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Its document was sent to its end.
    pub fn sent(&self, mac: Mac) {
        // At the end of the program it may be sent again, which is the lesser
        // evil.
        drop(self.0.send(Message::Sent(mac)));
    }
}

fn keep(mut journal: Journal, mut receiver: mpsc::UnboundedReceiver<Message>, terms: Terms) {
    // The time for documents is an hour also where the clock is set meanwhile.
    let begun = Instant::now();
    while let Some(first) = receiver.blocking_recv() {
        let (mut batch, mut documents) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(message) = next {
            take(message, &mut batch, &mut documents);
            next = match batch.len() < TOGETHER {
                true => receiver.try_recv().ok(),
                false => None,
            };
        }
        let decided = journal.decide(&batch, &terms, terms.since + begun.elapsed());
        let replies = batch.into_iter().filter_map(|message| match message {
            Message::Asked { reply, .. } => Some(reply),
            Message::Sent(_) => None,
        });
        // Who asked may be gone.
        match decided {
            Ok(verdicts) => {
                for ((reply, verdict), document) in replies.zip(verdicts).zip(documents) {
                    let decided = match verdict {
                        Verdict::Give | Verdict::GiveAgain => Decided::Given(document),
                        Verdict::Refuse(refusal) => Decided::Refused(refusal),
                    };
                    drop(reply.send(Ok(decided)));
                }
            }
            Err(error) => {
                for reply in replies {
                    drop(reply.send(Err(Unable::Write(format!("{error:#}")))));
                }
            }
        }
    }
}

/// Takes a message to be decided upon, with the document that is asked for. One
/// that cannot be read is not given, so there is nothing to decide.
fn take(message: Message, batch: &mut Vec<Message>, documents: &mut Vec<Secret>) {
    let read = match &message {
        Message::Asked { file, .. } => Some(fs::read(file).map(Secret::new)),
        Message::Sent(_) => None,
    };
    match (read, message) {
        (Some(Err(error)), Message::Asked { reply, .. }) => {
            // Who asked may be gone.
            drop(reply.send(Err(Unable::Read(error))));
        }
        (read, message) => {
            documents.extend(read.and_then(Result::ok));
            batch.push(message);
        }
    }
}
