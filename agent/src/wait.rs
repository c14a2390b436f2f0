//! Waiting until something is there: the successor of wupiao.
//!
//! An attempt is made at once, soon again, and then under five times a second
//! for each target. What is to be seen on this machine without an attempt (a
//! port that opens, a socket or file that appears) is looked at all the time,
//! and makes an attempt of its own.

mod pace;
mod signs;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Code, Context, Error, Result};
use crate::sys::http::{self, Client, Trust};
pub(crate) use crate::sys::resolve::addresses as resolve;
use pace::Pace;
use signs::Signs;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How many bytes of an answer are looked at.
const BODY: usize = 64 * 1024;

/// Something to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP port that accepts.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// An address that answers as expected: see [`Expect`].
    Http(String),
    /// The same over a unix socket: the socket, and the path asked for.
    HttpUnix(PathBuf, String),
    /// A unix socket that accepts.
    Unix(PathBuf),
    /// A path that exists.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("{text:?} is no target: write tcp://HOST:PORT, https://…, unix:///PATH or file:///PATH"))?;
        let path = || match rest.strip_prefix('/') {
            Some(_) => Ok(PathBuf::from(rest)),
            None => Err(format!(
                "{text:?} needs an absolute path, as in {scheme}:///run/x.sock"
            )),
        };
        match scheme {
            "tcp" => {
                let (host, port) = rest
                    .rsplit_once(':')
                    .ok_or_else(|| format!("{text:?} names no port: write tcp://HOST:PORT"))?;
                let port = port
                    .parse()
                    .map_err(|_| format!("{port:?} in {text:?} is no port: 1 to 65535"))?;
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                Ok(Self::Tcp { host, port })
            }
            "http" | "https" if !rest.is_empty() => Ok(Self::Http(text.to_owned())),
            "http+unix" => {
                path()?;
                let (socket, path) = rest.split_once(":/").ok_or_else(|| {
                    format!("{text:?} names no path: write http+unix:///run/x.sock:/healthz")
                })?;
                Ok(Self::HttpUnix(PathBuf::from(socket), format!("/{path}")))
            }
            "unix" => path().map(Self::Unix),
            "file" => path().map(Self::File),
            _ => Err(format!(
                "{scheme:?} in {text:?} is not one of tcp, http, https, http+unix, unix, file"
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Http(url) => f.write_str(url),
            Self::HttpUnix(socket, path) => write!(f, "http+unix://{}:{path}", socket.display()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// The answer that is waited for, of http, https and http+unix.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// One of these; by default any success, 200 to 299 (RFC 9110, 15.3).
    pub status: Vec<u16>,
    /// The body's first 64 KiB contain this.
    pub body: Option<String>,
}

/// Waits for several targets.
#[derive(Debug)]
pub struct Waiter {
    targets: Vec<Target>,
    trust: Trust,
    expect: Expect,
    /// One is enough.
    any: bool,
    /// Why each target is still waited for; none before the first attempt.
    reasons: Mutex<Vec<Option<String>>>,
}

impl Waiter {
    /// A waiter for all of these targets, with any success. `authority` (PEM)
    /// replaces the host's authorities for https.
    pub fn new(targets: Vec<Target>, authority: Option<Vec<u8>>) -> Self {
        let reasons = Mutex::new(vec![None; targets.len()]);
        let trust = Trust {
            only: authority,
            identity: None,
        };
        Self {
            targets,
            trust,
            expect: Expect::default(),
            any: false,
            reasons,
        }
    }

    /// The same for another answer.
    #[must_use]
    pub fn expecting(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// The same, where the first target that is there is enough.
    #[must_use]
    pub fn any(mut self, any: bool) -> Self {
        self.any = any;
        self
    }

    /// Returns when the targets are there, however long that takes. `told`
    /// hears each new reason for waiting.
    pub async fn wait(&self, told: impl Fn(&str)) {
        let told = &told;
        let waits = self
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| Box::pin(self.wait_for(index, target, told)));
        if self.any && !self.targets.is_empty() {
            select_all(waits).await;
        } else {
            join_all(waits).await;
        }
    }

    async fn wait_for(&self, index: usize, target: &Target, told: &impl Fn(&str)) {
        let (mut signs, mut pace) = (Signs::of(target), Pace::default());
        loop {
            // Looked at before the attempt, so that nothing is missed.
            signs.look();
            match self.try_once(target).await {
                Ok(()) => break,
                Err(error) => {
                    let story = error.story();
                    if self.remember(index, &story) {
                        told(&story);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pace.pause()) => {}
                () = signs.change() => {}
            }
        }
        self.forget(index);
    }

    /// The same, but no longer than `limit`.
    ///
    /// # Errors
    ///
    /// [`Code::WaitTimeout`] with the last reason of each missing target.
    pub async fn wait_within(&self, limit: Duration, told: impl Fn(&str)) -> Result<()> {
        tokio::time::timeout(limit, self.wait(told))
            .await
            .map_err(|_| {
                let reasons: Vec<String> = self.reasons().iter().flatten().cloned().collect();
                Error::new(
                    Code::WaitTimeout,
                    format!(
                        "not there after {} s: {}",
                        limit.as_secs(),
                        reasons.join("; ")
                    ),
                )
            })
    }

    /// One attempt.
    async fn try_once(&self, target: &Target) -> Result<()> {
        let attempt = async {
            match target {
                Target::Tcp { host, port } => tcp(host, *port).await,
                Target::Http(url) => {
                    let client = http::client(&self.trust)?;
                    answers(&client, url, url, &self.expect).await
                }
                Target::HttpUnix(socket, path) => {
                    let client = http::local_socket_client(socket)?;
                    let url = format!("http://localhost{path}");
                    answers(&client, &url, &target.to_string(), &self.expect).await
                }
                Target::Unix(path) => UnixStream::connect(path)
                    .await
                    .map(drop)
                    .context(Code::Connect, || format!("connecting to {target}")),
                Target::File(path) => tokio::fs::metadata(path)
                    .await
                    .map(drop)
                    .context(Code::Disk, || format!("looking for {}", path.display())),
            }
        };
        tokio::time::timeout(ATTEMPT, attempt)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    Code::Connect,
                    format!("{target} did not answer within {} s", ATTEMPT.as_secs()),
                ))
            })
    }

    fn reasons(&self) -> std::sync::MutexGuard<'_, Vec<Option<String>>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the reason is news.
    fn remember(&self, index: usize, story: &str) -> bool {
        let mut reasons = self.reasons();
        let known = reasons[index].as_deref() == Some(story);
        reasons[index] = Some(story.to_owned());
        !known
    }

    fn forget(&self, index: usize) {
        self.reasons()[index] = None;
    }
}

