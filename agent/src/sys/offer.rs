//! Files offered to others over HTTP/1.1, read-only: a path is either one of
//! those that are known beforehand, or there is nothing (RFC 9110, RFC 9112).
//!
//! One request a connection, few connections, and nobody waits for long: who
//! asks has other places to go to.

use std::collections::BTreeMap;
use std::io::{self, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many are served at once.
const AT_ONCE: usize = 8;
/// How many more are told to come back, before connections are closed unheard.
const TURNED_AWAY: usize = 32;
/// The longest head of a request, bytes.
const HEAD: usize = 4096;
/// How long a request may take to arrive.
const ASKING: Duration = Duration::from_secs(5);
/// How long the next bytes may take to be accepted.
const TAKING: Duration = Duration::from_secs(15);
/// Bytes that are read and sent at once.
const CHUNK: usize = 64 * 1024;

/// What is offered: paths of URLs, and the files behind them. A file may not be
/// there yet.
pub type Offer = BTreeMap<String, PathBuf>;

/// Listens at an address.
///
/// # Errors
///
/// The kernel's: the address is in use, or none of this machine's.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, offer: Arc<Offer>) {
    let serving = Arc::new(Semaphore::new(AT_ONCE));
    let open = Arc::new(Semaphore::new(AT_ONCE + TURNED_AWAY));
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("a neighbour was not heard: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(held) = Arc::clone(&open).try_acquire_owned() else {
            continue;
        };
        let (serving, offer) = (Arc::clone(&serving), Arc::clone(&offer));
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &serving, &offer).await {
                tracing::debug!("a neighbour went away: {error}");
            }
            drop(held);
        });
    }
}

async fn converse(mut stream: TcpStream, serving: &Semaphore, offer: &Offer) -> io::Result<()> {
    let head = timeout(ASKING, head(&mut stream)).await??;
    let Some(asked) = Asked::parse(&head) else {
        return say(&mut stream, "400 Bad Request", "").await;
    };
    if !asked.reads {
        return say(
            &mut stream,
            "405 Method Not Allowed",
            "Allow: GET, HEAD\r\n",
        )
        .await;
    }
    let Some(path) = offer.get(asked.path) else {
        return say(&mut stream, "404 Not Found", "").await;
    };
    let Ok(_place) = serving.try_acquire() else {
        return say(&mut stream, "503 Service Unavailable", "Retry-After: 5\r\n").await;
    };
    let mut file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return say(&mut stream, "404 Not Found", "").await;
        }
        Err(error) => {
            tracing::warn!("offering {}: {error}", path.display());
            return say(&mut stream, "500 Internal Server Error", "").await;
        }
    };
    let size = file.metadata().await?.len();
    // The same path has the same bytes for ever: a tag says no more.
    let tag = format!("\"{}\"", asked.path);
    let start = match asked.start {
        Some(start) if asked.if_range.is_none_or(|wanted| wanted == tag) => start,
        _ => 0,
    };
    if start > 0 && start >= size {
        let range = format!("Content-Range: bytes */{size}\r\n");
        return say(&mut stream, "416 Range Not Satisfiable", &range).await;
    }
    let (status, range) = match start {
        0 => ("200 OK", String::new()),
        _ => (
            "206 Partial Content",
            format!("Content-Range: bytes {start}-{}/{size}\r\n", size - 1),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\n\
         {range}Accept-Ranges: bytes\r\nETag: {tag}\r\nConnection: close\r\n\r\n",
        size - start
    );
    send(&mut stream, head.as_bytes()).await?;
    if asked.head_alone {
        return stream.shutdown().await;
    }
    file.seek(SeekFrom::Start(start)).await?;
    let mut left = size - start;
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        send(&mut stream, &buffer[..read]).await?;
        left = left.saturating_sub(read as u64);
    }
    stream.shutdown().await
}

/// Reads until the empty line; what comes behind it is of no interest.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() >= HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}

async fn say(stream: &mut TcpStream, status: &str, more: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{more}Connection: close\r\n\r\n");
    send(stream, text.as_bytes()).await?;
    stream.shutdown().await
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    timeout(TAKING, stream.write_all(bytes)).await?
}

/// A request, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    path: &'a str,
    /// GET or HEAD.
    reads: bool,
    head_alone: bool,
    /// The first byte that is wanted, of `Range: bytes=N-`. Any other range is
    /// ignored, as RFC 9110, 14.2 allows.
    start: Option<u64>,
    if_range: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn parse(head: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, path, version) = (words.next()?, words.next()?, words.next()?);
        if !version.starts_with("HTTP/1.") || words.next().is_some() {
            return None;
        }
        let mut asked = Self {
            path,
            reads: matches!(method, "GET" | "HEAD"),
            head_alone: method == "HEAD",
            start: None,
            if_range: None,
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("range") {
                let first = value
                    .strip_prefix("bytes=")
                    .and_then(|v| v.strip_suffix('-'));
                asked.start = first.and_then(|first| first.parse().ok());
            } else if name.eq_ignore_ascii_case("if-range") {
                asked.if_range = Some(value);
            }
        }
        Some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_nonsense_is_not() {
        let parse = |text: &'static str| Asked::parse(text.as_bytes());
        let asked = parse("GET /sha256/ab HTTP/1.1\r\nHost: a\r\nRANGE: bytes=5-\r\n\r\n");
        let asked = asked.unwrap();
        assert_eq!((asked.path, asked.start), ("/sha256/ab", Some(5)));
        assert!(asked.reads && !asked.head_alone);
        let other =
            parse("HEAD / HTTP/1.0\r\nRange: bytes=5-9\r\nIf-Range: \"x\"\r\n\r\n").unwrap();
        assert_eq!((other.start, other.if_range), (None, Some("\"x\"")));
        assert!(other.head_alone);
        assert!(!parse("POST / HTTP/1.1\r\n\r\n").unwrap().reads);
        for text in [
            "",
            "GET /\r\n\r\n",
            "GET / FTP/1\r\n\r\n",
            "GET / HTTP/1.1\r\nx\r\n\r\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
