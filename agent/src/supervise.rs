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
mod way_back;

use std::future::pending;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::error::Error;
use crate::machine::Machine;
use crate::steps::services::connect;
use crate::sys::http;

/// The agent's own unit.
const KNODE: &str = "knode.service";

/// Watches every service of the machine, for ever.
pub async fn run(machine: Arc<Machine>) {
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
    let board = warden::Board::default();
    for service in &machine.config.services {
        let (machine, board) = (Arc::clone(&machine), board.clone());
        wardens.spawn(warden::watch(*service, machine, board, client.clone()));
    }
    // A warden never ends; one that panicked takes the agent with it, and
    // systemd starts it anew.
    if wardens.join_next().await.is_none() {
        pending::<()>().await;
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
