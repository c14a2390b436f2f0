//! knode supervises: what runs on this machine is asked for its health, what
//! does not answer for long is restarted, and what is known of it is kept
//! before (P32, P34, F16 to F18, F27, F29).
//!
//! systemd restarts what ends. It cannot see what lives and does not work;
//! that is for here. One task a service ([`warden`]) carries out what pure
//! parts decide: [`health`] when, [`order`] which, [`crash`] whether it ends
//! over and over, [`way_back`] whether a new program gives way to the last good
//! one.

pub mod crash;
pub mod evidence;
pub mod health;
pub mod order;
pub mod place;
pub mod probe;
mod warden;
pub(crate) mod way_back;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::error::Error;
use crate::machine::Machine;
use crate::steps::services::connect;
use crate::sys::http;
use units::node_config::Service;

/// The agent's own unit.
const KNODE: &str = "knode.service";

/// Watches every service of the machine, for ever. Where the machine gets
/// another node.yaml, services that stay are watched on with all that is known
/// of them.
pub async fn run(mut machines: watch::Receiver<Arc<Machine>>) {
    let machine = Arc::clone(&machines.borrow_and_update());
    if let Err(error) = evidence::sweep(&machine.root) {
        tracing::warn!(code = %error.code(), "old evidence stays: {}", error.story());
    }
    let client = match http::health_client() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(code = %error.code(), "nothing is watched: {}", error.story());
            return pending().await;
        }
    };
    let mut wardens = JoinSet::new();
    wardens.spawn(forgiven());
    let mut watched: BTreeMap<Service, AbortHandle> = BTreeMap::new();
    let board = warden::Board::default();
    loop {
        let machine = Arc::clone(&machines.borrow_and_update());
        let services: BTreeSet<Service> = machine.config.services.iter().copied().collect();
        watched.retain(|service, warden| {
            let stays = services.contains(service);
            if !stays {
                warden.abort();
                board.forget(*service);
            }
            stays
        });
        let names = services.iter().map(ToString::to_string).collect();
        machine.status.only_services(&names);
        for service in services {
            watched.entry(service).or_insert_with(|| {
                let (machines, board) = (machines.clone(), board.clone());
                wardens.spawn(warden::watch(service, machines, board, client.clone()))
            });
        }
        loop {
            tokio::select! {
                changed = machines.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return pending().await,
                },
                Some(ended) = wardens.join_next() => {
                    // A warden never ends by itself; one that panicked takes the
                    // agent with it, and systemd starts it anew.
                    if ended.is_err_and(|error| error.is_panic()) {
                        return;
                    }
                }
            }
        }
    }
}

/// knode's own restarts are forgiven as those of its services are.
async fn forgiven() {
    tokio::time::sleep(warden::FORGIVEN).await;
    let reset = async { Ok::<_, Error>(connect().await?.reset_failed(KNODE).await) };
    match reset.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("{error}"),
        Err(error) => tracing::debug!(code = %error.code(), "{}", error.story()),
    }
    pending().await
}
