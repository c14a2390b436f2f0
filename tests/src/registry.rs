//! A registry for images that lets in whom it is told to: HTTPS with an
//! authority of its own, read-only.
//! Source: OCI distribution specification 1.1, "Pull".

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;
use axum::{Router, serve};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::image::Image;
use crate::network::Network;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// One request that the registry got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The path.
    pub path: String,
    /// The query: a mirror is told there whose images are asked for.
    pub query: String,
    /// Who asked, if a name was given.
    pub user: Option<String>,
    /// The status of the answer.
    pub status: StatusCode,
}

/// Manifests and layers by their digest, with their kind.
type Blobs = BTreeMap<String, (String, Vec<u8>)>;

#[derive(Debug, Default)]
struct Books {
    blobs: Blobs,
    /// Digests of manifests by `NAME:TAG`.
    tags: BTreeMap<String, String>,
    /// Who may pull, and the password.
    logins: BTreeMap<String, String>,
    log: Vec<Asked>,
}

/// An HTTPS server inside a network, on a thread of its own. Dropping it ends
/// the thread and all connections.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    authority: String,
    books: Arc<Mutex<Books>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Serves on the network's bridge address. Nobody may pull yet.
    pub fn start(network: &Network, port: u16) -> Result<Self> {
        let address = SocketAddr::from((network.gateway(), port));
        let (authority, tls) = identity(address).context("the registry's certificate")?;
        let listener = network.inside(|| {
            std::net::TcpListener::bind(address).with_context(|| format!("binding {address}"))
        })?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let books = Arc::new(Mutex::new(Books::default()));
        let (stop, stopped) = oneshot::channel();
        let router = Router::new()
            .fallback(any(answer))
            .with_state(Arc::clone(&books));
        let thread = std::thread::Builder::new()
            .name(format!("registry {address}"))
            .spawn(move || run(&runtime, listener, tls, router, stopped))?;
        Ok(Self {
            address,
            authority,
            books,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The host and port in its images' names.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The certificate of its authority, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whoever knows this password may pull; another one no longer counts.
    pub fn let_in(&self, user: &str, password: &str) {
        let login = (user.to_owned(), password.to_owned());
        self.books().logins.extend([login]);
    }

    /// Serves an image as `NAME:TAG`.
    pub fn add(&self, name: &str, image: &Image) -> Result<()> {
        let (blobs, manifest) = unpack(image)?;
        let mut books = self.books();
        books.blobs.extend(blobs);
        books.tags.insert(name.to_owned(), manifest);
        Ok(())
    }

    /// All requests, in the order in which they came.
    pub fn log(&self) -> Vec<Asked> {
        self.books().log.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        open(&self.books)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Dropping the sender is the message.
        drop(self.stop.take());
        if self.thread.take().is_some_and(|it| it.join().is_err()) {
            eprintln!("the registry on {} panicked", self.address);
        }
    }
}

/// The authority's certificate, and what the server shows.
fn identity(address: SocketAddr) -> Result<(String, Arc<ServerConfig>)> {
    let mut params = CertificateParams::new([])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "registry-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let params = CertificateParams::new([address.ip().to_string()])?;
    let certificate = params.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((authority, Arc::new(config)))
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // Who does not trust us goes away.
            let shaken = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn run(
    runtime: &Runtime,
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    stopped: oneshot::Receiver<()>,
) {
    let ended: Result<()> = runtime.block_on(async {
        let listener = Tls {
            listener: TcpListener::from_std(listener).context("taking the listener")?,
            acceptor: TlsAcceptor::from(tls),
        };
        tokio::select! {
            ended = serve(listener, router) => ended.context("serving"),
            _ = stopped => Ok(()),
        }
    });
    if let Err(error) = ended {
        eprintln!("registry: {error:#}");
    }
}

async fn answer(State(books): State<Arc<Mutex<Books>>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let login = request.headers().get(header::AUTHORIZATION);
    let login = login.and_then(|value| credentials(value.to_str().ok()?));
    let mut books = open(&books);
    let known = login
        .as_ref()
        .is_some_and(|(user, password)| books.logins.get(user) == Some(password));
    let mut response = if known {
        books.deliver(&path)
    } else {
        let mut response = plain(StatusCode::UNAUTHORIZED);
        let realm = HeaderValue::from_static("Basic realm=\"registry\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, realm);
        response
    };
    if request.method() == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    books.log.push(Asked {
        path,
        query: request.uri().query().unwrap_or_default().to_owned(),
        user: login.map(|(user, _)| user),
        status: response.status(),
    });
    response
}

impl Books {
    fn deliver(&self, path: &str) -> Response<Body> {
        if path == "/v2/" {
            return plain(StatusCode::OK);
        }
        let found = self.digest(path);
        let Some((digest, (kind, bytes))) = found.and_then(|d| self.blobs.get_key_value(d)) else {
            return plain(StatusCode::NOT_FOUND);
        };
        let mut response = Response::new(Body::from(bytes.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, bytes.len().into());
        for (name, value) in [("content-type", kind), ("docker-content-digest", digest)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        response
    }

    /// What is asked for, by its digest or by its tag.
    fn digest<'a>(&'a self, path: &'a str) -> Option<&'a str> {
        let (name, what) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
        if what.starts_with("sha256:") {
            return Some(what);
        }
        let name = name.strip_suffix("/manifests")?;
        self.tags.get(&format!("{name}:{what}")).map(String::as_str)
    }
}

/// Name and password. Source: RFC 7617, 2.
fn credentials(header: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The blobs of an image, and the digest of its manifest.
fn unpack(image: &Image) -> Result<(Blobs, String)> {
    let path = image.archive();
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(path, content);
    }
    let index: Value = serde_json::from_slice(files.get("index.json").context("no index")?)?;
    let entry = &index["manifests"][0];
    let manifest = entry["digest"].as_str().context("no manifest")?.to_owned();
    let kind = entry["mediaType"].as_str().context("no media type")?;
    let blobs = files.into_iter().filter_map(|(path, content)| {
        let digest = path.strip_prefix("blobs/")?.replace('/', ":");
        let kind = match digest == manifest {
            true => kind,
            false => "application/octet-stream",
        };
        Some((digest, (kind.to_owned(), content)))
    });
    Ok((blobs.collect(), manifest))
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn open(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(|error| error.into_inner())
}
