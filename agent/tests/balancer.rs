//! The balancer before real TLS servers that die, drain, flap and vanish (B7, F16).

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::Namespace;
use knode::balancer::{Balancer, Health};
use knode::sys::root::Root;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::{Certificate, Client};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One authority, and what every server shows.
struct Authority {
    pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    fn new() -> Self {
        // Another test of this process may have been first.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_params(&params, &key);
        let names = ["localhost", "127.0.0.1", "10.98.0.1", "10.98.0.2"].map(str::to_owned);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Self {
            pem: authority.pem(),
            server: Arc::new(server),
        }
    }

    /// A root folder with the authority where a machine has it.
    fn root(&self) -> (TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path().join("etc/kubernetes/pki");
        std::fs::create_dir_all(&pki).unwrap();
        std::fs::write(pki.join("ca.crt"), &self.pem).unwrap();
        let root = Root::new(folder.path());
        (folder, root)
    }
}

/// An HTTPS server as an API server is: `/readyz`, `/watch` without an end,
/// and for all else its own name.
struct Server {
    address: SocketAddr,
    up: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    fn start(authority: &Authority, ip: IpAddr) -> Self {
        Self::at(authority, (ip, 0).into())
    }

    fn at(authority: &Authority, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            up: Arc::new(AtomicBool::new(true)),
            ready: Arc::new(AtomicBool::new(true)),
            served: Arc::default(),
            streams: Arc::default(),
            thread: Mutex::default(),
        };
        let name = server.address.to_string();
        let config = Arc::clone(&authority.server);
        let (up, ready) = (Arc::clone(&server.up), Arc::clone(&server.ready));
        let (served, streams) = (Arc::clone(&server.served), Arc::clone(&server.streams));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if !up.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (config, name) = (Arc::clone(&config), name.clone());
                let (ready, served) = (Arc::clone(&ready), Arc::clone(&served));
                std::thread::spawn(move || {
                    // Any error is the end of the connection.
                    let _ended = answer(stream, config, &name, &ready, &served);
                });
            }
        });
        *server.thread.lock().unwrap() = Some(thread);
        server
    }

    fn name(&self) -> String {
        self.address.to_string()
    }

    /// As a killed process: the port is closed, and every connection reset.
    fn stop(&self) {
        if self.up.swap(false, Ordering::SeqCst) {
            let woken = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
            // Whoever comes before the port is closed would find a server and no answer.
            // One that cannot be reached any more is found by nobody.
            let thread = self.thread.lock().unwrap().take().filter(|_| woken.is_ok());
            if let Some(thread) = thread {
                thread.join().unwrap();
            }
            for stream in self.streams.lock().unwrap().drain(..) {
                let _gone = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    name: &str,
    ready: &AtomicBool,
    served: &AtomicUsize,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut path = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
        }
        let out = stream.get_mut();
        let (status, body) = match path.as_str() {
            "/readyz" if ready.load(Ordering::SeqCst) => ("200 OK", "ok".to_owned()),
            "/readyz" => (
                "500 Internal Server Error",
                "[-]shutdown failed\n".to_owned(),
            ),
            "/watch" => {
                out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                loop {
                    let chunk = format!("{:x}\r\n{name}\r\n", name.len());
                    out.write_all(chunk.as_bytes())?;
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            _ => {
                served.fetch_add(1, Ordering::SeqCst);
                ("200 OK", name.to_owned())
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        out.write_all((head + &body).as_bytes())?;
    }
}

/// A balancer before some servers, and its clients.
struct Setup {
    balancer: Balancer,
    address: SocketAddr,
    pem: String,
    _folder: TempDir,
}

impl Setup {
    fn new(authority: &Authority, servers: &[&Server]) -> Self {
        let names: Vec<String> = servers.iter().map(|server| server.name()).collect();
        Self::named(authority, &names)
    }

    fn named(authority: &Authority, names: &[String]) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (folder, root) = authority.root();
        Self {
            balancer: Balancer::start(listener, names, root).unwrap(),
            address,
            pem: authority.pem.clone(),
            _folder: folder,
        }
    }

    /// A client whose every request has a connection of its own.
    fn client(&self) -> Client {
        Client::builder()
            .tls_certs_only([Certificate::from_pem(self.pem.as_bytes()).unwrap()])
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    }

    /// Which server answered.
    async fn ask(&self, client: &Client) -> reqwest::Result<String> {
        let url = format!("https://{}/name", self.address);
        client.get(url).send().await?.text().await
    }

    /// Waits until that many are healthy.
    async fn healthy(&self, count: usize, limit: Duration) {
        let mut reports = self.balancer.reports();
        let is = reports.wait_for(|report| {
            report
                .iter()
                .filter(|s| s.health == Health::Healthy)
                .count()
                == count
        });
        let in_time = tokio::time::timeout(limit, is).await.is_ok();
        let report = self.balancer.reports().borrow().clone();
        assert!(in_time, "{count} healthy servers wanted: {report:?}");
    }

    /// A watch: which server it is on, and when it ends.
    async fn watch(&self, client: &Client) -> (String, tokio::task::JoinHandle<()>) {
        let url = format!("https://{}/watch", self.address);
        let watch = client.get(url).timeout(Duration::from_secs(60));
        let mut reply = watch.send().await.unwrap();
        let first = reply.chunk().await.unwrap().unwrap();
        let name = String::from_utf8(first.to_vec()).unwrap();
        let end = tokio::spawn(async move { while let Ok(Some(_)) = reply.chunk().await {} });
        (name, end)
    }
}

async fn within(limit: Duration, what: &str, work: impl Future<Output = ()>) -> Duration {
    let began = Instant::now();
    let done = tokio::time::timeout(limit, work).await;
    assert!(done.is_ok(), "{what}: not within {limit:?}");
    began.elapsed()
}

const SOON: Duration = Duration::from_secs(5);

fn three(authority: &Authority) -> [Server; 3] {
    std::array::from_fn(|_| Server::start(authority, LOOPBACK))
}

/// B7: one of three dies; no new connection fails, and watches move on.
#[tokio::test]
async fn b7_a_server_that_dies_disturbs_nobody_for_long() {
    let authority = Authority::new();
    let servers = three(&authority);
    let setup = Setup::new(&authority, &servers.each_ref());
    setup.healthy(3, SOON).await;
    let client = setup.client();
    for _ in 0..30 {
        setup.ask(&client).await.unwrap();
    }
    for server in &servers {
        let served = server.served.load(Ordering::SeqCst);
        assert!((5..=15).contains(&served), "{served} of 30 requests");
    }
    let (name, end) = setup.watch(&client).await;
    let dead = servers.iter().find(|server| server.name() == name).unwrap();
    dead.stop();
    // The client does not even try twice.
    for _ in 0..50 {
        let answer = setup.ask(&client).await.unwrap();
        assert_ne!(answer, name);
    }
    within(SOON, "the watch's end", async { end.await.unwrap() }).await;
    let (elsewhere, _end) = setup.watch(&client).await;
    assert_ne!(elsewhere, name);
    let report = setup.balancer.reports().borrow().clone();
    let told = report.iter().find(|told| told.server == name).unwrap();
    assert_eq!(told.health, Health::Out);
    assert!(told.reason.contains("refused"), "{}", told.reason);

    // It comes back, and has its share again.
    let again = Server::at(&authority, name.parse().unwrap());
    setup.healthy(3, SOON).await;
    for _ in 0..30 {
        setup.ask(&client).await.unwrap();
    }
    assert!(again.served.load(Ordering::SeqCst) > 0);
}

/// F16: a server that says it is about to go is left before it does.
#[tokio::test]
async fn f16_a_server_that_drains_is_left() {
    let authority = Authority::new();
    let servers = three(&authority);
    let setup = Setup::new(&authority, &servers.each_ref());
    setup.healthy(3, SOON).await;
    let client = setup.client();
    let (name, end) = setup.watch(&client).await;
    let draining = servers.iter().find(|server| server.name() == name).unwrap();
    draining.ready.store(false, Ordering::SeqCst);
    let limit = Duration::from_secs(8);
    within(limit, "the watch's end", async { end.await.unwrap() }).await;
    let before = draining.served.load(Ordering::SeqCst);
    for _ in 0..20 {
        setup.ask(&client).await.unwrap();
    }
    assert_eq!(draining.served.load(Ordering::SeqCst), before);
    let report = setup.balancer.reports().borrow().clone();
    let told = report.iter().find(|told| told.server == name).unwrap();
    assert!(
        told.reason.contains("[-]shutdown failed"),
        "{}",
        told.reason
    );

    // Where all say so there is nowhere better: nothing is closed, all are used.
    for server in &servers {
        server.ready.store(false, Ordering::SeqCst);
    }
    setup.healthy(0, Duration::from_secs(8)).await;
    let (_, end) = setup.watch(&client).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!end.is_finished());
    setup.ask(&client).await.unwrap();
}

#[tokio::test]
async fn all_die_and_one_returns() {
    let authority = Authority::new();
    let servers = three(&authority);
    let setup = Setup::new(&authority, &servers.each_ref());
    setup.healthy(3, SOON).await;
    servers.iter().for_each(Server::stop);
    let client = setup.client();
    let failed = Instant::now();
    assert!(setup.ask(&client).await.is_err());
    assert!(failed.elapsed() < SOON, "a refusal is told at once");
    setup.healthy(0, SOON).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let back = Server::at(&authority, servers[1].address);
    // At once: where none is healthy, every one is tried.
    assert_eq!(setup.ask(&client).await.unwrap(), back.name());
    let took = within(Duration::from_secs(3), "healthy", setup.healthy(1, SOON)).await;
    eprintln!("healthy again {took:?} after the server's return");
}

/// A server that comes and goes does not take clients with it.
#[tokio::test]
async fn a_flapping_server_is_not_trusted_again_at_once() {
    let authority = Authority::new();
    let steady = Server::start(&authority, LOOPBACK);
    let flapping = Server::start(&authority, LOOPBACK);
    let address = flapping.address;
    let setup = Setup::new(&authority, &[&steady, &flapping]);
    setup.healthy(2, SOON).await;
    let client = setup.client();
    let mut current = Some(flapping);
    let mut served_by_flapping = 0;
    for round in 0..12 {
        match current.take() {
            Some(server) => server.stop(),
            None => current = Some(Server::at(&authority, address)),
        }
        for _ in 0..8 {
            // A connection may be reset while its server is stopped: that is for
            // the client to try again, and then it has to work.
            let answer = match setup.ask(&client).await {
                Ok(answer) => answer,
                Err(_) => setup.ask(&client).await.unwrap(),
            };
            if round > 1 && answer == address.to_string() {
                served_by_flapping += 1;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(served_by_flapping < 20, "{served_by_flapping} of 80");
}

#[tokio::test]
async fn the_list_changes_and_the_machines_own_comes_first() {
    let authority = Authority::new();
    let [first, second, third] = three(&authority);
    // By its name, as the settings may have it.
    let named = format!("localhost:{}", first.address.port());
    let setup = Setup::named(&authority, &[named]);
    setup.healthy(1, SOON).await;
    let client = setup.client();
    assert_eq!(setup.ask(&client).await.unwrap(), first.name());
    // The cluster knows the same one by its address.
    setup
        .balancer
        .found(&[first.name(), second.name(), third.name()]);
    setup.healthy(3, SOON).await;
    for _ in 0..12 {
        setup.ask(&client).await.unwrap();
    }
    assert!(third.served.load(Ordering::SeqCst) > 0);
    // The second leaves the cluster; the settings' own stays, listed or not.
    setup.balancer.found(&[third.name()]);
    setup.healthy(2, SOON).await;
    let before = second.served.load(Ordering::SeqCst);
    for _ in 0..12 {
        setup.ask(&client).await.unwrap();
    }
    assert_eq!(second.served.load(Ordering::SeqCst), before);
    assert!(first.served.load(Ordering::SeqCst) > 1);
    // A machine without an answer of the cluster keeps what it has.
    setup.balancer.found(&[]);
    assert_eq!(setup.balancer.reports().borrow().len(), 2);
}

/// A server of another authority is none of the cluster's.
#[tokio::test]
async fn a_stranger_is_never_healthy() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = Server::start(&ours, LOOPBACK);
    let stranger = Server::start(&theirs, LOOPBACK);
    let setup = Setup::new(&ours, &[&stranger, &good]);
    setup.healthy(1, SOON).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let report = setup.balancer.reports().borrow().clone();
    assert_eq!(report[0].health, Health::Out);
    assert!(report[0].reason.contains("E-TLS"), "{}", report[0].reason);
    let client = setup.client();
    for _ in 0..10 {
        assert_eq!(setup.ask(&client).await.unwrap(), good.name());
    }
}

/// F16: a machine that vanishes without a word, behind a link that is cut.
#[test]
fn f16_a_vanished_machine_is_noticed() {
    let here = Namespace::new();
    let there = Namespace::new();
    here.sh(&format!(
        "ip link add near type veth peer name far netns {} && ip addr add 10.98.0.1/24 dev near && ip link set near up",
        there.tid
    ));
    there.sh("ip addr add 10.98.0.2/24 dev far && ip link set far up");
    let authority = Arc::new(Authority::new());
    let with = Arc::clone(&authority);
    let far = there.run(move || Server::start(&with, "10.98.0.2".parse().unwrap()));
    let far_name = far.name();
    let (noticed, closed) = here.block_on(move || async move {
        let near = Server::start(&authority, "10.98.0.1".parse().unwrap());
        let setup = Setup::new(&authority, &[&near, &far]);
        setup.healthy(2, SOON).await;
        // As on a master whose own is that one: everything goes there first.
        setup.balancer.prefer(&[far.address.ip()]);
        let client = setup.client();
        let (name, end) = setup.watch(&client).await;
        assert_eq!(name, far_name);
        common::sh(
            "nft add table inet cut && \
             nft add chain inet cut out '{ type filter hook output priority 0; }' && \
             nft add rule inet cut out ip daddr 10.98.0.2 drop && \
             nft add chain inet cut in '{ type filter hook input priority 0; }' && \
             nft add rule inet cut in ip saddr 10.98.0.2 drop",
        );
        let cut = Instant::now();
        assert_eq!(setup.ask(&client).await.unwrap(), near.name());
        let noticed = cut.elapsed();
        within(Duration::from_secs(20), "the watch's end", async {
            end.await.unwrap();
        })
        .await;
        let closed = cut.elapsed();
        assert_eq!(setup.ask(&client).await.unwrap(), near.name());
        (noticed, closed)
    });
    eprintln!("new connections elsewhere after {noticed:?}, old ones closed after {closed:?}");
    assert!(noticed < Duration::from_secs(4), "{noticed:?}");
    assert!(closed < Duration::from_secs(14), "{closed:?}");
}
