//! The machine's own way to all API servers: one port of loopback, behind
//! which a healthy one is chosen for each connection (B7).
//!
//! Bytes are passed on as they are, so identities and certificates are the
//! client's and the server's affair. Each server's `/readyz` is asked, and
//! where a connection fails the next server is tried before the client is
//! disturbed. Connections to a server that is gone are closed, so that watches
//! move on (F16).
//!
//! It has a thread of its own: what steps do never delays a client.

mod forward;
pub mod listing;
mod pass;
mod pool;
mod probe;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{Code, Context, Result};
use crate::sys::root::Root;
use pool::Pool;
pub use pool::{Health, ServerReport};

/// A balancer at work; dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Balancer {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What its tasks share.
#[derive(Debug)]
struct Shared {
    pool: Mutex<Pool>,
    /// What is told of the servers, whenever that changes.
    reports: watch::Sender<Vec<ServerReport>>,
    /// The list of servers has changed.
    listed: Notify,
    /// Where the cluster's authority is.
    root: Root,
}

impl Balancer {
    /// Accepts on `listener` from now on, and passes on to `servers`
    /// (`HOST:PORT`), whose certificates are judged by the authority below
    /// `root`.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the kernel gives no thread or event queue.
    pub fn start(
        listener: std::net::TcpListener,
        servers: &[String],
        root: Root,
    ) -> Result<Balancer> {
        let doing = || "starting the balancer".to_owned();
        let pool = Pool::new(servers);
        let shared = Arc::new(Shared {
            reports: watch::Sender::new(pool.report()),
            pool: Mutex::new(pool),
            listed: Notify::new(),
            root,
        });
        listener.set_nonblocking(true).context(Code::Disk, doing)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(Code::Disk, doing)?;
        let stop = CancellationToken::new();
        let (stopped, work) = (stop.clone(), Arc::clone(&shared));
        let run = async |listener, work: Arc<Shared>, stopped: CancellationToken| {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!("the balancer has no port: {error}"),
            };
            tokio::select! {
                () = forward::accept(listener, &work) => {}
                () = probe::all(&work) => {}
                () = stopped.cancelled() => {}
            }
        };
        std::thread::Builder::new()
            .name("balancer".to_owned())
            .spawn(move || runtime.block_on(run(listener, work, stopped)))
            .context(Code::Disk, doing)?;
        Ok(Balancer {
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// The servers that are found in the cluster; those it was started with
    /// stay. An empty list is no news.
    pub fn found(&self, servers: &[String]) {
        if self.shared.change(|pool, _| pool.found(servers)) {
            self.shared.listed.notify_one();
        }
    }

    /// The servers that are known beforehand are these now; connections to
    /// others are closed.
    pub fn known(&self, servers: &[String]) {
        if self.shared.change(|pool, _| pool.known(servers)) {
            self.shared.listed.notify_one();
        }
    }

    /// This machine's addresses, where it has an API server of its own: that
    /// one comes first while it is healthy.
    pub fn prefer(&self, own: &[IpAddr]) {
        self.shared.change(|pool, _| pool.prefer(own));
    }

    /// What is told of the servers, now and whenever that changes.
    pub fn reports(&self) -> watch::Receiver<Vec<ServerReport>> {
        self.shared.reports.subscribe()
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the pool, and tells what came of it.
    fn change<T>(&self, change: impl FnOnce(&mut Pool, Instant) -> T) -> T {
        let mut pool = self.pool();
        let outcome = change(&mut pool, Instant::now());
        let report = pool.report();
        self.reports.send_if_modified(|told| {
            let news = *told != report;
            *told = report;
            news
        });
        outcome
    }
}
