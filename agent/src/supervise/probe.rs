//! Asks a service for its health.

use std::path::Path;
use std::time::Duration;

use super::place::{self, Place};
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::sys::api::Api;
use crate::sys::http::{self, Client};
use crate::sys::{cri, kubeconfig::Kubeconfig};
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
}

impl Probe {
    /// For a service; `client` is one of [`http::health_client`].
    pub fn new(service: Service, client: Client) -> Self {
        Self { service, client }
    }

    /// Whether the service says that it is healthy; true where it cannot be
    /// asked.
    ///
    /// # Errors
    ///
    /// [`Code::Unhealthy`] with its answer, or what kept it from answering.
    pub async fn ask(&self, machine: &Machine, limit: Duration) -> Result<()> {
        let Some(place) = place::of(self.service, &machine.root)? else {
            return Ok(());
        };
        let asked = async {
            match &place {
                Place::Url(url) => get(&self.client, url).await,
                Place::Docker => {
                    let socket = machine.root.path(Path::new(paths::DOCKER_SOCKET));
                    let client = http::local_socket_client(&socket)?;
                    get(&client, place::DOCKER_PING).await
                }
                Place::Cri => {
                    let socket = machine.root.path(Path::new(paths::CONTAINERD_SOCKET));
                    cri::version(&socket).await.map(|_| ())
                }
            }
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let text = format!("{} does not answer within {limit:?}", self.service);
                Err(Error::new(Code::Unhealthy, text))
            }
        }
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
    let asked = async {
        let text = machine.root.read_to_string(paths::KUBELET_KUBECONFIG)?;
        let server = Kubeconfig::parse(&text)?.server;
        let authority = machine.root.read(paths::CA_CERT)?;
        Api::new(&server, &authority, None)?.ready().await
    };
    matches!(tokio::time::timeout(API, asked).await, Ok(Ok(())))
}
