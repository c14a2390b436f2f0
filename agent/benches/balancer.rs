//! What the balancer costs beside a direct connection: R10.
//!
//!     cargo bench -p knode --bench balancer
//!
//! Prints Markdown on standard output and writes JSON beside the build's other
//! results. Limits: 50 µs more a request, 0.9 of the throughput. Latency is of
//! 256 bytes there and 1 KiB back; throughput once of TLS, as all that API
//! servers send is, and once of bare TCP, which no API server speaks. Direct
//! and balanced runs alternate, and medians are told; nothing fails by a time.
//! Where HAProxy is installed, it passes the same on as the peer, by one thread
//! and with splice(2) as well: what any proxy costs on this machine. At the end,
//! what idle connections hold of the balancer's memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use knode::balancer::{Balancer, Health};
use knode::sys::root::Root;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

const RUNS: usize = 9;
const REQUESTS: usize = 5_000;
const STREAMED: usize = 512 << 20;
const CHUNK: usize = 256 << 10;
/// Connections that do nothing.
const IDLE: usize = 1_000;
/// What a client asks first: for answers, for a stream, or for nothing more.
const ECHO: u8 = b'e';
const STREAM: u8 = b's';
const HOLD: u8 = b'h';

fn main() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most.min(65_536), most).expect("more files");
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("the first provider");
    let (client, server, pem) = identities();
    let folder = tempfile::tempdir().expect("a folder");
    let pki = folder.path().join("etc/kubernetes/pki");
    std::fs::create_dir_all(&pki).expect("a folder");
    std::fs::write(pki.join("ca.crt"), pem).expect("written");
    let root = Root::new(folder.path());

    let bare = serve(None);
    let tls = serve(Some(server));
    // No API server: none of them is healthy, and so all are tried.
    let (to_bare, _bare) = balanced(bare, &root);
    let (to_tls, _tls) = balanced(tls, &root);

    let peers = [Peer::start(bare), Peer::start(tls)];
    let to_peer = |index: usize| peers[index].as_ref().map(|peer| peer.address);

    let connect = |address: SocketAddr| -> Box<dyn Stream> { Box::new(plain(address)) };
    let secure = |address: SocketAddr| -> Box<dyn Stream> {
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&client), name).expect("a client");
        Box::new(StreamOwned::new(connection, plain(address)))
    };
    let latency = |a: Box<dyn Stream>| requests(a);
    let rows = [
        measure(
            "latency, TCP, µs",
            || latency(connect(bare)),
            || latency(connect(to_bare)),
            to_peer(0).map(|peer| move || latency(connect(peer))),
        ),
        measure(
            "latency, TLS, µs",
            || latency(secure(tls)),
            || latency(secure(to_tls)),
            to_peer(1).map(|peer| move || latency(secure(peer))),
        ),
        measure(
            "throughput, TLS, MB/s",
            || streamed(secure(tls)),
            || streamed(secure(to_tls)),
            to_peer(1).map(|peer| move || streamed(secure(peer))),
        ),
        measure(
            "throughput, TCP, MB/s",
            || streamed(connect(bare)),
            || streamed(connect(to_bare)),
            to_peer(0).map(|peer| move || streamed(connect(peer))),
        ),
    ];
    println!("| R10 | direct | balanced | more | of direct | by HAProxy | more | of direct |");
    println!("|---|---|---|---|---|---|---|---|");
    for (what, direct, ours, peer) in &rows {
        let one = |time: f64| format!("{time:.1} | {:.1} | {:.2}", time - direct, time / direct);
        let peer = peer.map_or("- | - | -".to_owned(), one);
        println!("| {what} | {direct:.1} | {} | {peer} |", one(*ours));
    }
    let mut json: Vec<serde_json::Value> = rows
        .iter()
        .map(|(what, direct, ours, peer)| {
            serde_json::json!({
                "what": what, "direct": direct, "balanced": ours, "haproxy": peer,
            })
        })
        .collect();
    let held = idle(to_bare);
    println!("\n{IDLE} idle connections hold {held} KiB of the balancer's memory");
    json.push(serde_json::json!({"what": "idle connections, KiB", "count": IDLE, "held": held}));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("balancer.json");
    let text = serde_json::to_string_pretty(&json).expect("JSON");
    std::fs::write(&path, text).expect("written");
    println!("\nJSON: {}", path.display());
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// What was measured, and the medians of direct runs, of ours and of the peer's.
type Row = (&'static str, f64, f64, Option<f64>);

/// Medians of all, run by turns.
fn measure(
    what: &'static str,
    direct: impl Fn() -> f64,
    balanced: impl Fn() -> f64,
    peer: Option<impl Fn() -> f64>,
) -> Row {
    let (mut one, mut other, mut third) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        one.push(direct());
        other.push(balanced());
        third.extend(peer.as_ref().map(|peer| peer()));
    }
    let peer = peer.map(|_| median(third));
    (what, median(one), median(other), peer)
}

