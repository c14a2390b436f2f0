//! The ledger on the disk: a line for each event, written and synced before
//! the first byte of a document leaves.
//!
//! The file is locked for as long as it is read or written, so that several
//! programs may have it: what others append is noted before anything is decided.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use time::OffsetDateTime;

use super::keeper::Message;
use super::ledger::{Event, Ledger, Terms, Verdict, What};
use crate::cluster::Mac;
use crate::out::SECRET_MODE;

/// The file, and what is in it.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    ledger: Ledger,
    /// Up to where the file was read.
    known: u64,
    /// Whether what comes next in the file happens now.
    live: bool,
}

impl Journal {
    /// Opens the file, or makes one for its owner alone, and reads it. What a
    /// loss of power left of a last line was not acted upon, and is cut off.
    ///
    /// # Errors
    ///
    /// The disk's; a line that is no event: nobody knows what it was.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let file = options
            .mode(SECRET_MODE)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
            ledger: Ledger::default(),
            known: 0,
            live: false,
        };
        journal.locked(|journal| {
            journal.catch_up(OffsetDateTime::now_utc())?;
            let length = journal.file.metadata()?.len();
            if length > journal.known {
                journal.file.set_len(journal.known)?;
            }
            journal.file.sync_all()?;
            Ok(())
        })?;
        // The name of a new file is on the disk too.
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("syncing the folder of {}", path.display()))?;
        Ok(journal)
    }

    /// Lets machines have their documents once more.
    pub fn allow(&mut self, macs: &[Mac]) -> Result<()> {
        let at = OffsetDateTime::now_utc();
        self.locked(|journal| {
            journal.catch_up(at)?;
            let lines = macs.iter().map(|mac| line(*mac, at, &What::Allowed));
            journal.append(&lines.collect::<Result<String>>()?)?;
            for mac in macs {
                journal.ledger.note(*mac, at, &What::Allowed);
            }
            Ok(())
        })
    }

    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let locked = self.file.lock();
        locked.with_context(|| format!("locking {}", self.path.display()))?;
        let done = work(self).with_context(|| self.path.display().to_string());
        let unlocked = self.file.unlock();
        let done = done?;
        unlocked.with_context(|| format!("unlocking {}", self.path.display()))?;
        Ok(done)
    }

    /// Takes note of whole lines that are new in the file; what a clock said that
    /// was ahead of ours did not happen later than now.
    fn catch_up(&mut self, now: OffsetDateTime) -> Result<()> {
        let length = self.file.metadata()?.len();
        let live = std::mem::replace(&mut self.live, true);
        if length < self.known {
            bail!("became shorter: somebody wrote over it");
        }
        if length == self.known {
            return Ok(());
        }
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(self.known))?;
        let mut rest = Vec::new();
        (&self.file)
            .take(length - self.known)
            .read_to_end(&mut rest)?;
        let whole = rest
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        text.push_str(std::str::from_utf8(&rest[..whole]).context("is no text")?);
        for line in text.lines() {
            let event: Event = serde_json::from_str(line)
                .map_err(|e| anyhow!("{line:?} is not what happened to a document: {e}"))?;
            let mac = event.mac.parse().map_err(|e| anyhow!("{line:?}: {e}"))?;
            // The operator's word counts from when it is heard: clocks jump.
            let heard = live && event.what == What::Allowed;
            let at = if heard { now } else { event.at.min(now) };
            self.ledger.note(mac, at, &event.what);
        }
        self.known += whole as u64;
        Ok(())
    }

    /// Writes lines to the disk.
    fn append(&mut self, lines: &str) -> io::Result<()> {
        let start = self.file.metadata()?.len();
        let written = (&self.file)
            .write_all(lines.as_bytes())
            .and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half a line is in nobody's way.
            self.file.set_len(start).ok();
        }
        written?;
        self.known = start + lines.len() as u64;
        Ok(())
    }

    /// Decides and writes down what came together.
    pub fn decide(
        &mut self,
        asked: &[Message],
        terms: &Terms,
        now: OffsetDateTime,
    ) -> Result<Vec<Verdict>> {
        self.locked(|journal| {
            journal.catch_up(now)?;
            let (mut lines, mut verdicts) = (String::new(), Vec::new());
            for message in asked {
                let (mac, what) = match message {
                    Message::Asked { mac, peer, .. } => {
                        let verdict = journal.ledger.judge(*mac, *peer, now, terms);
                        let begun = verdict == Verdict::Give;
                        verdicts.push(verdict);
                        if !begun {
                            continue;
                        }
                        (*mac, What::Begun { peer: *peer })
                    }
                    Message::Sent(mac) => (*mac, What::Sent),
                };
                journal.ledger.note(mac, now, &what);
                lines.push_str(&line(mac, now, &what)?);
            }
            if !lines.is_empty()
                && let Err(error) = journal.append(&lines)
            {
                // What cannot be written down did not happen: the file tells.
                journal.ledger = Ledger::default();
                journal.known = 0;
                journal.live = false;
                return Err(error.into());
            }
            Ok(verdicts)
        })
    }
}

