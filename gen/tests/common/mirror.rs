//! A mirror of what is published, laid out as the real places are, that does
//! as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256, Sha512};

/// What is served, and what was asked.
#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    /// So many more answers of 503 for a path.
    faults: BTreeMap<String, usize>,
    pages: Vec<String>,
    /// Paths that are elsewhere.
    moved: BTreeMap<String, String>,
    no_head: bool,
    asked: Vec<String>,
}

/// A server on loopback, for as long as the test runs.
pub struct Mirror {
    pub url: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Mirror {
    pub fn new() -> Self {
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let (send, receive) = std::sync::mpsc::channel();
        let state = Arc::clone(&shelf);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                let router = Router::new().fallback(answer).with_state(state);
                axum::serve(listener, router).await.unwrap();
            });
        });
        let url = format!("http://{}", receive.recv().unwrap());
        Self { url, shelf }
    }

    /// A mirror with everything of a default cluster, its checksum files
    /// written as each project writes them.
    pub fn full(arch: &str) -> Self {
        let mirror = Self::new();
        for program in [
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ] {
            mirror.kubernetes("1.36.1", arch, program);
        }
        mirror.etcd("3.6.14", arch);
        mirror.containerd("2.3.4", arch);
        let runc = format!("runc.{arch}");
        let folder = "github.com/opencontainers/runc/releases/download/v1.4.3";
        let sum = mirror.put(&format!("{folder}/{runc}"), b"runc");
        let other = "00".repeat(32);
        let sums = format!("{other}  runc.riscv64\n{sum} *{runc}\n");
        mirror.put(&format!("{folder}/runc.sha256sum"), sums.as_bytes());
        let cni = format!("cni-plugins-linux-{arch}-v1.9.1.tgz");
        let folder = "github.com/containernetworking/plugins/releases/download/v1.9.1";
        let sum = mirror.put(&format!("{folder}/{cni}"), b"plugins");
        mirror.put(
            &format!("{folder}/{cni}.sha256"),
            format!("{sum}  {cni}\n").as_bytes(),
        );
        mirror
    }

    /// A program of a release, with the bare checksum beside it.
    pub fn kubernetes(&self, version: &str, arch: &str, program: &str) {
        let place = format!("dl.k8s.io/v{version}/bin/linux/{arch}/{program}");
        let sum = self.put(&place, format!("{program} {version}").as_bytes());
        self.put(&format!("{place}.sha256"), sum.as_bytes());
    }

    /// etcd, with one file of checksums for the release.
    pub fn etcd(&self, version: &str, arch: &str) {
        let folder = format!("github.com/etcd-io/etcd/releases/download/v{version}");
        let etcd = format!("etcd-v{version}-linux-{arch}.tar.gz");
        let sum = self.put(&format!("{folder}/{etcd}"), b"etcd");
        let other = "00".repeat(32);
        let sums = format!("{other}  etcd-v{version}-darwin-{arch}.zip\n{sum}  {etcd}\n");
        self.put(&format!("{folder}/SHA256SUMS"), sums.as_bytes());
    }

    /// containerd, with `.sha256sum` beside it.
    pub fn containerd(&self, version: &str, arch: &str) {
        let folder = format!("github.com/containerd/containerd/releases/download/v{version}");
        let file = format!("containerd-{version}-linux-{arch}.tar.gz");
        let sum = self.put(&format!("{folder}/{file}"), b"containerd");
        self.put(
            &format!("{folder}/{file}.sha256sum"),
            format!("{sum}  {file}\n").as_bytes(),
        );
    }

    /// Serves bytes; their SHA-256.
    pub fn put(&self, path: &str, bytes: &[u8]) -> String {
        let files = &mut self.shelf.lock().unwrap().files;
        files.insert(format!("/{path}"), bytes.to_vec());
        sha256(bytes)
    }

    pub fn remove(&self, path: &str) {
        let gone = self.shelf.lock().unwrap().files.remove(&format!("/{path}"));
        assert!(gone.is_some(), "{path} was not there");
    }

    /// The next answers for a path are 503.
    pub fn fail(&self, path: &str, times: usize) {
        let faults = &mut self.shelf.lock().unwrap().faults;
        faults.insert(format!("/{path}"), times);
    }

    /// A web page instead of a file.
    pub fn page(&self, path: &str) {
        self.put(path, b"<!DOCTYPE html>\n<html>log in</html>\n");
        self.shelf.lock().unwrap().pages.push(format!("/{path}"));
    }

    /// A file is elsewhere, as GitHub's and dl.k8s.io's are.
    pub fn move_away(&self, from: &str, to: &str) {
        let mut shelf = self.shelf.lock().unwrap();
        let bytes = shelf.files.remove(&format!("/{from}")).unwrap();
        shelf.files.insert(format!("/{to}"), bytes);
        shelf.moved.insert(format!("/{from}"), format!("/{to}"));
    }

    /// Knows GET alone.
    pub fn without_head(&self) {
        self.shelf.lock().unwrap().no_head = true;
    }

    /// What was asked since the last time: `GET /path`.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shelf.lock().unwrap().asked)
    }
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let mut shelf = shelf.lock().unwrap();
    let path = request.uri().path().to_owned();
    shelf.asked.push(format!("{} {path}", request.method()));
    if let Some(left) = shelf.faults.get_mut(&path).filter(|left| **left > 0) {
        *left -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if request.method() == Method::HEAD && shelf.no_head {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if let Some(to) = shelf.moved.get(&path) {
        return (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response();
    }
    let Some(bytes) = shelf.files.get(&path) else {
        return (StatusCode::NOT_FOUND, "Not Found").into_response();
    };
    let kind = if shelf.pages.contains(&path) {
        "text/html"
    } else {
        "application/octet-stream"
    };
    let kind: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, kind)];
    (kind, bytes.clone()).into_response()
}

pub fn sha256(bytes: &[u8]) -> String {
    units::types::to_hex(&Sha256::digest(bytes))
}

pub fn sha512(bytes: &[u8]) -> String {
    units::types::to_hex(&Sha512::digest(bytes))
}
