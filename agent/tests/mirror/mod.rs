//! A mirror that does exactly as a test says, down to the byte; HTTP/1.1, one
//! request a connection.

// Not every test uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use knode::fetch::{Board, Fetcher, Transfer};
use knode::sys::http::Limits;
use knode::sys::root::Root;
use knode::sys::store::{Store, sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use units::node_config::{Artifact, ArtifactFile, Packing};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its path.
    pub path: String,
    /// How many for this path were before it.
    pub before: usize,
    /// The first byte of its range.
    pub range: Option<usize>,
    /// Its If-Range.
    pub if_range: Option<String>,
}

/// What comes after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The connection closes, whatever was promised.
    Close,
    /// Nothing, for ever.
    Hang,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    /// What is sent of the body.
    pub body: Vec<u8>,
    /// What Content-Length promises; without one the body ends with the
    /// connection.
    pub promised: Option<usize>,
    /// Sent so many bytes at a time, with this pause.
    pub pace: Option<(usize, Duration)>,
    pub then: Then,
}

impl Answer {
    /// Only a status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            promised: Some(0),
            pace: None,
            then: Then::Close,
        }
    }

    /// All of these bytes.
    pub fn whole(body: &[u8]) -> Self {
        Self {
            body: body.to_vec(),
            promised: Some(body.len()),
            ..Self::status(200)
        }
    }

    /// As a good mirror answers: the range that was asked for, if its tag
    /// still holds.
    pub fn good(body: &[u8], tag: &str, asked: &Asked) -> Self {
        let same = asked.if_range.as_deref().is_none_or(|wanted| wanted == tag);
        let mut answer = match asked.range.filter(|_| same) {
            Some(first) if first < body.len() => {
                let mut answer = Self::whole(&body[first..]);
                answer.status = 206;
                let last = body.len() - 1;
                answer
                    .header(format!(
                        "Content-Range: bytes {first}-{last}/{}",
                        body.len()
                    ))
                    .clone()
            }
            Some(_) => Self::status(416),
            None => Self::whole(body),
        };
        answer.header(format!("ETag: {tag}"));
        answer
    }

    pub fn header(&mut self, header: impl Into<String>) -> &mut Self {
        self.headers.push(header.into());
        self
    }

    /// Only so many bytes of what was promised.
    pub fn cut(mut self, at: usize, then: Then) -> Self {
        self.body.truncate(at);
        self.then = then;
        self
    }
}

/// The server; it ends with the runtime.
pub struct Mirror {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Mirror {
    pub async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        // Another test may have been first; either way there is one provider.
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (books, answer) = (Arc::clone(&log), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (books, answer) = (Arc::clone(&books), Arc::clone(&answer));
                tokio::spawn(async move {
                    // The client may go away at any byte.
                    drop(serve(stream, &books, &*answer).await);
                });
            }
        });
        Self { address, log }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// Where each request began.
    pub fn ranges(&self) -> Vec<Option<usize>> {
        self.asked().iter().map(|asked| asked.range).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    answer: &(impl Fn(&Asked) -> Answer + ?Sized),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let answer = {
        let mut log = log.lock().unwrap();
        let asked = Asked {
            before: log.iter().filter(|asked| asked.path == path).count(),
            path,
            range: headers.get("range").map(|range| {
                let first = range.strip_prefix("bytes=").unwrap();
                first.strip_suffix('-').unwrap().parse().unwrap()
            }),
            if_range: headers.get("if-range").cloned(),
        };
        log.push(asked.clone());
        answer(&asked)
    };
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    if let Some(promised) = answer.promised {
        head += &format!("Content-Length: {promised}\r\n");
    }
    for header in &answer.headers {
        head += &format!("{header}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).await?;
    let (size, pause) = answer.pace.unwrap_or((usize::MAX, Duration::ZERO));
    for chunk in answer.body.chunks(size) {
        stream.write_all(chunk).await?;
        if !pause.is_zero() {
            stream.flush().await?;
            tokio::time::sleep(pause).await;
        }
    }
    match answer.then {
        Then::Close => stream.shutdown().await,
        Then::Hang => std::future::pending().await,
    }
}

/// 3 MB that do not repeat.
pub fn content() -> Vec<u8> {
    (0..750_000_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// The content as one plain file, `/opt/bin/NAME`.
pub fn plain(name: &str, urls: Vec<String>) -> Artifact {
    Artifact {
        name: name.to_owned(),
        version: "1".to_owned(),
        urls,
        digest: sha256(&content()),
        size: Some(content().len() as u64),
        packing: Packing::Plain,
        files: vec![ArtifactFile {
            member: None,
            path: format!("/opt/bin/{name}"),
        }],
    }
}

/// Waiting is short in tests.
pub const LIMITS: Limits = Limits {
    stall: Duration::from_millis(300),
    floor: 20_000,
    deadline: None,
};

/// A machine's store in a folder.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub fetcher: Fetcher,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(LIMITS)
    }

    pub fn with(limits: Limits) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Root::new(folder.path()));
        store.sweep().unwrap();
        let fetcher = Fetcher::new(store, limits);
        Self { folder, fetcher }
    }

    pub fn store(&self) -> &Store {
        self.fetcher.store()
    }

    /// One round of one artifact.
    pub async fn fetch(&self, artifact: &Artifact) -> knode::error::Result<u64> {
        let board = Board::new(std::slice::from_ref(artifact));
        let mut transfer = Transfer::new(artifact);
        let round = transfer.round(&self.fetcher, &board, None).await;
        round.map_err(|failed| failed.error)
    }

    /// What the store holds, partial downloads included.
    pub fn entries(&self) -> Vec<String> {
        std::fs::read_dir(self.folder.path().join("opt/knode/store"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// The worker of a given-up download removes its folder by itself.
    pub async fn until_empty(&self) {
        let gone = async {
            while !self.entries().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone)
            .await
            .unwrap();
    }

    /// A stored file's bytes.
    pub fn stored(&self, artifact: &Artifact, name: &str) -> Vec<u8> {
        let place = self.folder.path().join("opt/knode/store");
        std::fs::read(place.join(artifact.digest.hex()).join(name)).unwrap()
    }
}
