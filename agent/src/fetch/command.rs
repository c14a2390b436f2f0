//! `knode fetch`: what the step does, once; for people, for programs, and for
//! whoever builds an image.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use tracing_subscriber::filter::LevelFilter;

use super::board::progress;
use super::{Board, Entry, Fetcher, State, Transfer, limits};
use crate::error::{Code, Context as _, Result};
use crate::run;
use crate::status::Failure;
use crate::sys::root::Root;
use crate::sys::store::Store;
use units::node_config::Artifact;

/// What the command is asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Read what to fetch here, instead of from ROOT/etc/knode/node.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The root of the machine that the artifacts are for: an image's folder.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Give up after so many seconds; by default as long as bytes come.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Read all of what is in the store already, and check its hashes.
    #[arg(long)]
    verify: bool,
    /// Print what was done as JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// How often bars are drawn.
const FRAME: Duration = Duration::from_millis(200);
/// How wide a bar is, in columns.
const BAR: usize = 24;

/// Fetches what node.yaml names. Exit code 4 where something is missing in
/// the end.
///
/// # Errors
///
/// [`Code::ConfigRead`], [`Code::ConfigInvalid`]: there is nothing to go by;
/// [`Code::Disk`]: the store cannot be used at all.
pub fn fetch(arguments: &Arguments) -> Result<ExitCode> {
    let root = Root::new(arguments.root.clone());
    let config = run::read_file(&root, arguments.config.as_deref())?;
    // What comes with an image is offered to neighbours as well.
    let offers = config.neighbours.is_some();
    let artifacts = config.artifacts;
    let bars = !arguments.json && std::io::stdout().is_terminal();
    if !bars {
        run::log(LevelFilter::WARN);
    }
    let began = Instant::now();
    let board = Board::new(&artifacts);
    let mut lines = Lines::new(arguments.json || bars);
    run::runtime()?.block_on(async {
        let mut limits = limits();
        limits.deadline = arguments
            .timeout
            .map(|seconds| tokio::time::Instant::now() + Duration::from_secs(seconds));
        let store = Store::new(root).keeping_downloads(offers);
        let fetcher = Fetcher::new(store, limits);
        let there = |artifact: &Artifact| board.stored(&artifact.name);
        let missing = fetcher.missing(&artifacts, arguments.verify, there).await?;
        let all = join_all(
            missing
                .iter()
                .map(|artifact| once(&fetcher, &board, artifact)),
        );
        let shown = watch(&board, bars, &mut lines);
        tokio::select! {
            _ = all => {}
            () = shown => {}
        }
        if board.failure().is_none() {
            fetcher.store().collect(&artifacts)?;
        }
        Ok::<_, crate::error::Error>(())
    })?;
    let entries = board.entries();
    if arguments.json {
        let report = Report::new(&entries, began.elapsed());
        let text = serde_json::to_string_pretty(&report);
        say(&(text.context(Code::Disk, || "putting the report into words".to_owned())? + "\n"));
    } else {
        if bars {
            say(&drawn(&entries));
            lines.silent = false;
            lines.told = entries.iter().map(|e| e.failure.is_none()).collect();
        }
        lines.tell(&entries);
        say(&summary(&entries, began.elapsed()));
    }
    Ok(match board.failure() {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(4),
    })
}

async fn once(fetcher: &Fetcher, board: &Board, artifact: &Artifact) {
    let fetched = async {
        let bytes = Transfer::new(artifact)
            .round(fetcher, board, None)
            .await
            .map_err(|failed| failed.error)?;
        fetcher.store().link(artifact)?;
        Ok(bytes)
    };
    match fetched.await {
        Ok(bytes) => board.fetched(&artifact.name, bytes),
        Err(error) => board.failed(&artifact.name, &error, None),
    }
}

/// Draws bars, or writes a line for each that is done; for ever.
async fn watch(board: &Board, bars: bool, lines: &mut Lines) {
    loop {
        tokio::time::sleep(FRAME).await;
        let entries = board.entries();
        if bars {
            // Up again, over what is drawn here.
            say(&format!(
                "{}\x1b[{}A",
                drawn(&entries),
                entries.len().max(1)
            ));
        }
        lines.tell(&entries);
    }
}

