//! A mirror for downloads that does as it is told, badly too.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;
use axum::{Router, serve};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::io::ReaderStream;

pub use crate::fault::Fault;
use crate::fault::{for_ever, send};
use crate::{cache, network::Network};

/// A registered file, as a lock file describes it.
#[derive(Debug, Clone)]
pub struct Served {
    /// Where to download it.
    pub url: String,
    /// Its hash, in lower-case hexadecimal.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
}

/// One request that the server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// The path, with its leading slash.
    pub path: String,
    /// The Range header, if there was one.
    pub range: Option<String>,
    /// The status of the answer; `None` for [`Fault::Silence`].
    pub status: Option<StatusCode>,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    fault: Fault,
    /// For how many more requests; `None` means all.
    left: Option<usize>,
}

#[derive(Debug, Default)]
struct Books {
    files: BTreeMap<String, PathBuf>,
    faults: BTreeMap<String, Planned>,
    log: Vec<Asked>,
}

/// An HTTP server inside a network, on a thread of its own. Dropping it ends the thread
/// and all connections.
#[derive(Debug)]
pub struct ArtifactServer {
    address: SocketAddr,
    books: Arc<Mutex<Books>>,
    made: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ArtifactServer {
    /// Serves on the network's bridge address; port 0 takes any free port.
    pub fn start(network: &Network, port: u16) -> Result<Self> {
        let address = SocketAddr::from((network.gateway(), port));
        let listener = network.inside(|| {
            std::net::TcpListener::bind(address).with_context(|| format!("binding {address}"))
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let books = Arc::new(Mutex::new(Books::default()));
        let (stop, stopped) = oneshot::channel();
        let router = Router::new()
            .fallback(any(answer))
            .with_state(Arc::clone(&books));
        let thread = std::thread::Builder::new()
            .name(format!("artifacts {address}"))
            .spawn(move || run(&runtime, listener, router, stopped))?;
        Ok(Self {
            address,
            books,
            made: tempfile::tempdir()?,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{}", self.address, rooted(path))
    }

    /// Serves a file at a path.
    pub fn add(&self, path: &str, file: &Path) -> Result<Served> {
        let (sha256, size) =
            measure(file).with_context(|| format!("reading {}", file.display()))?;
        self.books().files.insert(rooted(path), file.to_owned());
        let url = self.url(path);
        Ok(Served { url, sha256, size })
    }

    /// Serves bytes at a path.
    pub fn add_bytes(&self, path: &str, bytes: &[u8]) -> Result<Served> {
        let name = cache::hex(&Sha256::digest(bytes));
        let file = self.made.path().join(name);
        fs::write(&file, bytes).with_context(|| format!("writing {}", file.display()))?;
        self.add(path, &file)
    }

    /// From now on every request for the path goes wrong in this way.
    pub fn set_fault(&self, path: &str, fault: Fault) {
        let planned = Planned { fault, left: None };
        self.books().faults.insert(rooted(path), planned);
    }

    /// The next requests for the path go wrong, those after them do not.
    pub fn set_fault_times(&self, path: &str, fault: Fault, times: usize) {
        let left = Some(times);
        let planned = Planned { fault, left };
        self.books().faults.insert(rooted(path), planned);
    }

    /// Requests for the path that come now are answered properly.
    pub fn clear_fault(&self, path: &str) {
        self.books().faults.remove(&rooted(path));
    }

    /// How many requests for the path have come.
    pub fn requests(&self, path: &str) -> usize {
        let path = rooted(path);
        let books = self.books();
        books.log.iter().filter(|asked| asked.path == path).count()
    }

    /// All requests, in the order in which they came.
    pub fn log(&self) -> Vec<Asked> {
        self.books().log.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        open(&self.books)
    }
}

impl Drop for ArtifactServer {
    fn drop(&mut self) {
        // Dropping the sender is the message.
        drop(self.stop.take());
        if self.thread.take().is_some_and(|it| it.join().is_err()) {
            eprintln!("the artifact server on {} panicked", self.address);
        }
    }
}

fn run(
    runtime: &Runtime,
    listener: std::net::TcpListener,
    router: Router,
    stopped: oneshot::Receiver<()>,
) {
    let ended: Result<()> = runtime.block_on(async {
        let listener = TcpListener::from_std(listener).context("taking the listener")?;
        tokio::select! {
            ended = serve(listener, router) => ended.context("serving"),
            _ = stopped => Ok(()),
        }
    });
    if let Err(error) = ended {
        eprintln!("artifact server: {error:#}");
    }
}

async fn answer(State(books): State<Arc<Mutex<Books>>>, request: Request) -> Response<Body> {
    let at = Instant::now();
    let (request, _) = request.into_parts();
    let path = request.uri.path().to_owned();
    let (file, fault) = {
        let mut books = open(&books);
        let fault = books.take_fault(&path);
        (books.files.get(&path).cloned(), fault)
    };
    let (response, silent) = match fault {
        Some(Fault::Silence) => (plain(StatusCode::OK), true),
        Some(Fault::Status(status)) => (plain(status), false),
        _ => {
            let response = match file {
                Some(file) => deliver(&file, &request, fault).await,
                None => Ok(plain(StatusCode::NOT_FOUND)),
            };
            let response = response.unwrap_or_else(|error| {
                eprintln!("artifact server: {path}: {error:#}");
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            });
            (response, false)
        }
    };
    let range = request.headers.get(header::RANGE);
    open(&books).log.push(Asked {
        at,
        path,
        range: range.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        status: (!silent).then(|| response.status()),
    });
    if silent {
        for_ever().await;
    }
    response
}

async fn deliver(file: &Path, request: &Parts, fault: Option<Fault>) -> Result<Response<Body>> {
    let opened = tokio::fs::File::open(file).await.context("opening")?;
    let size = opened.metadata().await?.len();
    let asked = match fault {
        Some(Fault::NoRange) => None,
        _ => range(&request.headers, size),
    };
    let mut response = plain(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let (start, end) = match asked {
        None => (0, size),
        Some(Some((start, end))) => {
            let said = format!("bytes {start}-{}/{size}", end - 1);
            headers.insert(header::CONTENT_RANGE, said.try_into()?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (start, end)
        }
        Some(None) => {
            headers.insert(header::CONTENT_RANGE, format!("bytes */{size}").try_into()?);
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(response);
        }
    };
    ensure!(start <= end, "a range that ends before it starts");
    let length = end - start;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    if request.method != Method::HEAD {
        let (sink, source) = tokio::io::duplex(64 * 1024);
        tokio::spawn(send(opened, start, length, fault, sink));
        *response.body_mut() = Body::from_stream(ReaderStream::new(source));
    }
    Ok(response)
}

impl Books {
    fn take_fault(&mut self, path: &str) -> Option<Fault> {
        let planned = self.faults.get_mut(path)?;
        match &mut planned.left {
            Some(0) => None,
            Some(left) => {
                *left -= 1;
                Some(planned.fault)
            }
            None => Some(planned.fault),
        }
    }
}

/// One range of bytes, the end not included: `None` when none was asked for that we
/// understand, `Some(None)` when the file has no such bytes.
fn range(headers: &HeaderMap, size: u64) -> Option<Option<(u64, u64)>> {
    let value = headers.get(header::RANGE)?.to_str().ok()?;
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", suffix) => (size.saturating_sub(suffix.parse().ok()?), size),
        (first, "") => (first.parse().ok()?, size),
        (first, last) => (
            first.parse().ok()?,
            size.min(last.parse::<u64>().ok()?.checked_add(1)?),
        ),
    };
    Some((start < end).then_some((start, end)))
}

fn measure(file: &Path) -> Result<(String, u64)> {
    let mut source = fs::File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return Ok((cache::hex(&hash.finalize()), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

fn open(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(|error| error.into_inner())
}

#[cfg(test)]
mod tests;
