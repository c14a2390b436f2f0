//! `kgen serve` among those who mean no good, or have bad luck. (P53)

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use common::served::{Said, Served, connect_from, document, out, request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::KeyPair;

/// Nobody may ask twice, not even at once after it.
const ONCE: [&str; 3] = ["--json", "--repeat", "0s"];

fn loopback(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 0))
}

fn asked(mut stream: TcpStream, path: &str) -> Said {
    request(&mut stream, "GET", path, "");
    Said::read(stream)
}

/// Whether the other end closes the connection, however it does.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Many connections need many files.
fn many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[test]
fn whoever_is_slow_is_sent_away() {
    let folder = out(1, 0);
    let key = KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    folder.write("tls.crt", &params.self_signed(&key).unwrap().pem());
    folder.write("tls.key", &key.serialize_pem());
    let tls = "--tls-listen 127.0.0.1:0 --tls-cert tls.crt --tls-key tls.key";
    let tls: Vec<&str> = tls.split(' ').collect();
    let served = Served::start(&folder, &[&ONCE[..], &tls].concat());
    let silent = served.connect();
    let mut dripping = served.connect();
    dripping
        .write_all(b"GET /boot.ipxe HTTP/1.1\r\nX: ")
        .unwrap();
    let mut idle = served.connect();
    idle.write_all(b"GET /boot.ipxe HTTP/1.1\r\nHost: boot\r\n\r\n")
        .unwrap();
    // A body that never comes is nobody's.
    let mut owing = served.connect();
    owing
        .write_all(b"GET /boot.ipxe HTTP/1.1\r\nHost: boot\r\nContent-Length: 1000000\r\n\r\n")
        .unwrap();
    let shaking = TcpStream::connect(served.https.unwrap()).unwrap();
    let mut drip = dripping.try_clone().unwrap();
    let drip = thread::spawn(move || {
        while drip.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(250));
        }
    });
    for (name, mut stream) in [
        ("silent", silent),
        ("dripping", dripping),
        ("idle", idle),
        ("owing", owing),
        ("shaking", shaking),
    ] {
        // Only a server that waits for ever comes to this.
        let patience = Some(Duration::from_secs(300));
        stream.set_read_timeout(patience).unwrap();
        assert!(is_closed(&mut stream), "{name}");
    }
    drip.join().unwrap();
}

#[test]
fn a_head_has_its_limits() {
    let folder = out(1, 0);
    let served = Served::start(&folder, &ONCE);
    let mut stream = served.connect();
    // The server may close before all of it is written.
    let written = stream
        .write_all(b"GET /boot.ipxe HTTP/1.1\r\nX: ")
        .and_then(|()| stream.write_all(&vec![b'x'; 100_000]));
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let refused = answer.starts_with(b"HTTP/1.1 431 ");
    assert!(refused || written.is_err() || read.is_err());
    assert_eq!(served.get("/boot.ipxe").status, 200);
}

#[test]
fn nobody_takes_the_room_of_all() {
    many_files();
    let folder = out(1, 0);
    let served = Served::start(&folder, &ONCE);
    let server = served.http.unwrap();
    let greedy: Vec<TcpStream> = (0..1024)
        .map(|_| connect_from(loopback(9), server))
        .collect();
    for _ in 0..3 {
        assert!(is_closed(&mut connect_from(loopback(9), server)));
    }
    assert_eq!(served.get("/boot.ipxe").status, 200);
    let refused = |line: &serde_json::Value| {
        line["outcome"] == "refused: 127.0.0.9 has 1024 others" && line["request"] == "connection"
    };
    served.told(refused);
    assert_eq!(
        served.audit().iter().filter(|line| refused(line)).count(),
        1
    );
    drop(greedy);
    // It is let in again once the server has seen that they are gone.
    let again = (0..1000).any(|_| {
        let mut stream = connect_from(loopback(9), server);
        thread::sleep(Duration::from_millis(10));
        request(&mut stream, "GET", "/boot.ipxe", "");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
    });
    assert!(again);
}

/// The memory of a process, in KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn those_who_take_nothing_cost_little() {
    const CLIENTS: u64 = 400;
    many_files();
    let folder = out(1, 0);
    fs::write(folder.path("out/pxe/vmlinuz"), vec![7; 16_000_000]).unwrap();
    let served = Served::start(&folder, &ONCE);
    assert_eq!(served.get("/vmlinuz").body.len(), 16_000_000);
    let before = memory(served.pid());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let stream = runtime.block_on(async {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(8192).unwrap();
                socket.connect(served.http.unwrap()).await.unwrap()
            });
            let mut stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            request(&mut stream, "GET", "/vmlinuz", "");
            stream.read_exact(&mut [0; 100]).unwrap();
            stream
        })
        .collect();
    // It fills what it has of memory for each, and then waits for them.
    let seen = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(50));
        memory(served.pid())
    });
    let each = seen.max().unwrap().saturating_sub(before) / CLIENTS;
    println!("{each} KiB a client");
    assert!(each < 160, "{each} KiB a client");
    // Others are served meanwhile.
    assert_eq!(served.get("/vmlinuz").body.len(), 16_000_000);
    drop(clients);
}