async fn tcp(host: &str, port: u16) -> Result<()> {
    let mut last = None;
    for address in resolve(host).await? {
        let address = SocketAddr::new(address, port);
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                last = Some(
                    Error::new(Code::Connect, format!("connecting to {address}")).because(error),
                );
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Code::Dns, format!("{host} has no address"))))
}

/// Whether an answer is the expected one; `name` is what it is called.
async fn answers(client: &Client, url: &str, name: &str, expect: &Expect) -> Result<()> {
    let mut reply = client
        .get(url)
        .send()
        .await
        .map_err(|error| http::refused(error, name))?;
    let status = reply.status();
    let wanted = match expect.status.as_slice() {
        [] => status.is_success(),
        listed => listed.contains(&status.as_u16()),
    };
    if !wanted {
        let text = format!("{name} answers {status}");
        return Err(Error::new(Code::Connect, text));
    }
    let Some(text) = &expect.body else {
        return Ok(());
    };
    let mut body = Vec::new();
    let reading = || format!("reading the answer of {name}");
    while let Some(chunk) = reply.chunk().await.context(Code::Connect, reading)? {
        body.extend_from_slice(&chunk);
        if contains(&body, text.as_bytes()) {
            return Ok(());
        }
        if body.len() >= BODY {
            break;
        }
    }
    let text = format!("{name} answers {status} without {text:?}");
    Err(Error::new(Code::Connect, text))
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|part| part == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_round_trip() {
        for text in [
            "tcp://node-1:6443",
            "tcp://[fd00::1]:53",
            "https://10.0.0.10:6443/readyz",
            "unix:///run/containerd/containerd.sock",
            "http+unix:///run/x.sock:/healthz?verbose",
            "file:///etc/knode/node.yaml",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for (bad, why) in [
            ("node-1:6443", "no target"),
            ("tcp://node-1", "no port"),
            ("tcp://node-1:0x1", "no port"),
            ("unix://run/x", "absolute"),
            ("http+unix:///run/x.sock", "no path"),
            ("http+unix://run/x.sock:/", "absolute"),
            ("ftp://x/", "not one of"),
            ("https://", "not one of"),
        ] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
