//! A line for every request: when, who, which machine, what, and how it went.
//! Nothing of a document is in it.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;

use super::ledger::shown;
use super::table::Machine;

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who.
    pub peer: SocketAddr,
    /// What, by its method and path.
    pub what: String,
    /// The machine that it is about, if it is about one.
    pub machine: Option<Machine>,
}

/// How a request went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The status of the answer; none where there was no answer.
    pub status: Option<u16>,
    /// How many bytes of the body were sent.
    pub bytes: u64,
    /// In words.
    pub told: String,
}

#[derive(Serialize)]
struct Line<'l> {
    time: String,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<&'l str>,
    request: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    bytes: u64,
    outcome: &'l str,
}

/// Where lines go.
pub struct Audit {
    json: bool,
    out: Mutex<Box<dyn io::Write + Send>>,
}

impl Audit {
    /// Writes lines to `out`, as JSON or as text.
    pub fn new(json: bool, out: Box<dyn io::Write + Send>) -> Self {
        Self {
            json,
            out: Mutex::new(out),
        }
    }

    /// Tells of a request.
    pub fn tell(&self, asked: &Asked, outcome: &Outcome) {
        let line = Line {
            time: shown(OffsetDateTime::now_utc()),
            peer: asked.peer.to_string(),
            mac: asked.machine.as_ref().map(|m| m.mac.to_string()),
            machine: asked.machine.as_ref().map(|m| m.name.as_str()),
            request: &asked.what,
            status: outcome.status,
            bytes: outcome.bytes,
            outcome: &outcome.told,
        };
        let text = match self.json {
            true => serde_json::to_string(&line).unwrap_or_default(),
            false => line.text(),
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Machines boot also where nobody reads the lines any more.
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit")
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

impl Line<'_> {
    fn text(&self) -> String {
        let status = self.status.map_or("-".to_owned(), |s| s.to_string());
        let machine = match (self.machine, &self.mac) {
            (Some(name), Some(mac)) => format!("{name} ({mac})"),
            _ => "-".to_owned(),
        };
        format!(
            "{} {} {machine} {} {status} {} {}",
            self.time, self.peer, self.request, self.bytes, self.outcome
        )
    }
}

/// The words of a request as they may stand in a line: what is not visible
/// ASCII is shown by its number, and too much of it is cut off.
pub fn harmless(text: &str) -> String {
    const MOST: usize = 200;
    let mut shown: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_default)
        .collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_request_is_one_line() {
        let asked = Asked {
            peer: "10.0.0.7:5000".parse().unwrap(),
            what: format!("GET {}", harmless("/a b\n\u{1b}[2J")),
            machine: Some(Machine {
                mac: "52:54:00:00:00:01".parse().unwrap(),
                name: "node-1".to_owned(),
            }),
        };
        let outcome = Outcome {
            status: Some(200),
            bytes: 12,
            told: "sent".to_owned(),
        };
        for json in [false, true] {
            let kept = Kept::default();
            Audit::new(json, Box::new(kept.clone())).tell(&asked, &outcome);
            let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
            for part in [
                "10.0.0.7:5000",
                "node-1",
                "52:54:00:00:00:01",
                "200",
                "12",
                "sent",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        assert!(harmless(&"a".repeat(500)).len() < 300);
    }
}
