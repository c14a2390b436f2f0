//! Measuring: medians of several runs, in turn, told as Markdown and JSON.

// Not every benchmark uses all of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How often each contestant runs.
pub const RUNS: usize = 5;

/// What is compared.
pub struct Contestant<'a> {
    pub name: &'a str,
    /// One run; returns the peak of its resident memory where that was looked
    /// at, in KiB.
    pub run: Box<dyn FnMut() -> Option<u64> + 'a>,
    /// Clears up between runs; not measured.
    pub clear: Box<dyn FnMut() + 'a>,
}

/// Runs all in turn, so that a machine's moods meet each of them. The first one
/// is ours.
pub fn compare(title: &str, mut contestants: Vec<Contestant<'_>>, runs: usize) -> Value {
    let mut times = vec![Vec::new(); contestants.len()];
    let mut work = times.clone();
    let mut peaks = vec![None; contestants.len()];
    for _ in 0..runs {
        for (index, contestant) in contestants.iter_mut().enumerate() {
            (contestant.clear)();
            let (began, before) = (Instant::now(), processors());
            let peak = (contestant.run)();
            times[index].push(began.elapsed());
            work[index].push(processors() - before);
            peaks[index] = peaks[index].max(peak);
        }
    }
    for contestant in &mut contestants {
        (contestant.clear)();
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let work: Vec<f64> = work.into_iter().map(median).collect();
    println!("\n### {title}\n");
    println!("| What | Median, s | Ours / this | Processor time, s | Peak memory, MiB |");
    println!("|---|---|---|---|---|");
    let mut rows = Vec::new();
    for (index, contestant) in contestants.iter().enumerate() {
        let (name, seconds, work, peak) =
            (contestant.name, medians[index], work[index], peaks[index]);
        let ratio = medians[0] / seconds;
        let shown = peak.map_or(String::new(), |kib| format!("{:.1}", kib as f64 / 1024.0));
        println!("| {name} | {seconds:.3} | {ratio:.2} | {work:.2} | {shown} |");
        rows.push(json!({
            "what": name, "seconds": seconds, "ratio": ratio, "processorSeconds": work,
            "peakKiB": peak,
        }));
    }
    json!({ "title": title, "runs": runs, "rows": rows })
}

/// What children that ended have worked until now, as user and in the kernel
/// (cutime and cstime of proc_pid_stat(5), in hundredths of a second); busy
/// neighbours do not change it much.
fn processors() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("a /proc");
    let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
    let ticks = fields.split(' ').skip(13).take(2);
    let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

/// The median, in seconds.
pub fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// Writes the results as JSON, and says where.
pub fn keep(name: &str, results: &[Value]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("bench-{name}.json"));
    let text = serde_json::to_string_pretty(results).expect("JSON");
    std::fs::write(&path, text).expect("written");
    println!("\nAs JSON: {}", path.display());
}

/// An empty folder, in `$KNODE_BENCH_DIR` or else beside what is built.
pub fn folder(name: &str) -> PathBuf {
    let place = std::env::var_os("KNODE_BENCH_DIR");
    let place = place.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let path = Path::new(&place).join(name);
    empty(&path);
    path
}

/// Makes a folder empty.
pub fn empty(path: &Path) {
    if path.exists() {
        std::fs::remove_dir_all(path).expect("removed");
    }
    std::fs::create_dir_all(path).expect("made");
}

/// Runs a shell's script, which has to succeed.
pub fn shell(script: &str) {
    let status = Command::new("bash")
        .args(["-ec", script])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("bash").success(), "{script}");
}

/// Runs a program, which has to succeed, and returns its peak of memory, KiB.
pub fn watched(command: &mut Command) -> Option<u64> {
    let mut child = command.stdout(Stdio::null()).spawn().expect("started");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        peak = peak.max(kib);
        if let Some(status) = child.try_wait().expect("waited") {
            assert!(status.success(), "{command:?}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
