//! Asking each server how it is.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Shared;
use super::pool::Health;
use crate::error::{Code, Error, Result};
use crate::sys::api;
use crate::sys::http::{self, Client};
use crate::wait::resolve;
use units::paths;

/// Between two looks at a healthy server.
const HEALTHY: Duration = Duration::from_secs(4);
/// At one that is out, and at one that is out for long.
const OUT: Duration = Duration::from_millis(750);
const LONG_OUT: Duration = Duration::from_millis(1500);
const LONG: Duration = Duration::from_secs(120);
/// To the second look, after one that changes something.
const SECOND: Duration = Duration::from_millis(250);

/// Looks at all servers for ever.
pub(super) async fn all(shared: &Arc<Shared>) {
    let mut tasks: HashMap<String, Task> = HashMap::new();
    loop {
        let names = shared.pool().names();
        tasks.retain(|name, _| names.iter().any(|(known, _)| known == name));
        for (name, look) in names {
            tasks.entry(name.clone()).or_insert_with(|| {
                let shared = Arc::clone(shared);
                Task(tokio::spawn(
                    async move { one(&name, &look, &shared).await },
                ))
            });
        }
        shared.listed.notified().await;
    }
}

/// Ends with its handle.
struct Task(JoinHandle<Infallible>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn one(name: &str, look: &Notify, shared: &Shared) -> Infallible {
    let mut asker = Asker::default();
    loop {
        let outcome = asker.ask(name, shared).await;
        let before = shared.pool().health(name);
        shared.change(|pool, now| match &outcome {
            Ok(()) => pool.succeeded(name),
            Err(error) => {
                let reason = format!("{}: {}", error.code(), error.story());
                pool.failed(name, &reason, now);
            }
        });
        let pause = match (shared.pool().health(name), before, &outcome) {
            (Some((Health::Healthy, _)), ..) => HEALTHY,
            // It went out just now, or is about to come back.
            (_, Some((Health::Healthy | Health::Unknown, _)), _) | (.., Ok(())) => SECOND,
            (Some((_, Some(since))), ..) if since.elapsed() > LONG => LONG_OUT,
            _ => OUT,
        };
        // Many machines must not ask at the same moment.
        let pause = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = look.notified() => {}
        }
    }
}

/// One server's client; its connection is kept while all is well.
#[derive(Default)]
struct Asker {
    client: Option<Client>,
    authority: Vec<u8>,
    addresses: Vec<SocketAddr>,
}

impl Asker {
    async fn ask(&mut self, name: &str, shared: &Shared) -> Result<()> {
        let outcome = self.try_ask(name, shared).await;
        if outcome.is_err() {
            // The next look has a connection of its own.
            self.client = None;
        }
        outcome
    }

    async fn try_ask(&mut self, name: &str, shared: &Shared) -> Result<()> {
        let (host, port) = split(name)?;
        let addresses = match name.parse::<SocketAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.look_up(host, port).await?,
        };
        let authority = shared.root.read(paths::CA_CERT)?;
        if addresses != self.addresses || authority != self.authority {
            shared.change(|pool, _| pool.resolved(name, addresses.clone()));
            (self.addresses, self.authority) = (addresses, authority);
            self.client = None;
        }
        let client = match self.client.take() {
            Some(client) => client,
            None => http::probe_client(&self.authority, host, &self.addresses)?,
        };
        let outcome = api::alive(&client, &format!("https://{name}")).await;
        self.client = Some(client);
        outcome
    }

    /// A name server that is away does not take what is known with it.
    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
        match resolve(host).await {
            Ok(found) if !found.is_empty() => {
                let mut found: Vec<SocketAddr> =
                    found.iter().map(|ip| (*ip, port).into()).collect();
                found.sort();
                Ok(found)
            }
            Err(error) if self.addresses.is_empty() => Err(error),
            _ => Ok(self.addresses.clone()),
        }
    }
}

fn split(name: &str) -> Result<(&str, u16)> {
    let parts = name
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.ok_or_else(|| {
        Error::new(
            Code::ConfigInvalid,
            format!("{name:?} is no HOST:PORT of an API server"),
        )
    })
}
