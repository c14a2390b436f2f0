//! Accepting, and choosing where to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::pass::{Tools, both_ways};
use crate::error::Code;

/// How long a server may take to accept before the next one is tried.
const CONNECT: Duration = Duration::from_secs(2);
/// How long what was sent may stay unacknowledged: then the other end has
/// vanished. Source: tcp(7), TCP_USER_TIMEOUT.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a connection is idle before the kernel asks whether the other end
/// is there, and how long between its questions.
const IDLE: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_secs(2);
/// A pause after an accept that failed, as when there are no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn accept(listener: TcpListener, shared: &Arc<Shared>) {
    let room = Arc::new(Semaphore::new(most_connections()));
    let tools = Tools::new();
    let connections = LocalSet::new();
    let accepting = async {
        loop {
            // Never closed, so there is always a permit to come.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((client, _)) => {
                    let (shared, tools) = (Arc::clone(shared), tools.clone());
                    tokio::task::spawn_local(async move {
                        serve(client, &shared, &tools).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!("balancer: accepting: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    connections.run_until(accepting).await;
}

/// A quarter of the files that the process may have open: a connection needs
/// two, and the rest of the agent some as well.
fn most_connections() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft / 4)
        .unwrap_or(usize::MAX)
        .clamp(64, 16_384)
}

/// One client's connection, from its first byte to its last.
async fn serve(mut client: TcpStream, shared: &Shared, tools: &Tools) {
    let candidates = shared.pool().candidates();
    for candidate in candidates {
        match connect(&candidate.addresses).await {
            Ok(mut server) => {
                let Some(close) = shared.pool().opened(&candidate.name) else {
                    continue;
                };
                let _count = Count {
                    shared,
                    name: &candidate.name,
                    close: &close,
                };
                tokio::select! {
                    () = close.cancelled() => {}
                    outcome = pass_on(&mut client, &mut server, tools) => {
                        if let Err(error) = outcome {
                            tracing::debug!(server = candidate.name, "balancer: a connection ended: {error}");
                        }
                    }
                }
                return;
            }
            Err(error) => {
                let reason = format!("{}: connecting: {error}", Code::Connect);
                shared.change(|pool, now: Instant| pool.failed(&candidate.name, &reason, now));
            }
        }
    }
}

/// Counts a connection out again, however it ends.
struct Count<'a> {
    shared: &'a Shared,
    name: &'a str,
    close: &'a CancellationToken,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.shared.pool().closed(self.name, self.close);
    }
}

async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name is not resolved yet");
    for address in addresses {
        let attempt = tokio::time::timeout(CONNECT, TcpStream::connect(address));
        match attempt.await {
            Ok(Ok(server)) => return Ok(server),
            Ok(Err(error)) => last = error,
            Err(_) => {
                let text = format!("no answer within {} s", CONNECT.as_secs());
                last = io::Error::new(io::ErrorKind::TimedOut, text);
            }
        }
    }
    Err(last)
}

/// Passes on what comes, with no delay and with an eye on vanished ends.
async fn pass_on(client: &mut TcpStream, server: &mut TcpStream, tools: &Tools) -> io::Result<()> {
    tune(client)?;
    tune(server)?;
    both_ways(client, server, tools).await
}

/// No delays, and a vanished other end is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(BETWEEN);
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(SILENCE))
}
