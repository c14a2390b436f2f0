//! How long kgen takes, beside its limits and kubeadm: R1 (one fresh master), R2
//! (thousands of machines) and R3 (the same again).
//!
//!     cargo bench -p kgen --bench scale
//!
//! Prints Markdown on standard output and writes JSON beside the build's other
//! results. `KGEN_BENCH_NODES` is the number of nodes (5000), `KGEN_BENCH_RUNS` the
//! number of runs of which medians are taken (5), `KUBE_BIN_DIR` the folder of
//! kubeadm (/opt/kubernetes/bin), `KGEN_BENCH_PROGRAM` another kgen than the one
//! that is built with it. Nothing fails by a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use serde_json::{Value, json};

/// A whole process: how long it took, and the most memory it had.
#[derive(Clone, Copy)]
struct Measured {
    seconds: f64,
    kib: i64,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    // The bench runs itself for each process, as the system only tells the most
    // that any child had.
    if let Some(at) = args.iter().position(|arg| arg == "--measure") {
        return measure(&args[at + 1..]);
    }
    let runs = number("KGEN_BENCH_RUNS", 5);
    let nodes = number("KGEN_BENCH_NODES", 5000);
    let mut rows = fresh_master(runs);
    let (of_many, folders) = many(runs, nodes);
    rows.extend(of_many);
    println!("\n| | Work | Ours | Memory | Limit | Ours / limit | Peer | Ours / peer |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in &rows {
        println!("{}", row.markdown());
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("scale.json");
    let all: Vec<Value> = rows.iter().map(Row::json).collect();
    fs::write(&path, serde_json::to_string_pretty(&all).unwrap()).unwrap();
    println!("\nJSON: {}", path.display());
    // A file system is slow where much was just removed, so it comes last.
    drop(folders);
}

struct Row {
    id: &'static str,
    work: String,
    ours: Measured,
    limit: Option<(&'static str, f64)>,
    peer: Option<(&'static str, Measured)>,
}

impl Row {
    fn markdown(&self) -> String {
        let ratio = |other: f64| format!("{:.2}", self.ours.seconds / other);
        let (limit, to_limit) = match self.limit {
            Some((what, seconds)) => (format!("{} ({what})", shown(seconds)), ratio(seconds)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (peer, to_peer) = match self.peer {
            Some((what, peer)) => (
                format!("{} {} ({what})", shown(peer.seconds), mib(peer.kib)),
                ratio(peer.seconds),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        format!(
            "| {} | {} | {} | {} | {limit} | {to_limit} | {peer} | {to_peer} |",
            self.id,
            self.work,
            shown(self.ours.seconds),
            mib(self.ours.kib)
        )
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "work": self.work,
            "seconds": self.ours.seconds,
            "kib": self.ours.kib,
            "limit": self.limit.map(|(what, seconds)| json!({"what": what, "seconds": seconds})),
            "peer": self.peer.map(|(what, peer)| {
                json!({"what": what, "seconds": peer.seconds, "kib": peer.kib})
            }),
        })
    }
}

fn shown(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.2} s")
    }
}

fn mib(kib: i64) -> String {
    format!("{} MiB", kib / 1024)
}

fn number(name: &str, default: usize) -> usize {
    let typed = std::env::var(name).ok();
    typed.map_or(default, |text| text.parse().expect(name))
}

/// R1: one master with a PKI of its own, from an empty folder.
fn fresh_master(runs: usize) -> Vec<Row> {
    const SETTINGS: &str = "format: cloud-init\nserviceAccountKey: ecdsa-p256\n\
        nodes: [{name: master, role: master, address: 10.0.0.1}]\n";
    let args = ["--role", "master"];
    let keys = std::cell::Cell::new(0);
    let ours = median(runs, || {
        let folder = folder(SETTINGS);
        let measured = run(&folder, &kgen(), &args);
        keys.set(count(&folder.path().join("pki"), ".key"));
        measured
    });
    let again = {
        let folder = folder(SETTINGS);
        run(&folder, &kgen(), &args);
        median(4 * runs, || run(&folder, &kgen(), &args))
    };
    let keys = keys.get();
    let limit = middle((0..runs).map(|_| crypto(keys, 1)).collect());
    let peer = kubeadm().map(|kubeadm| {
        let measured = median(runs, || {
            let folder = folder("");
            let config = format!(
                "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n\
                 kubernetesVersion: v1.36.0\nencryptionAlgorithm: ECDSA-P256\n\
                 certificatesDir: {}/pki\n",
                folder.path().display()
            );
            let path = folder.path().join("kubeadm.yaml");
            fs::write(&path, config).unwrap();
            let config = path.to_str().unwrap().to_owned();
            let args = ["init", "phase", "certs", "all", "--config", &config];
            run(&folder, &kubeadm, &args)
        });
        ("kubeadm init phase certs all", measured)
    });
    vec![
        Row {
            id: "R1",
            work: format!("kgen --role master, {keys} keys made"),
            ours,
            limit: Some(("the keys and signatures alone", limit)),
            peer,
        },
        Row {
            id: "",
            work: "the same again".to_owned(),
            ours: again,
            limit: None,
            peer: None,
        },
    ]
}

/// R2 and R3: everything for many machines, and the same again.
fn many(runs: usize, nodes: usize) -> (Vec<Row>, Vec<tempfile::TempDir>) {
    let mut settings = "format: cloud-init\nserviceAccountKey: ecdsa-p256\n\
        endpoint: https://10.0.0.2:6443\nnetwork: {podCIDR: 10.128.0.0/11}\nnodes:\n"
        .to_owned();
    for i in 0..3 {
        settings += &format!(
            "- {{name: master-{i}, role: master, address: 10.0.0.{}}}\n",
            10 + i
        );
        settings += &format!(
            "- {{name: etcd-{i}, role: etcd, address: 10.0.0.{}}}\n",
            20 + i
        );
    }
    for i in 0..nodes {
        let (b, c) = (1 + i / 250, 1 + i % 250);
        settings += &format!("- {{name: node-{i}, role: node, address: 10.{b}.1.{c}}}\n");
    }
    let args = ["render", "-o", "out"];
    let (mut again, mut folders) = (Vec::new(), Vec::new());
    let keys = std::cell::Cell::new(0);
    let first = median(runs.min(3), || {
        let folder = folder(&settings);
        let first = run(&folder, &kgen(), &args);
        keys.set(count(&folder.path().join("pki"), ".key"));
        again.push(run(&folder, &kgen(), &args));
        folders.push(folder);
        first
    });
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let limit = middle((0..3).map(|_| crypto(keys.get(), processors)).collect());
    again.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let again = again[again.len() / 2];
    let rows = vec![
        Row {
            id: "R2",
            work: format!(
                "kgen render, {nodes} nodes, 3 masters, 3 etcd: {} keys",
                keys.get()
            ),
            ours: first,
            limit: Some(("the keys and signatures alone, on all processors", limit)),
            peer: None,
        },
        Row {
            id: "R3",
            work: "the same again, nothing changed".to_owned(),
            ours: again,
            limit: Some(("a fifth of R2", first.seconds / 5.0)),
            peer: None,
        },
    ];
    (rows, folders)
}

/// So many keys and signatures, without anything else: seconds.
fn crypto(keys: usize, threads: usize) -> f64 {
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..keys.div_ceil(threads) {
                    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
                    key.sign(&[0; 400]).unwrap();
                }
            });
        }
    });
    begin.elapsed().as_secs_f64()
}

