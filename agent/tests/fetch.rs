//! The store and its downloads against a real HTTP server that misbehaves.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt as _, stream};
use knode::error::{Code, Result};
use knode::sys::http::{self, Download};
use knode::sys::root::Root;
use knode::sys::store::{Store, sha256};
use units::node_config::{Artifact, ArtifactFile, Packing};

const STALL: Duration = Duration::from_millis(300);

fn content() -> Vec<u8> {
    (0..3_000_000_u32).map(|i| (i % 251) as u8).collect()
}

fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in [
        ("./bin/a", content()),
        ("./bin/b", b"b".to_vec()),
        ("./z", content()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    let mut gzip = tar.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}

/// Serves the good bytes and several kinds of bad ones.
async fn server() -> SocketAddr {
    let cut = || async {
        let first = stream::iter([Ok(Bytes::from(content()[..1000].to_vec()))]);
        let cut = stream::once(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err("cut")
        });
        Body::from_stream(first.chain(cut))
    };
    let stall = || async {
        let first = stream::iter([Ok::<_, &str>(Bytes::from(content()[..1000].to_vec()))]);
        Body::from_stream(first.chain(stream::pending()))
    };
    let app = Router::new()
        .route("/plain", get(|| async { content() }))
        .route("/archive", get(|| async { archive() }))
        .route("/wrong", get(|| async { vec![0; 3_000_000] }))
        .route("/short", get(|| async { content()[..1000].to_vec() }))
        .route("/empty", get(|| async { "" }))
        .route(
            "/missing",
            get(|| async { (StatusCode::NOT_FOUND, "no such file") }),
        )
        .route("/cut", get(cut))
        .route("/stall", get(stall));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn plain() -> Artifact {
    Artifact {
        name: "tool".to_owned(),
        version: "1".to_owned(),
        urls: Vec::new(),
        digest: sha256(&content()),
        size: Some(content().len() as u64),
        packing: Packing::Plain,
        files: vec![ArtifactFile {
            member: None,
            path: "/opt/bin/tool".to_owned(),
        }],
    }
}

async fn fetch(store: &Store, artifact: &Artifact, url: &str) -> Result<()> {
    let mut download = Download::start(&http::download_client()?, url, STALL).await?;
    let incoming = store.receive(artifact)?;
    while let Some(chunk) = download.chunk().await? {
        if !incoming.push(chunk).await {
            break;
        }
    }
    incoming.finish().await
}

struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
    address: SocketAddr,
}

async fn fixture() -> Fixture {
    // Another test may have been first; either way there is one provider.
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Root::new(folder.path()));
    store.sweep().unwrap();
    Fixture {
        store,
        address: server().await,
        folder,
    }
}

impl Fixture {
    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What the store holds, partial downloads included.
    fn entries(&self) -> Vec<String> {
        std::fs::read_dir(self.folder.path().join("opt/knode/store"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

#[tokio::test]
async fn good_bytes_are_stored_and_linked() {
    let fixture = fixture().await;
    let artifact = plain();
    fetch(&fixture.store, &artifact, &fixture.url("plain"))
        .await
        .unwrap();
    assert!(fixture.store.has(&artifact).unwrap());
    assert!(fixture.store.link(&artifact).unwrap());
    assert!(!fixture.store.link(&artifact).unwrap(), "linked twice");
    assert_eq!(fixture.entries(), [artifact.digest.hex()]);
    let stored = fixture
        .folder
        .path()
        .join("opt/knode/store")
        .join(artifact.digest.hex())
        .join("tool");
    assert_eq!(std::fs::read(&stored).unwrap(), content());
    assert_eq!(
        stored.metadata().unwrap().permissions().mode() & 0o7777,
        0o755
    );
    let link = fixture.folder.path().join("opt/bin/tool");
    assert!(
        link.read_link()
            .unwrap()
            .ends_with(artifact.digest.hex() + "/tool")
    );
}

#[tokio::test]
async fn wanted_members_of_an_archive_are_stored_and_no_others() {
    let fixture = fixture().await;
    let mut artifact = plain();
    artifact.digest = sha256(&archive());
    artifact.size = Some(archive().len() as u64);
    artifact.packing = Packing::TarGz;
    let file = |member: &str| ArtifactFile {
        member: Some(member.to_owned()),
        path: format!("/opt/{member}"),
    };
    artifact.files = vec![file("bin/b"), file("bin/a")];
    fetch(&fixture.store, &artifact, &fixture.url("archive"))
        .await
        .unwrap();
    assert!(fixture.store.has(&artifact).unwrap());
    let place = fixture
        .folder
        .path()
        .join("opt/knode/store")
        .join(artifact.digest.hex());
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 2);
    assert_eq!(std::fs::read(place.join("a")).unwrap(), content());

    artifact.files.push(file("bin/c"));
    let error = fetch(&fixture.store, &artifact, &fixture.url("archive"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FetchUnpack);
    assert!(error.story().contains("bin/c"), "{}", error.story());
}

/// F1, F2: whatever a mirror does wrong has its own code, and leaves nothing.
#[tokio::test]
async fn f1_bad_bytes_are_named_and_leave_nothing() {
    let fixture = fixture().await;
    let artifact = plain();
    for (path, code) in [
        ("wrong", Code::FetchHash),
        ("short", Code::FetchSize),
        ("empty", Code::FetchSize),
        ("missing", Code::FetchHttp),
        ("cut", Code::FetchSize),
        ("stall", Code::FetchStall),
    ] {
        let error = fetch(&fixture.store, &artifact, &fixture.url(path))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{path}: {}", error.story());
        assert!(!fixture.store.has(&artifact).unwrap(), "{path}");
    }
    // The worker of a given-up download removes its folder by itself.
    let gone = async {
        while !fixture.entries().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn nobody_listening_and_no_such_name_are_told_apart() {
    let fixture = fixture().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}/x", listener.local_addr().unwrap());
    drop(listener);
    let error = fetch(&fixture.store, &plain(), &closed).await.unwrap_err();
    assert_eq!(error.code(), Code::Connect, "{}", error.story());
    let nameless = "http://no-such-host.invalid/x";
    let error = fetch(&fixture.store, &plain(), nameless).await.unwrap_err();
    assert_eq!(error.code(), Code::Dns, "{}", error.story());
}
