//! A connection, from its first byte until it is known what arrived.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::answer::{self, Caller, Shared};

/// How long a TLS handshake may take, and how long a request's head, from the
/// end of the answer before it.
const HEAD: Duration = Duration::from_secs(20);
/// How long nobody may take what is sent.
const TAKEN: Duration = Duration::from_secs(60);
/// After so long without a word the kernel knows that all was taken, or has
/// given up.
const KNOWN: Duration = Duration::from_secs(70);
/// The longest head of a request; and so much waits to be taken before more is
/// read from a file.
const BUFFER: usize = 16 << 10;

/// Serves a connection to its end.
pub async fn serve(
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
    mut stream: S,
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
    let sent = {
        let (shared, caller) = (&*shared, &caller.caller);
        let service = service_fn(move |request| async move {
            Ok::<_, Infallible>(answer::answer(shared, caller, &request).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(&mut stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            done = connection.as_mut() => done.is_ok(),
            () = super::over(&mut ended) => {
                connection.as_mut().graceful_shutdown();
                connection.await.is_ok()
            }
        }
    };
    caller.taken = sent && caller.caller.awaits() && taken(&mut stream).await;
}

/// Whether the other end took all that was sent: it closes then. Until it does,
/// all of it may be in the kernel's hands still, and on its way nowhere.
async fn taken(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut rest = [0; 1024];
    let closed = async {
        loop {
            match stream.read(&mut rest).await {
                Ok(0) => return true,
                // What else it asks for is not answered any more.
                Ok(_) => {}
                // TLS without a farewell; what was sent was taken all the same.
                Err(error) => return error.kind() == io::ErrorKind::UnexpectedEof,
            }
        }
    };
    timeout(KNOWN, closed).await.unwrap_or(true)
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