fn line(mac: Mac, at: OffsetDateTime, what: &What) -> Result<String> {
    let event = Event {
        at,
        mac: mac.to_string(),
        what: what.clone(),
    };
    Ok(format!("{}\n", serde_json::to_string(&event)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::keeper::{Decided, Unable};
    use std::net::IpAddr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;
    use tokio::sync::oneshot;

    fn terms() -> Terms {
        Terms {
            since: OffsetDateTime::now_utc(),
            window: Duration::from_hours(1),
            again: Duration::ZERO,
        }
    }

    fn mac(last: u8) -> Mac {
        format!("52:54:00:00:00:{last:02x}").parse().unwrap()
    }

    fn asked(last: u8) -> (Message, oneshot::Receiver<Result<Decided, Unable>>) {
        let (reply, answer) = oneshot::channel();
        let message = Message::Asked {
            mac: mac(last),
            peer: IpAddr::from([10, 0, 0, last]),
            file: PathBuf::new(),
            reply,
        };
        (message, answer)
    }

    fn verdicts(journal: &mut Journal, which: &[u8]) -> Vec<Verdict> {
        let messages: Vec<Message> = which.iter().map(|last| asked(*last).0).collect();
        decide(journal, &messages).unwrap()
    }

    fn decide(journal: &mut Journal, messages: &[Message]) -> Result<Vec<Verdict>> {
        journal.decide(messages, &terms(), OffsetDateTime::now_utc())
    }

    #[test]
    fn what_was_given_is_known_after_a_restart_and_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("served.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut other = Journal::open(&path).unwrap();
        let given = verdicts(&mut journal, &[1, 2, 1]);
        assert_eq!(
            given,
            [Verdict::Give, Verdict::Give, Verdict::GiveAgain],
            "one who asks twice at once has it once"
        );
        decide(&mut journal, &[Message::Sent(mac(1))]).unwrap();
        for journal in [&mut other, &mut Journal::open(&path).unwrap()] {
            assert!(matches!(verdicts(journal, &[1])[..], [Verdict::Refuse(_)]));
            assert_eq!(verdicts(journal, &[2]), [Verdict::GiveAgain]);
        }
        other.allow(&[mac(1)]).unwrap();
        assert_eq!(verdicts(&mut journal, &[1]), [Verdict::Give]);
        assert_eq!(verdicts(&mut other, &[1]), [Verdict::GiveAgain]);
    }

    #[test]
    fn half_a_line_is_cut_off_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("served.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        verdicts(&mut journal, &[1]);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"at\":\"20")).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        assert_eq!(verdicts(&mut journal, &[1]), [Verdict::GiveAgain]);
        std::fs::write(&path, "nonsense\n").unwrap();
        let error = format!("{:#}", Journal::open(&path).unwrap_err());
        assert!(
            error.contains("\"nonsense\" is not what happened"),
            "{error}"
        );
        // Nothing is given on the word of a file that somebody emptied.
        std::fs::write(&path, "").unwrap();
        let error = decide(&mut journal, &[asked(1).0]).unwrap_err();
        assert!(format!("{error:#}").contains("became shorter"), "{error:#}");
    }

    /// A clock that was ahead, or is set back, makes no time longer.
    #[test]
    fn clocks_jump() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("served.jsonl");
        let now = OffsetDateTime::now_utc();
        let day = Duration::from_hours(24);
        let sent = |last: u8| {
            let begun = What::Begun {
                peer: IpAddr::from([10, 0, 0, last]),
            };
            [begun, What::Sent].map(|what| line(mac(last), now + day, &what).unwrap())
        };
        std::fs::write(&path, sent(1).concat()).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let terms = Terms {
            again: Duration::from_secs(30),
            ..terms()
        };
        let later = now + Duration::from_mins(1);
        let mut ask = |last| journal.decide(&[asked(last).0], &terms, later).unwrap();
        assert!(matches!(ask(1)[..], [Verdict::Refuse(_)]));
        // What is allowed now is allowed from now on, whatever the other's clock says.
        for at in [now + day, now - day] {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            let allowed = line(mac(1), at, &What::Allowed).unwrap();
            file.write_all(allowed.as_bytes()).unwrap();
            let at = later + terms.window;
            let mut ask = |at| {
                let verdicts = journal.decide(&[asked(1).0], &terms, at).unwrap();
                verdicts[0].clone()
            };
            assert_eq!(ask(later), Verdict::Give);
            assert_eq!(ask(at), Verdict::GiveAgain);
            let late = ask(at + Duration::from_secs(1));
            assert!(matches!(late, Verdict::Refuse(_)), "{late:?}");
        }
    }
}
