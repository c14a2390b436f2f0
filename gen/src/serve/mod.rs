//! A web server for machines that boot from the network.
//!
//! [`table`] is what there is, [`catalogue`] whether it is what was built.
//! [`ledger`] decides who gets a document, [`journal`] remembers it, and a
//! thread of its own keeps both ([`keeper`]). [`crowd`] says who is let in,
//! [`connection`] serves those with what [`answer`] and [`body`] make, [`audit`]
//! tells of each.
//!
//! Beneath: hyper and rustls.

pub mod audit;
pub mod catalogue;
pub mod ledger;
pub mod table;

mod answer;
mod body;
mod connection;
mod crowd;
mod journal;
mod keeper;
mod range;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use answer::Shared;
use audit::{Asked, Audit, Outcome};
use crowd::{Crowd, OF_ONE, Refused};
pub use journal::Journal;
use keeper::Keeper;
use ledger::Terms;
use table::Table;

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
    /// How many connections there may be at once.
    pub connections: usize,
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
    let crowd = Arc::new(Crowd::new(service.connections, OF_ONE));
    let (ending, ended) = watch::channel(false);
    let mut doors = JoinSet::new();
    if let Some(listener) = service.plain {
        let door = Door::new(listener, None, &shared, &crowd, &ended)?;
        doors.spawn(door.keep());
    }
    if let Some((listener, config)) = service.tls {
        let door = Door::new(listener, Some(config), &shared, &crowd, &ended)?;
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
    crowd: Arc<Crowd>,
    ended: watch::Receiver<bool>,
}

impl Door {
    fn new(
        listener: std::net::TcpListener,
        tls: Option<Arc<ServerConfig>>,
        shared: &Arc<Shared>,
        crowd: &Arc<Crowd>,
        ended: &watch::Receiver<bool>,
    ) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: TcpListener::from_std(listener).context("taking the listener")?,
            tls: tls.map(TlsAcceptor::from),
            shared: Arc::clone(shared),
            crowd: Arc::clone(crowd),
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
                knocked = self.knock() => match knocked {
                    Some((stream, peer, room)) => self.enter(stream, peer, room, &mut connections),
                    // One that went away is nothing; too many open files pass.
                    None => sleep(FULL).await,
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

    /// The next who knocks, once there is room.
    async fn knock(&self) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let room = self.crowd.room().await?;
        let (stream, peer) = self.listener.accept().await.ok()?;
        Some((stream, peer, room))
    }

    fn enter(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        room: OwnedSemaphorePermit,
        connections: &mut JoinSet<()>,
    ) {
        let address = peer.ip().to_canonical();
        match self.crowd.enter(address, room) {
            Ok(place) => {
                let (shared, ended) = (Arc::clone(&self.shared), self.ended.clone());
                let tls = self.tls.clone();
                connections.spawn(async move {
                    connection::serve(shared, stream, peer, tls, ended).await;
                    drop(place);
                });
            }
            Err(Refused::Known) => {}
            Err(Refused::News) => {
                let asked = Asked {
                    peer: SocketAddr::new(address, peer.port()),
                    what: "connection".to_owned(),
                    machine: None,
                };
                let told = format!("refused: {address} has {OF_ONE} others");
                let outcome = Outcome {
                    status: None,
                    bytes: 0,
                    told,
                };
                self.shared.audit.tell(&asked, &outcome);
            }
        }
    }
}

/// Until the program ends.
async fn over(ended: &mut watch::Receiver<bool>) {
    // Where nobody can say so any more, it has ended.
    drop(ended.wait_for(|ended| *ended).await);
}
