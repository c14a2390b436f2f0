//! Waiting until something is there: the successor of wupiao.
//!
//! The same code serves `knode wait` and the step that waits for the API.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Code, Context, Error, Result};
use crate::sys::http::{self, Trust};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The pause between attempts: under five a second for each target.
const PAUSE: Duration = Duration::from_millis(210);

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
    /// An address that answers with success (status 200 to 299).
    Http(String),
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
            "unix" => path().map(Self::Unix),
            "file" => path().map(Self::File),
            _ => Err(format!(
                "{scheme:?} in {text:?} is not one of tcp, http, https, unix, file"
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
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// Waits for several targets, all of them.
#[derive(Debug)]
pub struct Waiter {
    targets: Vec<Target>,
    trust: Trust,
    /// Why each target is still waited for; none before the first attempt.
    reasons: Mutex<Vec<Option<String>>>,
}

impl Waiter {
    /// A waiter for these targets. `authority` (PEM) replaces the host's
    /// authorities for https.
    pub fn new(targets: Vec<Target>, authority: Option<Vec<u8>>) -> Self {
        let reasons = Mutex::new(vec![None; targets.len()]);
        let trust = Trust {
            only: authority,
            identity: None,
        };
        Self {
            targets,
            trust,
            reasons,
        }
    }

    /// Returns when all targets are there, however long that takes. `told`
    /// hears each new reason for waiting.
    pub async fn wait(&self, told: impl Fn(&str)) {
        let told = &told;
        let waits = self
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| async move {
                while let Err(error) = try_once(target, &self.trust).await {
                    let story = error.story();
                    if self.remember(index, &story) {
                        told(&story);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                self.forget(index);
            });
        join_all(waits).await;
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

/// One attempt.
async fn try_once(target: &Target, trust: &Trust) -> Result<()> {
    let attempt = async {
        match target {
            Target::Tcp { host, port } => tcp(host, *port).await,
            Target::Http(url) => answers(url, trust).await,
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

/// The addresses of a name. The C library's resolver is out of reach for a
/// static binary, and resolv.conf may have changed since the last attempt.
pub(crate) async fn resolve(host: &str) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let doing = || format!("resolving {host}");
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .context(Code::Dns, doing)?;
    let found = resolver.lookup_ip(host).await.context(Code::Dns, doing)?;
    Ok(found.iter().collect())
}

async fn answers(url: &str, trust: &Trust) -> Result<()> {
    let reply = http::client(trust)?
        .get(url)
        .send()
        .await
        .map_err(|error| http::refused(error, url))?;
    if reply.status().is_success() {
        return Ok(());
    }
    Err(Error::new(
        Code::Connect,
        format!("{url} answers {}", reply.status()),
    ))
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
            "file:///etc/knode/node.yaml",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for (bad, why) in [
            ("node-1:6443", "no target"),
            ("tcp://node-1", "no port"),
            ("tcp://node-1:0x1", "no port"),
            ("unix://run/x", "absolute"),
            ("ftp://x/", "not one of"),
            ("https://", "not one of"),
        ] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn a_port_that_opens_ends_the_wait_and_the_reason_is_told_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let target = Target::Tcp {
            host: "127.0.0.1".to_owned(),
            port: address.port(),
        };
        let told = Mutex::new(Vec::new());
        let waiter = Waiter::new(vec![target], None);
        let wait = waiter.wait(|story| told.lock().unwrap().push(story.to_owned()));
        let open = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            tokio::net::TcpListener::bind(address).await.unwrap()
        };
        let (_listener, ()) = tokio::join!(open, wait);
        let told = told.into_inner().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("refused"), "{told:?}");
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait_with_the_reason() {
        let missing = Target::File("/nonexistent/file".into());
        let error = Waiter::new(vec![missing], None)
            .wait_within(Duration::from_millis(300), |_| ())
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::WaitTimeout);
        assert!(
            error.story().contains("/nonexistent/file"),
            "{}",
            error.story()
        );
    }
}