/// The kernel takes a small document whole, whoever is at the other end.
#[test]
fn a_small_document_that_was_cut_off_may_be_asked_for_again() {
    let folder = out(1, 30_000);
    let served = Served::start(&folder, &ONCE);
    for count in 1..=2 {
        let mut stream = served.connect();
        request(&mut stream, "GET", &document(0), "");
        stream.read_exact(&mut [0; 100]).unwrap();
        drop(stream);
        let broken = |line: &serde_json::Value| line["outcome"] == "broken off";
        let told = (0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            served.audit().iter().filter(|line| broken(line)).count() == count
        });
        assert!(told, "{:#?}", served.audit());
    }
    let line = served.told(|line| line["outcome"] == "broken off");
    assert_eq!(
        (&line["bytes"], &line["machine"]),
        (&0.into(), &"node-0".into())
    );
    // It was begun, so it is nobody else's.
    let other = asked(
        connect_from(loopback(2), served.http.unwrap()),
        &document(0),
    );
    assert_eq!(other.status, 410);
    assert!(
        other.text().contains("begun by 127.0.0.1 at 2"),
        "{}",
        other.text()
    );
    assert_eq!(served.get(&document(0)).status, 200);
    served.told(|line| line["outcome"] == "sent");
    assert_eq!(served.get(&document(0)).status, 410);
}

#[test]
fn of_all_who_ask_at_once_one_has_it() {
    let folder = out(1, 30_000);
    let served = Served::start(&folder, &ONCE);
    let server = served.http.unwrap();
    let mut streams: Vec<TcpStream> = (1..=100)
        .map(|last| connect_from(loopback(last), server))
        .collect();
    for stream in &mut streams {
        request(stream, "GET", &document(0), "");
    }
    let all: Vec<u16> = streams.into_iter().map(|s| Said::read(s).status).collect();
    assert_eq!(all.iter().filter(|s| **s == 200).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|s| **s == 410).count(), 99, "{all:?}");
}

#[test]
fn it_is_the_last_thing_on_its_connection() {
    let folder = out(2, 30_000);
    let served = Served::start(&folder, &ONCE);
    let mut stream = served.connect();
    let ask = |i| format!("GET {} HTTP/1.1\r\nHost: boot\r\n\r\n", document(i));
    stream.write_all((ask(0) + &ask(1)).as_bytes()).unwrap();
    let said = Said::read(&stream);
    assert_eq!(said.status, 200);
    assert!(!said.text().contains("HTTP/1.1"), "two answers");
    drop(stream);
    // What was not answered was not given.
    served.told(|line| line["machine"] == "node-0" && line["outcome"] == "sent");
    assert_eq!(served.get(&document(1)).status, 200);
}

/// iPXE's elder versions, and whoever writes a client by hand.
#[test]
fn clients_of_http_1_0_are_served() {
    let folder = out(1, 1000);
    folder.write("out/pxe/initrd.img", "0123456789");
    let served = Served::start(&folder, &ONCE);
    let ask = |head: &str| {
        let mut stream = served.connect();
        stream
            .write_all(format!("{head}\r\n\r\n").as_bytes())
            .unwrap();
        Said::read(stream)
    };
    let said = ask("GET /initrd.img HTTP/1.0");
    assert_eq!((said.status, said.text().as_str()), (200, "0123456789"));
    assert!(said.head.contains("content-length: 10"), "{}", said.head);
    assert!(!said.head.contains("chunked"), "{}", said.head);
    let part = ask("GET /initrd.img HTTP/1.0\r\nRange: bytes=7-");
    assert_eq!((part.status, part.text().as_str()), (206, "789"));
    let head = ask(&format!("HEAD {} HTTP/1.0", document(0)));
    assert_eq!((head.status, head.body.len()), (200, 0));
    let said = ask(&format!("GET {} HTTP/1.0", document(0)));
    assert_eq!(said.status, 200);
    assert!(said.text().starts_with("#cloud-config\n"));
    served.told(|line| line["outcome"] == "sent" && line["status"] == 200 && line["bytes"] != 0);
}

/// One address is one peer, however it was connected to.
#[test]
fn addresses_of_both_kinds_are_served() {
    let folder = out(2, 0);
    let served = Served::start(&folder, &[&ONCE[..], &["--listen", "[::]:0"]].concat());
    let port = served.http.unwrap().port();
    let through = |address: &str| TcpStream::connect(format!("{address}:{port}")).unwrap();
    assert_eq!(asked(through("[::1]"), &document(0)).status, 200);
    let line = served.told(|line| line["machine"] == "node-0");
    assert!(
        line["peer"].as_str().unwrap().starts_with("[::1]:"),
        "{line}"
    );
    assert_eq!(asked(through("127.0.0.1"), &document(1)).status, 200);
    let line = served.told(|line| line["machine"] == "node-1");
    assert!(
        line["peer"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
}