/// A folder with settings, and a lock that names knode, so that none is hashed.
fn folder(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(folder.path().join("cluster.yaml"), settings).unwrap();
    let lock = format!(
        "version: 1\nartifacts:\n- {{name: knode, version: 0.1.0, arch: amd64, \
         url: \"https://mirror.example.com/knode\", sha256: {}}}\n",
        "0a".repeat(32)
    );
    fs::write(folder.path().join("kgen.lock"), lock).unwrap();
    folder
}

fn kgen() -> PathBuf {
    let other = std::env::var_os("KGEN_BENCH_PROGRAM");
    other.map_or_else(|| env!("CARGO_BIN_EXE_kgen").into(), PathBuf::from)
}

fn kubeadm() -> Option<PathBuf> {
    let folder = std::env::var_os("KUBE_BIN_DIR").unwrap_or("/opt/kubernetes/bin".into());
    let kubeadm = Path::new(&folder).join("kubeadm");
    if !kubeadm.exists() {
        println!(
            "kubeadm is not in {}: left out",
            Path::new(&folder).display()
        );
        return None;
    }
    Some(kubeadm)
}

fn run(folder: &tempfile::TempDir, program: &Path, args: &[&str]) -> Measured {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("--measure")
        .arg(program)
        .args(args)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", program.display());
    let text = String::from_utf8(output.stdout).unwrap();
    let (seconds, kib) = text.trim().split_once(' ').unwrap();
    Measured {
        seconds: seconds.parse().unwrap(),
        kib: kib.parse().unwrap(),
    }
}

fn measure(command: &[String]) {
    let begin = Instant::now();
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}");
    let kib = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!("{seconds} {kib}");
}

fn count(folder: &Path, ending: &str) -> usize {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                count(&path, ending)
            } else {
                usize::from(path.to_string_lossy().ends_with(ending))
            }
        })
        .sum()
}

fn median(runs: usize, mut once: impl FnMut() -> Measured) -> Measured {
    let mut all: Vec<Measured> = (0..runs.max(1)).map(|_| once()).collect();
    all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let kib = all.iter().map(|m| m.kib).max().unwrap_or(0);
    Measured {
        kib,
        ..all[all.len() / 2]
    }
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
