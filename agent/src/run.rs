//! `knode run`: node.yaml → machine → graph → for ever.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use sd_notify::NotifyState;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::changes::follow::Follower;
use crate::changes::proof;
use crate::error::{Code, Context, Error, Result};
use crate::graph::Graph;
use crate::machine::Machine;
use crate::status::Status;
use crate::steps;
use crate::supervise;
use crate::sys::root::Root;
use crate::{metrics, node_condition};
use units::NodeConfig;
use units::node_config::{VERSION, Version};
use units::paths;
use units::types::NodeName;

/// The kernel's host name. Source: proc_sys_kernel(5).
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

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
    log(LevelFilter::INFO);
    runtime()?.block_on(async {
        let root = Root::new("/");
        root.create_dir(paths::RUN_DIR, 0o755)?;
        let listening = || "listening for signals".to_owned();
        let mut stop = signal(SignalKind::terminate()).context(Code::Disk, listening)?;
        let hang_up = signal(SignalKind::hangup()).context(Code::Disk, listening)?;
        tokio::select! {
            () = agent(root, hang_up) => {}
            () = watchdog() => {}
            _ = stop.recv() => {}
        }
        notify(&[NotifyState::Stopping]);
        tracing::info!("stopping; what it started goes on");
        Ok(ExitCode::SUCCESS)
    })
}

/// The journal takes fields; anything else gets lines. `KNODE_LOG` names another
/// level than `usual`: `debug`, or `knode=debug,zbus=warn`.
pub(crate) fn log(usual: LevelFilter) {
    let wanted = std::env::var("KNODE_LOG").ok();
    let filter = wanted
        .and_then(|text| text.parse::<Targets>().ok())
        .unwrap_or_else(|| Targets::new().with_default(usual));
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    // KNODE_STEP=fetch, KNODE_CODE=E-FETCH-HASH: see docs/supervision.md.
    let journal = journal.map(|layer| layer.with_field_prefix(Some("KNODE".to_owned())));
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
///
/// Each node.yaml has steps of its own. What watches and tells goes on from one
/// to the next, and so does the balancer.
async fn agent(root: Root, hang_up: Signal) {
    let status = Status::new(root.clone(), []);
    let mut follower = Follower::new(root.clone(), hang_up);
    let (name, config) = follower.next(&status).await;
    let mut machine = Machine::new(config, name, root.clone(), status.clone());
    machine.refused = follower.refused();
    let machines = watch::Sender::new(Arc::new(machine));
    let lasting = steps::Lasting::default();
    let mut ready = false;
    let mut always = JoinSet::new();
    always.spawn(supervise::run(machines.subscribe()));
    always.spawn(metrics::run(root, status.clone()));
    loop {
        let machine = Arc::clone(&machines.borrow());
        let graph = match Graph::new(steps::lasting(&machine.config, &lasting)) {
            Ok(graph) => graph,
            // Every set of services is tested to be a graph.
            Err(error) => return tracing::error!("{error}"),
        };
        status.begin_anew(graph.names(), follower.digest());
        let (name, role) = (machine.name.clone(), machine.config.node.role);
        status.identify(name.clone(), role);
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(node = %name, %role, version, config = follower.digest(), "begins");
        let (tell, mut all_done) = watch::channel(false);
        let mut tasks = graph.run(Arc::clone(&machine), &status, tell);
        tasks.spawn(node_condition::run(Arc::clone(&machine)));
        tasks.spawn(proof::run(Arc::clone(&machine)));
        let mut applied = false;
        let (name, config) = loop {
            tokio::select! {
                _ = all_done.wait_for(|done| *done), if !applied => {
                    applied = true;
                    if ready {
                        tracing::info!(config = follower.digest(), "the new node.yaml is applied");
                    } else {
                        notify(&[NotifyState::Ready]);
                        ready = true;
                    }
                }
                next = follower.next(&status) => break next,
                () = ended(&mut tasks) => return,
                () = ended(&mut always) => return,
            }
        };
        // Each step may be ended anywhere; none is left when the next begin.
        tasks.shutdown().await;
        machines.send_replace(Arc::new(machine.with(config, name)));
    }
}

/// Steps never end by themselves; one that panicked ends the agent, and
/// systemd starts it anew.
async fn ended(tasks: &mut JoinSet<()>) {
    if let Some(Err(error)) = tasks.join_next().await {
        tracing::error!("a step ended: {error}");
    }
}

/// Reads node.yaml, once: what the machine is called and is, both after its
/// host name where the document is for several machines.
///
/// # Errors
///
/// [`Code::ConfigRead`], [`Code::ConfigInvalid`], [`Code::HostName`].
pub fn read_configuration(root: &Root) -> Result<(NodeName, NodeConfig)> {
    resolve(root, read_file(root, None)?)
}

/// The same of a node.yaml's text, which errors call `name`.
///
/// # Errors
///
/// [`Code::ConfigInvalid`], [`Code::HostName`].
pub fn understand(root: &Root, text: &str, name: &str) -> Result<(NodeName, NodeConfig)> {
    resolve(root, parse(text, name)?)
}

fn resolve(root: &Root, mut config: NodeConfig) -> Result<(NodeName, NodeConfig)> {
    let host_name = root.read_if_exists(HOST_NAME)?.unwrap_or_default();
    let host_name = String::from_utf8_lossy(&host_name);
    let name = config
        .resolve(host_name.trim())
        .map_err(|error| Error::new(Code::HostName, error.to_string()))?;
    Ok((name, config))
}

/// Reads a node.yaml, the machine's own or, for an image, any file: what it
/// says of every machine that it is for.
///
/// # Errors
///
/// [`Code::ConfigRead`], [`Code::ConfigInvalid`].
pub fn read_file(root: &Root, file: Option<&Path>) -> Result<NodeConfig> {
    let (text, name) = match file {
        None => (
            root.read_to_string(paths::NODE_CONFIG)
                .map_err(|error| Error::new(Code::ConfigRead, error.to_string()))?,
            paths::NODE_CONFIG.to_owned(),
        ),
        Some(file) => {
            let doing = || format!("reading {}", file.display());
            let path = std::path::absolute(file).context(Code::ConfigRead, doing)?;
            let text = Root::default().read_to_string(path);
            let text = text.map_err(|error| Error::new(Code::ConfigRead, error.to_string()))?;
            (text, file.display().to_string())
        }
    };
    parse(&text, &name)
}

fn parse(text: &str, name: &str) -> Result<NodeConfig> {
    let doing = || format!("reading {name}");
    let value = yaml(text).context(Code::ConfigInvalid, doing)?;
    let version = Version::deserialize(&value).context(Code::ConfigInvalid, doing)?;
    if version.version != VERSION {
        return Err(Error::new(
            Code::ConfigInvalid,
            format!(
                "{name} has version {}, this knode reads version {VERSION}",
                version.version
            ),
        ));
    }
    NodeConfig::deserialize(value).context(Code::ConfigInvalid, doing)
}

/// The tree first and the types from it: a reader for each type of its own would
/// be a tenth of the program. The reader's own errors show the lines around the place; ours are one line,
/// and nothing of the file goes to the console.
fn yaml(text: &str) -> Result<Value, serde_yaml::Error> {
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
