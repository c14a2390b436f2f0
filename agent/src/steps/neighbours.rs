//! What this machine verified is offered to its neighbours, so that a rack
//! downloads once. Their own checksums are what they believe.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::name;
use crate::error::{Code, Error, Result};
use crate::fetch::neighbours;
use crate::graph::Step;
use crate::machine::{Machine, known};
use crate::sys::clock;
use crate::sys::offer::{self, Offer};
use crate::sys::store::Store;
use units::node_config::Neighbours as Settings;

/// How often it is looked whether it still listens where it should.
const LOOK: Duration = Duration::from_secs(60);

pub struct Neighbours {
    settings: Settings,
    listening: Mutex<Listening>,
}

/// Where it listens, and who serves there.
#[derive(Default)]
struct Listening {
    addresses: Vec<IpAddr>,
    servers: JoinSet<()>,
}

impl Neighbours {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            listening: Mutex::default(),
        }
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, Listening> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Step<Machine> for Neighbours {
    fn name(&self) -> &'static str {
        name::NEIGHBOURS
    }

    fn after(&self) -> &[&'static str] {
        &[name::ADDRESS]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let (addresses, port) = (known(&machine.addresses).await, self.settings.port);
            let told = format!("offers its downloads at port {port}");
            {
                let listening = self.listening();
                let whole = listening.servers.len() == addresses.len();
                if whole && listening.addresses == addresses {
                    return Ok(told);
                }
            }
            // Of other addresses nobody is to hear.
            let mut before = std::mem::take(&mut *self.listening());
            before.servers.shutdown().await;
            let offer = Arc::new(offered(machine));
            let mut servers = JoinSet::new();
            for address in &addresses {
                let address = SocketAddr::new(*address, port);
                let listener = offer::listen(address).await.map_err(|error| {
                    Error::new(Code::Port, format!("listening at {address}")).because(error)
                })?;
                servers.spawn(offer::serve(listener, Arc::clone(&offer)));
            }
            *self.listening() = Listening { addresses, servers };
            Ok(told)
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut addresses = machine.addresses.subscribe();
            // What is known already is no news.
            addresses.borrow_and_update();
            tokio::select! {
                _ = addresses.changed() => {}
                () = clock::pause(LOOK) => {}
            }
        })
    }
}

/// Only what node.yaml names.
fn offered(machine: &Machine) -> Offer {
    let artifacts = machine.config.artifacts.iter();
    let offered = artifacts.filter_map(|artifact| {
        let file: PathBuf = machine.root.path(Store::download(artifact)?);
        Some((neighbours::path(&artifact.digest), file))
    });
    offered.collect()
}
