//! Asks a service for its health.

use std::time::Duration;

use super::place::{self, Place};
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::sys::cri;
use crate::sys::http::{self, Client};
use crate::sys::kept::{self, Origin};
use crate::sys::root::Root;
use units::node_config::Service;
use units::paths;

/// How long the API server may take to say that it is there.
const API: Duration = Duration::from_secs(5);
/// So much is told of what a service says to be wrong.
const REASON: usize = 300;

/// Asks one service; its connection is kept between two questions.
#[derive(Debug)]
pub struct Probe {
    service: Service,
    client: Client,
    /// Where it is asked, and what that was read from: configuration changes
    /// rarely, and understanding it costs more than asking.
    known: Option<(Origin, Option<Asked>)>,
}

/// A [`Place`], with who asks there.
#[derive(Debug)]
enum Asked {
    Url(Client, String),
    Runtime(cri::Runtime),
}

impl Probe {
    /// For a service; `client` is one of [`http::health_client`].
    pub fn new(service: Service, client: Client) -> Self {
        Self {
            service,
            client,
            known: None,
        }
    }

    /// Whether the service says that it is healthy; true where it cannot be
    /// asked.
    ///
    /// # Errors
    ///
    /// [`Code::Unhealthy`] with its answer, or what kept it from answering;
    /// [`Code::Disk`], [`Code::ConfigInvalid`], [`Code::IdentityCert`]: its
    /// configuration does not tell where to ask.
    pub async fn ask(&mut self, machine: &Machine, limit: Duration) -> Result<()> {
        let service = self.service;
        let Some(place) = self.place(&machine.root)? else {
            return Ok(());
        };
        let asked = async {
            match place {
                Asked::Url(client, url) => get(client, url).await,
                Asked::Runtime(runtime) => runtime.version().await.map(|_| ()),
            }
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let text = format!("{service} does not answer within {limit:?}");
                Err(Error::new(Code::Unhealthy, text))
            }
        }
    }

    fn place(&mut self, root: &Root) -> Result<Option<&Asked>> {
        let text = match place::file(self.service) {
            Some(file) => root.read_to_string(file)?,
            None => String::new(),
        };
        let origin = kept::origin([text.as_bytes()]);
        if self
            .known
            .as_ref()
            .is_none_or(|(known, _)| *known != origin)
        {
            self.known = None;
            let asked = match place::of(self.service, &text)? {
                None => None,
                Some(Place::Url(url)) => Some(Asked::Url(self.client.clone(), url)),
                Some(Place::Docker) => {
                    let client = http::local_socket_client(&root.path(paths::DOCKER_SOCKET))?;
                    Some(Asked::Url(client, place::DOCKER_PING.to_owned()))
                }
                Some(Place::Cri) => {
                    let socket = root.path(paths::CONTAINERD_SOCKET);
                    Some(Asked::Runtime(cri::Runtime::at(socket)?))
                }
            };
            self.known = Some((origin, asked));
        }
        Ok(self.known.as_ref().and_then(|(_, asked)| asked.as_ref()))
    }
}

async fn get(client: &Client, url: &str) -> Result<()> {
    let answer = client.get(url).send().await;
    let answer = answer.map_err(|error| http::refused(error, url))?;
    let status = answer.status();
    if status.is_success() {
        // Read to its end, the connection can be used again.
        let read = answer.bytes().await;
        return read.map(|_| ()).map_err(|error| http::refused(error, url));
    }
    let text = answer.text().await.unwrap_or_default();
    let failing: Vec<&str> = text.lines().filter(|l| l.starts_with("[-]")).collect();
    let reason = if failing.is_empty() {
        text.trim().chars().take(REASON).collect()
    } else {
        failing.join(" ")
    };
    let text = format!("{url} answers {status}: {reason}");
    Err(Error::new(Code::Unhealthy, text))
}

/// Whether the API server that the kubelet uses is ready.
pub async fn api_answers(machine: &Machine) -> bool {
    let asked = async { machine.anonymous_api()?.ready().await };
    matches!(tokio::time::timeout(API, asked).await, Ok(Ok(())))
}
