//! `knode run`: node.yaml → machine → graph → for ever.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::error::{Code, Context, Error, Result};
use crate::graph::Graph;
use crate::machine::Machine;
use crate::retry::Backoff;
use crate::status::Status;
use crate::steps;
use crate::sys::root::Root;
use units::NodeConfig;
use units::node_config::{VERSION, Version};
use units::paths;

/// The asynchronous runtime: one thread, since the agent mostly waits.
///
/// # Errors
///
/// The kernel gives no event queue.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(Code::Disk, || "starting the event loop".to_owned())
}

/// Runs the agent until it is told to stop.
///
/// # Errors
///
/// Only what keeps the agent itself from running; everything else is told in
/// the status and tried again.
pub fn run() -> Result<ExitCode> {
    log();
    runtime()?.block_on(async {
        let root = Root::new("/");
        root.create_dir(paths::RUN_DIR, 0o755)?;
        let mut stop = signal(SignalKind::terminate())
            .context(Code::Disk, || "listening for signals".to_owned())?;
        tokio::select! {
            () = agent(root) => {}
            () = watchdog() => {}
            _ = stop.recv() => {}
        }
        notify(&[NotifyState::Stopping]);
        tracing::info!("stopping; what it started goes on");
        Ok(ExitCode::SUCCESS)
    })
}

/// The journal takes fields; anything else gets lines. `KNODE_LOG` names another
/// level than `info`: `debug`, or `knode=debug,zbus=warn`.
fn log() {
    let wanted = std::env::var("KNODE_LOG").ok();
    let filter = wanted
        .and_then(|text| text.parse::<Targets>().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let lines = journal
        .is_none()
        .then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr));
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(lines)
        .init();
}

/// Never returns; everything it meets is told and tried again.
async fn agent(root: Root) {
    let config = configuration(&root).await;
    let graph = match Graph::new(steps::of(&config)) {
        Ok(graph) => graph,
        // Every set of services is tested to be a graph.
        Err(error) => return tracing::error!("{error}"),
    };
    let status = Status::new(root.clone(), graph.names());
    status.identify(config.node.name.clone(), config.node.role);
    tracing::info!(node = %config.node.name, role = %config.node.role, version = env!("CARGO_PKG_VERSION"), "begins");
    let machine = Arc::new(Machine::new(config, root, status.clone()));
    let (tell, mut all_done) = watch::channel(false);
    let mut tasks = graph.run(machine, &status, tell);
    tokio::select! {
        _ = all_done.wait_for(|done| *done) => notify(&[NotifyState::Ready]),
        () = ended(&mut tasks) => return,
    }
    ended(&mut tasks).await;
}

/// Steps never end by themselves; one that panicked ends the agent, and
/// systemd starts it anew.
async fn ended(tasks: &mut tokio::task::JoinSet<()>) {
    if let Some(Err(error)) = tasks.join_next().await {
        tracing::error!("a step ended: {error}");
    }
}

/// Reads node.yaml; a bad one is told, and read again in case it is mended.
async fn configuration(root: &Root) -> NodeConfig {
    let status = Status::new(root.clone(), []);
    let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
    let mut told = String::new();
    loop {
        match read_configuration(root) {
            Ok(config) => return config,
            Err(error) => {
                if error.story() != told {
                    told = error.story();
                    status.failed_outside(&error);
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Reads node.yaml, once.
///
/// # Errors
///
/// [`Code::ConfigRead`], [`Code::ConfigInvalid`].
pub fn read_configuration(root: &Root) -> Result<NodeConfig> {
    let text = root
        .read_to_string(paths::NODE_CONFIG)
        .map_err(|error| Error::new(Code::ConfigRead, error.to_string()))?;
    let doing = || format!("reading {}", paths::NODE_CONFIG);
    let version: Version = yaml(&text).context(Code::ConfigInvalid, doing)?;
    if version.version != VERSION {
        return Err(Error::new(
            Code::ConfigInvalid,
            format!(
                "{} has version {}, this knode reads version {VERSION}",
                paths::NODE_CONFIG,
                version.version
            ),
        ));
    }
    yaml(&text).context(Code::ConfigInvalid, doing)
}

/// The reader's own errors show the lines around the place; ours are one line,
/// and nothing of the file goes to the console.
fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, serde_yaml::Error> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { with_snippet: false })
}

/// Tells systemd that the event loop turns, twice as often as it asks.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(limit / 2).await;
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot notify systemd: {error}");
    }
}
