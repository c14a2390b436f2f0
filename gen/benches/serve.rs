//! How long a thousand machines that boot at once wait for their documents from
//! `kgen serve`, beside nginx with the same files: R11.
//!
//!     cargo bench -p kgen --bench serve
//!
//! Prints Markdown on standard output and writes JSON beside the build's other
//! results. `KGEN_BENCH_MACHINES` is the number of machines (1000),
//! `KGEN_BENCH_RUNS` the number of runs of which medians are taken (7),
//! `KGEN_BENCH_PROGRAM` another kgen than the one that is built with it. nginx is
//! left out where it is not installed. Nothing fails by a time.
//!
//! kgen decides for each document, writes that to the disk and syncs it before
//! the first byte, and tells of it in a line; nginx logs as well, and none of
//! the rest.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bytes of a document: those of a node with its keys.
const DOCUMENT: usize = 30_000;
const NGINX: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 18_088);

/// A server that ends with this value.
struct Server(Child, SocketAddr);

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers only when it is asked to end.
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap();
    }
}

fn main() {
    let machines = number("KGEN_BENCH_MACHINES", 1000);
    let runs = number("KGEN_BENCH_RUNS", 7);
    let installed = Command::new("nginx").arg("-v").output().is_ok();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // One after the other, so that both have the machine's better and worse
    // moments.
    for _ in 0..runs {
        let folder = tempfile::tempdir().unwrap();
        let paths = render(folder.path(), machines);
        ours.push(boot(&kgen(folder.path()), &paths));
        if installed {
            theirs.push(boot(&nginx(folder.path()), &paths));
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let shown = |time: Option<Duration>| {
        time.map_or("-".to_owned(), |t| {
            format!("{:.1} ms", t.as_secs_f64() * 1e3)
        })
    };
    let ratio = ours
        .zip(theirs)
        .map(|(o, t)| t.as_secs_f64() / o.as_secs_f64());
    println!("\n| | Work | Ours | nginx | nginx / ours | Goal |");
    println!("|---|---|---|---|---|---|");
    println!(
        "| R11 | {machines} documents at once | {} | {} | {} | ≥ 0.50 |",
        shown(ours),
        shown(theirs),
        ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
    );
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve.json");
    let seconds = |time: Option<Duration>| time.map(|t| t.as_secs_f64());
    let all = json!({"id": "R11", "machines": machines, "runs": runs, "ours": seconds(ours),
        "nginx": seconds(theirs), "ratio": ratio});
    fs::write(&path, serde_json::to_string_pretty(&all).unwrap()).unwrap();
    println!("\nJSON: {}", path.display());
}

/// What is served, as `kgen render` writes it; the paths of documents.
fn render(folder: &Path, machines: usize) -> Vec<String> {
    let (mut known, mut paths) = (Vec::new(), Vec::new());
    for i in 0..machines {
        let own = format!("52-54-00-00-{:02x}-{:02x}", i >> 8, i & 255);
        fs::create_dir(folder.join(&own)).unwrap();
        fs::write(folder.join(&own).join("user-data"), vec![b'#'; DOCUMENT]).unwrap();
        known.push(json!({"name": format!("node-{i}"), "mac": own.replace('-', ":")}));
        paths.push(format!("/{own}/user-data"));
    }
    let index = json!({"version": 1, "cluster": "bench", "server": "http://127.0.0.1:1",
        "documents": "http://127.0.0.1:1", "boot": [], "machines": known});
    fs::write(folder.join("machines.json"), index.to_string()).unwrap();
    paths
}

fn kgen(folder: &Path) -> Server {
    let program =
        std::env::var_os("KGEN_BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_kgen").into());
    let mut child = Command::new(program)
        .args(["serve", "--listen", "127.0.0.1:0", "--from"])
        .arg(folder)
        .stdout(File::create(folder.join("requests")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stderr.take().unwrap());
    let mut lines = told.lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("http://")).unwrap();
    let address = line.split("http://").nth(1).unwrap().parse().unwrap();
    // Nothing more is said until the end.
    std::thread::spawn(move || lines.for_each(drop));
    wait(Server(child, address))
}

fn nginx(folder: &Path) -> Server {
    let root = folder.display();
    let conf = format!(
        "daemon off; user root; worker_processes auto; pid {root}/nginx.pid; error_log {root}/errors;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log {root}/requests-nginx; sendfile on; client_body_temp_path {root}/t1;\n\
         proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4;\n\
         scgi_temp_path {root}/t5; server {{ listen {NGINX} backlog=4096; root {root}; }} }}\n"
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, conf).unwrap();
    let child = Command::new("nginx")
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(&path)
        .spawn()
        .unwrap();
    wait(Server(child, NGINX))
}

fn wait(server: Server) -> Server {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(server.1).is_err() {
        assert!(Instant::now() < deadline, "nothing listens at {}", server.1);
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// From the first connection to the last byte of the last document.
fn boot(server: &Server, paths: &[String]) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let begun = Instant::now();
        let mut machines = JoinSet::new();
        for path in paths {
            machines.spawn(fetch(server.1, path.clone()));
        }
        while let Some(fetched) = machines.join_next().await {
            fetched.unwrap();
        }
        begun.elapsed()
    })
}

async fn fetch(address: SocketAddr, path: String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: boot\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::with_capacity(DOCUMENT + 1024);
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path}");
    assert!(answer.len() > DOCUMENT, "{path}: {}", answer.len());
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().unwrap())
}