/// HAProxy before one server; it ends with this.
struct Peer {
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// None where there is no HAProxy.
    fn start(server: SocketAddr) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("haproxy.cfg");
        let text = format!(
            "global\n nbthread 1\n\
             defaults\n mode tcp\n option splice-auto\n timeout connect 2s\n \
             timeout client 60s\n timeout server 60s\n\
             listen peer\n bind {address}\n server one {server}\n"
        );
        std::fs::write(&config, text).expect("written");
        let process = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let peer = Self {
            address,
            process,
            _folder: folder,
        };
        for _ in 0..500 {
            if TcpStream::connect(address).is_ok() {
                return Some(peer);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("HAProxy does not listen");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the process holds more, in KiB, while connections do nothing; the
/// clients' ends and the server's have no memory of their own.
fn idle(address: SocketAddr) -> u64 {
    let before = resident();
    let open = |_| {
        let mut stream = plain(address);
        stream.write_all(&[HOLD]).expect("sent");
        stream.read_exact(&mut [0]).expect("it is there");
        stream
    };
    let held: Vec<TcpStream> = (0..IDLE).map(open).collect();
    let more = resident().saturating_sub(before);
    drop(held);
    more
}

/// VmRSS of proc_pid_status(5), in KiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("a /proc");
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a size").parse().expect("a number")
}

/// The median of many requests on one connection, in microseconds.
fn requests(mut stream: Box<dyn Stream>) -> f64 {
    let mut answer = [0; 1024];
    let mut times = Vec::with_capacity(REQUESTS);
    stream.write_all(&[ECHO]).expect("sent");
    for _ in 0..REQUESTS {
        let began = Instant::now();
        stream.write_all(&[7; 256]).expect("sent");
        stream.read_exact(&mut answer).expect("an answer");
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    median(times)
}

/// Megabytes a second of one long answer.
fn streamed(mut stream: Box<dyn Stream>) -> f64 {
    let mut chunk = vec![0; CHUNK];
    stream.write_all(&[STREAM]).expect("sent");
    stream.flush().expect("sent");
    stream.read_exact(&mut chunk[..1]).expect("it begins");
    let began = Instant::now();
    let mut left = STREAMED - 1;
    while left > 0 {
        let most = left.min(CHUNK);
        left -= stream.read(&mut chunk[..most]).expect("more");
    }
    STREAMED as f64 / 1e6 / began.elapsed().as_secs_f64()
}

fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn balanced(server: SocketAddr, root: &Root) -> (SocketAddr, Balancer) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let balancer = Balancer::start(listener, &[server.to_string()], root.clone());
    let balancer = balancer.expect("a balancer");
    while balancer.reports().borrow()[0].health == Health::Unknown {
        std::thread::sleep(Duration::from_millis(10));
    }
    (address, balancer)
}

/// A server of both kinds of work, with TLS or without.
fn serve(tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            let tls = tls.clone();
            // A thread for each of those would be what is measured.
            let mut kind = [0];
            if tls.is_none() && stream.peek(&mut kind).is_ok() && kind[0] == HOLD {
                stream.write_all(&[HOLD]).expect("sent");
                held.push(stream);
                continue;
            }
            std::thread::spawn(move || {
                let stream: Box<dyn Stream> = match tls {
                    Some(config) => {
                        let connection = ServerConnection::new(config).expect("a server");
                        Box::new(StreamOwned::new(connection, stream))
                    }
                    None => Box::new(stream),
                };
                // A client that has what it wanted goes.
                let _gone = answer(stream);
            });
        }
    });
    address
}

fn answer(mut stream: Box<dyn Stream>) -> std::io::Result<()> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind[0] == STREAM {
        let chunk = vec![1; CHUNK];
        for _ in 0..STREAMED / CHUNK {
            stream.write_all(&chunk)?;
        }
        return stream.flush();
    }
    let mut question = [0; 256];
    loop {
        stream.read_exact(&mut question)?;
        stream.write_all(&[9; 1024])?;
        stream.flush()?;
    }
}

/// A client, a server, and the authority between them.
fn identities() -> (Arc<ClientConfig>, Arc<ServerConfig>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("an authority");
    let issuer = Issuer::from_params(&params, &key);
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("a server");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("an authority");
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server), authority.pem())
}
