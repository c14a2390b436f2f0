//! Accepting, choosing, and passing on.

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
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
/// Bytes that are passed on at once.
const BUFFER: usize = 256 * 1024;
/// A pause after an accept that failed, as when there are no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// One buffer for all connections: the thread passes on for one at a time.
type Buffer = Rc<RefCell<Vec<u8>>>;

/// Accepts for ever.
pub(super) async fn accept(listener: TcpListener, shared: &Arc<Shared>) {
    let room = Arc::new(Semaphore::new(most_connections()));
    let buffer: Buffer = Rc::new(RefCell::new(vec![0; BUFFER]));
    let connections = LocalSet::new();
    let accepting = async {
        loop {
            // Never closed, so there is always a permit to come.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((client, _)) => {
                    let (shared, buffer) = (Arc::clone(shared), Rc::clone(&buffer));
                    tokio::task::spawn_local(async move {
                        serve(client, &shared, &buffer).await;
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
async fn serve(client: TcpStream, shared: &Shared, buffer: &Buffer) {
    let candidates = shared.pool().candidates();
    for candidate in candidates {
        match connect(&candidate.addresses).await {
            Ok(server) => {
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
                    outcome = pass_on(&client, &server, buffer) => {
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

/// Both ways, until both have ended or one has failed.
async fn pass_on(client: &TcpStream, server: &TcpStream, buffer: &Buffer) -> io::Result<()> {
    tune(client)?;
    tune(server)?;
    tokio::try_join!(
        one_way(client, server, buffer),
        one_way(server, client, buffer)
    )?;
    Ok(())
}

/// No delays, and a vanished other end is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(BETWEEN);
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(SILENCE))
}

/// Everything that comes, and then the end.
async fn one_way(from: &TcpStream, to: &TcpStream, buffer: &Buffer) -> io::Result<()> {
    loop {
        from.readable().await?;
        // What the other end does not take yet is kept; nothing is otherwise.
        let rest = {
            let mut buffer = buffer.borrow_mut();
            let count = match from.try_read(&mut buffer) {
                Ok(0) => return SockRef::from(to).shutdown(Shutdown::Write),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let sent = send(to, &buffer[..count])?;
            buffer[sent..count].to_vec()
        };
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            to.writable().await?;
            rest = &rest[send(to, rest)?..];
        }
    }
}

/// As much as the socket takes now.
fn send(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match to.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}