/// A line for each artifact, once.
struct Lines {
    silent: bool,
    told: Vec<bool>,
}

impl Lines {
    fn new(silent: bool) -> Self {
        let told = Vec::new();
        Self { silent, told }
    }

    fn tell(&mut self, entries: &[Entry]) {
        self.told.resize(entries.len(), false);
        for (entry, told) in entries.iter().zip(&mut self.told) {
            if let (false, false, Some(line)) = (self.silent, *told, plain(entry)) {
                say(&line);
                *told = true;
            }
        }
    }
}

/// A line for each, each cleared to its end (ECMA-48, EL).
fn drawn(entries: &[Entry]) -> String {
    let width = entries.iter().map(|e| e.name.len()).max().unwrap_or(0);
    let line = |entry: &Entry| {
        let (part, text) = match &entry.state {
            State::Stored => (1.0, "in the store".to_owned()),
            State::Fetched { bytes } => (1.0, format!("{} MB", bytes / 1_000_000)),
            State::Queued => (0.0, "waits".to_owned()),
            State::Failed { .. } => {
                let code = entry.failure.as_ref().map(|(code, _)| code.as_str());
                (0.0, code.unwrap_or_default().to_owned())
            }
            State::Loading { at, from } => {
                let part = entry.total.filter(|total| *total > 0);
                let part = part.map_or(0.0, |total| *at as f64 / total as f64);
                (part, format!("{} from {from}", progress(*at, entry.total)))
            }
        };
        let full = ((part * BAR as f64) as usize).min(BAR);
        let (full, rest) = ("#".repeat(full), "-".repeat(BAR - full));
        format!("{:width$}  {full}{rest}  {text}\x1b[K\n", entry.name)
    };
    entries.iter().map(line).collect()
}

/// What became of one that is done or given up.
fn plain(entry: &Entry) -> Option<String> {
    let Entry { name, version, .. } = entry;
    Some(match &entry.state {
        State::Stored => format!("{name} {version}: in the store\n"),
        State::Fetched { bytes } => format!("{name} {version}: {} MB\n", bytes / 1_000_000),
        State::Failed { .. } => {
            let (code, story) = entry.failure.as_ref()?;
            format!("{name} {version}: {code}: {story}\n{}\n", code.cure())
        }
        State::Queued | State::Loading { .. } => return None,
    })
}

/// The end: how much was fetched, and how much is missing.
fn summary(entries: &[Entry], took: Duration) -> String {
    let mut text = String::new();
    let report = Report::new(entries, took);
    let missing = report.artifacts.iter().filter(|a| a.failure.is_some());
    match missing.count() {
        0 => {}
        missing => text.push_str(&format!("{missing} missing; ")),
    }
    text.push_str(&format!(
        "{} artifacts, {} MB fetched in {:.1} s\n",
        entries.len(),
        report.artifacts.iter().map(|a| a.bytes).sum::<u64>() / 1_000_000,
        took.as_secs_f64()
    ));
    text
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    seconds: f64,
    artifacts: Vec<Outcome>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    name: String,
    version: String,
    /// `stored`, `fetched` or `failed`.
    outcome: &'static str,
    /// Bytes that were downloaded.
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

impl Report {
    fn new(entries: &[Entry], took: Duration) -> Self {
        let outcome = |entry: &Entry| {
            let (outcome, bytes) = match entry.state {
                State::Stored => ("stored", 0),
                State::Fetched { bytes } => ("fetched", bytes),
                _ => ("failed", 0),
            };
            Outcome {
                name: entry.name.clone(),
                version: entry.version.clone(),
                outcome,
                bytes,
                failure: entry.failure.as_ref().map(|(code, story)| Failure {
                    code: code.to_string(),
                    message: story.clone(),
                    cure: code.cure().to_owned(),
                }),
            }
        };
        Self {
            seconds: took.as_secs_f64(),
            artifacts: entries.iter().map(outcome).collect(),
        }
    }
}

/// A reader that went away does not end the work.
fn say(text: &str) {
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!("nobody listens: {error}");
    }
}
