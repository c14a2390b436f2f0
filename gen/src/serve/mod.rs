//! A web server for machines that boot from the network.
//!
//! [`table`] is what there is, [`ledger`] decides who gets a document and
//! [`journal`] remembers it, [`answer`] and [`body`] make answers of both,
//! [`audit`] tells of each.
//!
//! Beneath: hyper and rustls.

pub mod audit;
pub mod ledger;
pub mod table;

mod answer;
mod body;
mod journal;
mod range;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use answer::{Caller, Shared};
use audit::Audit;
pub use journal::Journal;
use journal::Keeper;
use ledger::Terms;
use table::Table;

/// How long a TLS handshake may take, and how long a request's head.
const HEAD: Duration = Duration::from_secs(20);
/// How long nobody may take what is sent.
const TAKEN: Duration = Duration::from_secs(60);
/// How long answers that are on their way may take when the program ends.
const ENDING: Duration = Duration::from_secs(10);
/// So long nobody is let in when the system has no room for more.
const FULL: Duration = Duration::from_millis(50);

/// What to serve, and on what terms.
#[derive(Debug)]
pub struct Service {
    /// What there is.
    pub table: Table,
    /// Who had its document.
    pub journal: Journal,
    /// For how long documents are given.
    pub terms: Terms,
    /// Where requests are told.
    pub audit: Audit,
    /// Where it is served in the clear.
    pub plain: Option<std::net::TcpListener>,
    /// Where it is served over TLS; documents are given there alone then.
    pub tls: Option<(std::net::TcpListener, Arc<ServerConfig>)>,
}

/// Serves until `stop` says so, and then ends what is on its way.
pub async fn serve(service: Service, stop: impl Future<Output = ()>) -> Result<()> {
    let keeper = Keeper::start(service.journal, service.terms)?;
    let shared = Arc::new(Shared {
        table: service.table,
        clerk: keeper.clerk(),
        audit: Arc::new(service.audit),
        only_tls: service.tls.is_some(),
    });
    let (ending, ended) = watch::channel(false);
    let mut doors = JoinSet::new();
    if let Some(listener) = service.plain {
        let door = Door::new(listener, None, &shared, &ended)?;
        doors.spawn(door.keep());
    }
    if let Some((listener, config)) = service.tls {
        let door = Door::new(listener, Some(config), &shared, &ended)?;
        doors.spawn(door.keep());
    }
    drop((shared, ended));
    stop.await;
    ending.send_replace(true);
    while doors.join_next().await.is_some() {}
    // All connections are over, and with them all ways to the journal.
    tokio::task::spawn_blocking(move || keeper.end())
        .await
        .context("ending the journal")?
}

/// The certificate and key of a server, from their files.
///
/// # Errors
///
/// Files that cannot be read, have none, or do not fit together; nothing of
/// the key is told.
pub fn tls_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading the certificate {}", certificate.display()))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("reading the key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("using {} and its key", certificate.display()))?;
    Ok(Arc::new(config))
}

/// A place where connections come in.
struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl Door {
    fn new(
        listener: std::net::TcpListener,
        tls: Option<Arc<ServerConfig>>,
        shared: &Arc<Shared>,
        ended: &watch::Receiver<bool>,
    ) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: TcpListener::from_std(listener).context("taking the listener")?,
            tls: tls.map(TlsAcceptor::from),
            shared: Arc::clone(shared),
            ended: ended.clone(),
        })
    }

    /// Lets connections in until the end, and waits for those that are in.
    async fn keep(self) {
        let mut connections = JoinSet::new();
        let mut ended = self.ended.clone();
        loop {
            tokio::select! {
                () = over(&mut ended) => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let (shared, ended) = (Arc::clone(&self.shared), self.ended.clone());
                        connections.spawn(connection(shared, stream, peer, self.tls.clone(), ended));
                    }
                    // One that went away is nothing; too many open files pass.
                    Err(_) => sleep(FULL).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self.listener);
        let rest = async { while connections.join_next().await.is_some() {} };
        // What is not over then is broken off, and told so.
        drop(timeout(ENDING, rest).await);
        connections.shutdown().await;
    }
}

/// Until the program ends.
async fn over(ended: &mut watch::Receiver<bool>) {
    // Where nobody can say so any more, it has ended.
    drop(ended.wait_for(|ended| *ended).await);
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    ended: watch::Receiver<bool>,
) {
    // Whoever takes nothing goes away by itself; neither option can fail on a
    // connection of TCP, nor is anything lost without them.
    setsockopt(
        &stream,
        sockopt::TcpUserTimeout,
        &(TAKEN.as_millis() as u32),
    )
    .ok();
    stream.set_nodelay(true).ok();
    match tls {
        None => http(shared, stream, peer, false, ended).await,
        Some(acceptor) => {
            // Who does not trust us goes away.
            if let Ok(Ok(stream)) = timeout(HEAD, acceptor.accept(stream)).await {
                http(shared, stream, peer, true, ended).await;
            }
        }
    }
}

async fn http<S>(
    shared: Arc<Shared>,
    stream: S,
    peer: SocketAddr,
    tls: bool,
    mut ended: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut caller = Ended {
        caller: Caller {
            peer,
            tls,
            pending: Mutex::default(),
        },
        shared: &shared,
        taken: false,
    };
    let taken = {
        let (shared, caller) = (&*shared, &caller.caller);
        let service = service_fn(move |request| async move {
            Ok::<_, Infallible>(answer::answer(shared, caller, &request).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            done = connection.as_mut() => done.is_ok(),
            () = over(&mut ended) => {
                connection.as_mut().graceful_shutdown();
                connection.await.is_ok()
            }
        }
    };
    caller.taken = taken;
}

/// Tells how a connection ended, also where it is broken off at the end of the
/// program.
struct Ended<'s> {
    caller: Caller,
    shared: &'s Shared,
    taken: bool,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.caller.end(self.shared, self.taken);
    }
}
