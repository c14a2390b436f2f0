//! Neighbours offer what they verified, and are believed no more than a mirror
//! (F20, B2).

mod mirror;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use knode::error::Code;
use knode::fetch::{Board, Fetcher, Transfer, neighbours};
use knode::sys::offer::{self, Offer};
use knode::sys::root::Root;
use knode::sys::store::{Store, sha256};
use mirror::{Answer, Fixture, LIMITS, Mirror, Then, content, plain};
use units::node_config::{Artifact, ArtifactFile, Neighbours, Packing};

/// A machine whose store keeps what it downloads, and that asks these first.
fn machine(near: &[SocketAddr]) -> Fixture {
    let mut fixture = Fixture::new();
    let root = Root::new(fixture.folder.path());
    let servers = near.iter().map(|at| format!("http://{at}")).collect();
    let store = Store::new(root).keeping_downloads(true);
    fixture.fetcher = Fetcher::new(store, LIMITS).with_neighbours(servers);
    fixture
}

/// Offers what a machine has of these.
async fn offers(fixture: &Fixture, artifacts: &[&Artifact]) -> SocketAddr {
    let file = |artifact: &&Artifact| {
        let path = Store::download(artifact).unwrap();
        let path = Root::new(fixture.folder.path()).path(path);
        (neighbours::path(&artifact.digest), path)
    };
    let offer: Offer = artifacts.iter().map(file).collect();
    let listener = offer::listen((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(offer::serve(listener, Arc::new(offer)));
    address
}

/// The same artifact with this neighbour before its mirrors.
fn with(near: SocketAddr, artifact: &Artifact) -> Artifact {
    let settings = Neighbours {
        port: near.port(),
        addresses: vec![near.ip()],
    };
    let artifacts = neighbours::first(std::slice::from_ref(artifact), &settings);
    artifacts.into_iter().next().unwrap()
}

/// The content as `bin/a` in a tar archive.
fn packed(url: String) -> (Vec<u8>, Artifact) {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content().len() as u64);
    header.set_mode(0o755);
    archive
        .append_data(&mut header, "bin/a", content().as_slice())
        .unwrap();
    let bytes = archive.into_inner().unwrap();
    let artifact = Artifact {
        digest: sha256(&bytes),
        size: Some(bytes.len() as u64),
        packing: Packing::Tar,
        files: vec![ArtifactFile {
            member: Some("bin/a".to_owned()),
            path: "/opt/bin/a".to_owned(),
        }],
        ..plain("packed", vec![url])
    };
    (bytes, artifact)
}

/// F20: plain files and archives, by whoever has them.
#[tokio::test]
async fn f20_what_one_machine_has_the_next_takes_from_it() {
    let (bytes, _) = packed(String::new());
    let mirror = Mirror::start(move |asked| match asked.path.as_str() {
        "/plain" => Answer::good(&content(), "\"1\"", asked),
        _ => Answer::good(&bytes, "\"2\"", asked),
    })
    .await;
    let tool = plain("tool", vec![mirror.url("plain")]);
    let (_, archive) = packed(mirror.url("packed"));
    let first = machine(&[]);
    for artifact in [&tool, &archive] {
        first.fetch(artifact).await.unwrap();
    }
    assert_eq!(mirror.asked().len(), 2);
    let near = offers(&first, &[&tool, &archive]).await;
    // The third takes from the second, which got it from the first.
    let second = machine(&[near]);
    for artifact in [&tool, &archive] {
        second.fetch(&with(near, artifact)).await.unwrap();
    }
    let near = offers(&second, &[&tool, &archive]).await;
    let third = machine(&[near]);
    for (artifact, name) in [(&tool, "tool"), (&archive, "a")] {
        third.fetch(&with(near, artifact)).await.unwrap();
        assert_eq!(third.stored(artifact, name), content());
    }
    assert_eq!(mirror.asked().len(), 2, "the mirror was asked again");
}

/// F1: it has other bytes, or nothing, or is away: the mirror has its turn.
#[tokio::test]
async fn f1_a_neighbour_that_lies_lacks_it_or_is_away_is_passed_over() {
    let mirror = Mirror::start(|asked| Answer::good(&content(), "\"1\"", asked)).await;
    let tool = plain("tool", vec![mirror.url("x")]);
    let liar = machine(&[]);
    liar.fetch(&tool).await.unwrap();
    let file = Root::new(liar.folder.path()).path(Store::download(&tool).unwrap());
    let mut wrong = content();
    wrong[1_000_000] ^= 1;
    std::fs::write(&file, &wrong).unwrap();
    let lies = offers(&liar, &[&tool]).await;
    let lacks = offers(&machine(&[]), &[&tool]).await;
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for near in [lies, lacks, away] {
        let before = mirror.asked().len();
        let fixture = machine(&[near]);
        fixture.fetch(&with(near, &tool)).await.unwrap();
        assert_eq!(fixture.stored(&tool, "tool"), content());
        assert_eq!(mirror.asked().len(), before + 1);
    }
}

/// F2: what a mirror began a neighbour ends.
#[tokio::test]
async fn f2_a_neighbour_goes_on_where_another_broke_off() {
    let cut =
        Mirror::start(|asked| Answer::good(&content(), "\"1\"", asked).cut(1_000_000, Then::Hang))
            .await;
    let has = machine(&[]);
    let whole = Mirror::start(|asked| Answer::good(&content(), "\"1\"", asked)).await;
    let tool = plain("tool", vec![whole.url("x")]);
    has.fetch(&tool).await.unwrap();
    let near = offers(&has, &[&tool]).await;
    let mut artifact = with(near, &plain("tool", vec![]));
    artifact.urls.insert(0, cut.url("x"));
    let fixture = machine(&[near]);
    fixture.fetch(&artifact).await.unwrap();
    assert_eq!(fixture.stored(&tool, "tool"), content());
    assert_eq!(cut.asked().len(), 1);
}

/// Whoever is one too many is sent to the mirrors, and nobody gets anything
/// but what is offered.
#[tokio::test]
async fn few_are_served_at_once_and_only_what_is_offered() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mirror = Mirror::start(|asked| Answer::good(&content(), "\"1\"", asked)).await;
    let tool = plain("tool", vec![mirror.url("x")]);
    let has = machine(&[]);
    has.fetch(&tool).await.unwrap();
    let near = offers(&has, &[&tool]).await;
    let ask = |request: String| async move {
        // What it sends is to stay with it.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(near).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        (stream, String::from_utf8_lossy(&status).into_owned())
    };
    let path = neighbours::path(&tool.digest);
    for (request, status) in [
        ("GET /etc/passwd HTTP/1.1\r\n\r\n".to_owned(), "404"),
        ("GET /../../etc/passwd HTTP/1.1\r\n\r\n".to_owned(), "404"),
        (format!("PUT {path} HTTP/1.1\r\n\r\n"), "405"),
        (
            format!("GET {path} HTTP/1.1\r\nRange: bytes=9999999-\r\n\r\n"),
            "416",
        ),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let (_, told) = ask(request.clone()).await;
        assert_eq!(told, format!("HTTP/1.1 {status}"), "{request}");
    }
    // Nobody of these reads on, so that each keeps its place.
    let get = format!("GET {path} HTTP/1.1\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..8 {
        let (stream, told) = ask(get.clone()).await;
        assert_eq!(told, "HTTP/1.1 200");
        held.push(stream);
    }
    let (_, told) = ask(get).await;
    assert_eq!(told, "HTTP/1.1 503");
    let before = mirror.asked().len();
    let fixture = machine(&[near]);
    fixture.fetch(&with(near, &tool)).await.unwrap();
    assert_eq!(mirror.asked().len(), before + 1);
}

/// F2: one deadline is handed down to every download; what came stays.
#[tokio::test]
async fn f2_a_round_ends_at_its_deadline_and_the_next_goes_on() {
    let slow = Mirror::start(|asked| {
        let whole = asked.range.is_some();
        let answer = Answer::good(&content(), "\"1\"", asked);
        if whole {
            answer
        } else {
            answer.cut(1_000_000, Then::Hang)
        }
    })
    .await;
    let mut limits = LIMITS;
    limits.stall = Duration::from_secs(600);
    let fixture = Fixture::with(limits);
    let tool = plain("tool", vec![slow.url("x")]);
    let board = Board::new(std::slice::from_ref(&tool));
    let mut transfer = Transfer::new(&tool);
    let deadline = Some(Instant::now() + Duration::from_millis(1500));
    let failed = transfer.round(&fixture.fetcher, &board, deadline).await;
    assert_eq!(failed.unwrap_err().error.code(), Code::FetchStall);
    transfer
        .round(&fixture.fetcher, &board, None)
        .await
        .unwrap();
    assert_eq!(slow.ranges(), [None, Some(1_000_000)]);
    assert_eq!(fixture.stored(&tool, "tool"), content());
}
