//! What passes through the balancer: every byte, in its order, in both ways;
//! ends and resets too, and no more than the other side takes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use knode::balancer::Balancer;
use knode::sys::root::Root;
use socket2::SockRef;
use tempfile::TempDir;

/// More than sockets and pipes hold.
const MUCH: usize = 32 << 20;
/// Whatever hangs is told instead.
const LIMIT: Duration = Duration::from_secs(30);

/// Held alone by who counts the process's files.
static FILES: RwLock<()> = RwLock::new(());

fn beside_others() -> RwLockReadGuard<'static, ()> {
    FILES.read().unwrap_or_else(PoisonError::into_inner)
}

/// A balancer before one server; nothing asks that one's health with success,
/// so it is tried as the last hope that it is.
struct Setup {
    address: SocketAddr,
    server: TcpListener,
    _balancer: Balancer,
    _folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        // Another test of this process may have been first.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        // No authority below this root, so no probe ever connects.
        let names = [server.local_addr().unwrap().to_string()];
        let balancer = Balancer::start(listener, &names, Root::new(folder.path())).unwrap();
        Self {
            address,
            server,
            _balancer: balancer,
            _folder: folder,
        }
    }

    /// Both ends of one connection.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.address).unwrap();
        let (server, _) = self.server.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.set_write_timeout(Some(LIMIT)).unwrap();
        }
        (client, server)
    }
}

/// Bytes that are different at every place, by a small generator.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut data = vec![0; count];
    fastrand::Rng::with_seed(seed).fill(&mut data);
    data
}

/// Sends all in pieces of changing size, then says that it is all.
fn send(stream: &TcpStream, data: Vec<u8>, seed: u64) -> JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let most = [7, 1000, 40_000, 2 << 20][random.usize(..4)];
            let (now, later) = rest.split_at(random.usize(1..=most).min(rest.len()));
            stream.write_all(now).unwrap();
            rest = later;
        }
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

fn receive(stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut stream = stream.try_clone().unwrap();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn large_and_small_pieces_arrive_whole_both_ways_at_once() {
    let _files = beside_others();
    let setup = Setup::new();
    let (client, server) = setup.pair();
    let (up, down) = (bytes(1, MUCH), bytes(2, MUCH));
    let senders = [send(&client, up.clone(), 3), send(&server, down.clone(), 4)];
    let far = thread::spawn(move || receive(&server));
    assert!(receive(&client) == down, "what came down is another");
    assert!(far.join().unwrap() == up, "what went up is another");
    senders.into_iter().for_each(|one| one.join().unwrap());
}

/// As `curl --data` does it: the question ends before the answer begins.
#[test]
fn one_way_ends_and_the_other_goes_on() {
    let _files = beside_others();
    let setup = Setup::new();
    for size in [0, 100, 5 << 20] {
        let (client, server) = setup.pair();
        send(&client, bytes(5, size), 6).join().unwrap();
        assert!(receive(&server) == bytes(5, size), "{size} bytes");
        // The client has said all; it still hears.
        for part in 0..3 {
            thread::sleep(Duration::from_millis(20));
            (&server).write_all(&[part; 3]).unwrap();
        }
        drop(server);
        assert_eq!(receive(&client), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
    }
}

/// Who does not read stops who sends, and nobody else.
#[test]
fn a_slow_reader_stops_its_sender_and_nobody_else() {
    let _files = beside_others();
    let setup = Setup::new();
    let (client, server) = setup.pair();
    client.set_nonblocking(true).unwrap();
    let data = bytes(7, MUCH);
    let (mut sent, mut idle) = (0, 0);
    // Until nothing goes any more for a while.
    while idle < 20 && sent < MUCH {
        match (&client).write(&data[sent..]) {
            Ok(count) => (sent, idle) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                idle += 1;
                thread::sleep(Duration::from_millis(25));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < MUCH, "all of it is kept by somebody");

    let (other_client, other_server) = setup.pair();
    (&other_client).write_all(b"question").unwrap();
    let mut question = [0; 8];
    (&other_server).read_exact(&mut question).unwrap();
    assert_eq!(&question, b"question");

    client.set_nonblocking(false).unwrap();
    let rest = send(&client, data[sent..].to_vec(), 8);
    assert!(receive(&server) == data, "what came is another");
    rest.join().unwrap();
}

/// A connection that is reset at one end ends at the other, also while its
/// sender is stopped.
#[test]
fn a_reset_ends_the_other_side() {
    let _files = beside_others();
    let setup = Setup::new();
    for (from_client, size) in [(true, 10), (false, 10), (true, MUCH), (false, MUCH)] {
        let (client, server) = setup.pair();
        let (resets, hears) = if from_client {
            (client, server)
        } else {
            (server, client)
        };
        (&hears).write_all(b"hello").unwrap();
        (&resets).read_exact(&mut [0; 5]).unwrap();
        // The other one is in the middle of sending.
        let busy = hears.try_clone().unwrap();
        let sender = thread::spawn(move || (&busy).write_all(&vec![1; size]).is_ok());
        thread::sleep(Duration::from_millis(100));
        SockRef::from(&resets)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(resets);
        // Its end or an error, and not the time limit.
        match (&hears).read(&mut [0; 8]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        let sent = sender.join().unwrap();
        assert!(size < MUCH || !sent, "sent to nobody");
    }
}

/// Whatever its connections did, the balancer gives back what it took.
#[test]
fn what_connections_held_is_given_back() {
    let _files = FILES.write().unwrap_or_else(PoisonError::into_inner);
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let setup = Setup::new();
    let before = files();
    for round in 0..3 {
        let pairs: Vec<_> = (0..32).map(|_| setup.pair()).collect();
        let senders: Vec<_> = pairs
            .iter()
            .map(|(client, _)| send(client, bytes(round, 1 << 20), round))
            .collect();
        for (_, server) in &pairs {
            assert!(receive(server) == bytes(round, 1 << 20));
        }
        senders.into_iter().for_each(|one| one.join().unwrap());
    }
    // A few pipes are kept; each has two ends.
    let kept = || files().saturating_sub(before);
    for _ in 0..200 {
        if kept() <= 16 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{} files more than before", kept());
}
