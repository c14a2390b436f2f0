//! Starting services through systemd, which owns the processes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::static_pods;
use crate::changes::{applied, inputs};
use crate::error::{Code, Context, Error, Result};
use crate::machine::Machine;
use crate::supervise::way_back;
use crate::sys::bus::{self, Bus, UnitState};
use crate::sys::store::Store;
use crate::upgrade::{self, Before};
use units::node_config::Service;
use units::paths;

/// What to do with a service that already runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfActive {
    /// It is as it should be.
    Leave,
    /// What it reads at its start has changed.
    Restart,
}

/// The agent's one connection: each costs both ends memory, and every look
/// of every step a handshake.
static BUS: Mutex<Option<(Bus, Instant)>> = Mutex::const_new(None);
/// How long a connection that works takes to say so.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it is taken for one that works, after it said so. Steps come in swarms.
const FRESH: Duration = Duration::from_secs(5);

/// A connection to systemd: the agent's own, made anew where it is lost.
///
/// # Errors
///
/// [`Code::Bus`]: there is no bus.
pub async fn connect() -> Result<Bus> {
    let mut known = BUS.lock().await;
    if let Some((bus, asked)) = known.as_mut() {
        if asked.elapsed() < FRESH {
            return Ok(bus.clone());
        }
        if let Ok(Ok(())) = tokio::time::timeout(ANSWER, bus.ping()).await {
            *asked = Instant::now();
            return Ok(bus.clone());
        }
    }
    let bus = Bus::connect().await;
    let bus = bus.context(Code::Bus, || "connecting to systemd".to_owned())?;
    *known = Some((bus.clone(), Instant::now()));
    Ok(bus)
}

/// The service runs, with what it reads at its start as this node.yaml has it;
/// says whether it had to be started.
///
/// # Errors
///
/// [`Code::UnitFailed`] with systemd's reason; [`Code::Drain`] before a
/// kubelet's other version.
pub async fn ensure_active(
    machine: &Machine,
    bus: &Bus,
    service: Service,
    if_active: IfActive,
) -> Result<bool> {
    let ended = bring(machine, bus, service, if_active, Duration::MAX).await?;
    // No start takes for ever and ends.
    Ok(ended.unwrap_or(true))
}

/// The same, with a limit for the start itself; `None` when it is over, and
/// systemd goes on trying. What is waited for before the start has no limit.
///
/// # Errors
///
/// As [`ensure_active`].
pub async fn ensure_active_within(
    machine: &Machine,
    bus: &Bus,
    service: Service,
    limit: Duration,
) -> Result<Option<bool>> {
    bring(machine, bus, service, IfActive::Leave, limit).await
}

async fn bring(
    machine: &Machine,
    bus: &Bus,
    service: Service,
    if_active: IfActive,
    limit: Duration,
) -> Result<Option<bool>> {
    let unit = service.unit();
    let look = || format!("looking at {unit}");
    if if_active == IfActive::Leave && settled(machine).contains(&service) {
        let activity = bus.activity(unit).await.context(Code::Bus, look)?;
        if activity.is_active() {
            return Ok(Some(false));
        }
    }
    let mut state = bus.unit(unit).await.context(Code::Bus, look)?;
    let news = news(machine, service, &state)?;
    if !state.is_loaded() || news.iter().any(|path| inputs::is_for_systemd(path)) {
        // Its file may be younger than systemd's last look.
        bus.daemon_reload().await.context(Code::Bus, look)?;
        state = bus.unit(unit).await.context(Code::Bus, look)?;
    }
    if !news.is_empty() {
        tracing::info!(%service, "{service} is to read anew: {}", news.join(", "));
    }
    let running = state.is_active();
    if running && news.is_empty() && if_active == IfActive::Leave {
        keep_inputs(machine, service)?;
        return Ok(Some(false));
    }
    let link = program(service).display().to_string();
    let before = Before {
        running,
        program: news.contains(&link),
    };
    upgrade::turn(machine, service, before).await?;
    let start = async {
        match (running, if_active) {
            (true, _) => Ok::<_, Error>(bus.restart(unit).await),
            // A start that goes on for long goes on with what was read before.
            (false, _) if state.active == "activating" && !news.is_empty() => {
                Ok(bus.restart(unit).await)
            }
            (false, _) => {
                if state.active != "activating" {
                    keep_inputs(machine, service)?;
                }
                Ok(bus.start(unit).await)
            }
        }
    };
    let outcome = match tokio::time::timeout(limit, start).await {
        Ok(outcome) => outcome?,
        Err(_) => return Ok(None),
    };
    if matches!(outcome, Ok(()) | Err(bus::Error::JobFailed { .. })) {
        keep_inputs(machine, service)?;
    }
    match outcome {
        Ok(()) => Ok(Some(true)),
        Err(error) => {
            let why = match bus.unit(unit).await {
                Ok(state) => end_of(&state),
                Err(_) => String::new(),
            };
            Err(Error::new(Code::UnitFailed, format!("starting {unit}{why}")).because(error))
        }
    }
}

/// Whether [`ensure_active`] would restart a service that runs, for what it is
/// to read anew.
///
/// # Errors
///
/// [`Code::Bus`], [`Code::Disk`].
pub async fn would_restart(machine: &Machine, bus: &Bus, service: Service) -> Result<bool> {
    if settled(machine).contains(&service) {
        return Ok(false);
    }
    let unit = service.unit();
    let state = bus.unit(unit).await;
    let state = state.context(Code::Bus, || format!("looking at {unit}"))?;
    Ok(state.is_active() && !news(machine, service, &state)?.is_empty())
}

/// The same of a service in a static pod.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn would_restart_pod(machine: &Machine, service: Service) -> Result<bool> {
    if settled(machine).contains(&service) {
        return Ok(false);
    }
    let now = inputs::of_pod(service, &machine.config.manifest, &machine.root)?;
    let before = applied::read(&machine.root)?.pods.remove(&service);
    Ok(before.is_some_and(|before| !inputs::differing(&before, &now).is_empty()))
}

/// What the service would read now and has not read at its start: files, or its
/// program.
fn news(machine: &Machine, service: Service, state: &UnitState) -> Result<Vec<String>> {
    let root = &machine.root;
    let now = inputs::of(service, &machine.config.manifest, root)?;
    let mut news = match applied::read(root)?.services.get(&service) {
        Some(before) => inputs::differing(before, &now),
        // Of what was started by another knode, or by nobody, nothing is known.
        None => Vec::new(),
    };
    let link = program(service);
    let linked = Store::new(root.clone()).linked_to(&link)?;
    let pid = state.service.as_ref().map_or(0, |service| service.main_pid);
    let runs = way_back::runs(root, pid);
    if runs.is_some() && linked.is_some() && runs != linked {
        news.push(link.display().to_string());
    }
    Ok(news)
}

/// Where a service's program is, if an artifact brings it.
fn program(service: Service) -> PathBuf {
    Path::new(paths::KUBERNETES_BIN).join(service.to_string())
}

/// Keeps what the service reads when it starts now.
fn keep_inputs(machine: &Machine, service: Service) -> Result<()> {
    let now = inputs::of(service, &machine.config.manifest, &machine.root)?;
    if applied::read(&machine.root)?.services.get(&service) != Some(&now) {
        applied::change(&machine.root, |applied| {
            applied.services.insert(service, now);
        })?;
    }
    settled(machine).insert(service);
    Ok(())
}

fn settled(machine: &Machine) -> MutexGuard<'_, BTreeSet<Service>> {
    machine
        .settled
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// A service in a static pod runs with what it reads at its start as this
/// node.yaml has it. Its manifest the kubelet follows by itself.
///
/// # Errors
///
/// [`Code::Runtime`], [`Code::Disk`].
pub async fn ensure_current_pod(machine: &Machine, service: Service) -> Result<()> {
    if settled(machine).contains(&service) {
        return Ok(());
    }
    let now = inputs::of_pod(service, &machine.config.manifest, &machine.root)?;
    let before = applied::read(&machine.root)?.pods.remove(&service);
    if before.as_ref() != Some(&now) {
        let news = before.map_or(Vec::new(), |before| inputs::differing(&before, &now));
        if !news.is_empty() && static_pods::restart(machine, service).await? {
            tracing::info!(%service, "the pod {service} is to read anew: {}", news.join(", "));
        }
        applied::change(&machine.root, |applied| {
            applied.pods.insert(service, now);
        })?;
    }
    settled(machine).insert(service);
    Ok(())
}

/// The service runs with what it reads at its start, if it runs at all; says
/// whether it was restarted.
///
/// # Errors
///
/// [`Code::UnitFailed`] with systemd's reason.
pub async fn restart_if_active(machine: &Machine, bus: &Bus, service: Service) -> Result<bool> {
    let unit = service.unit();
    let look = || format!("looking at {unit}");
    if !bus.unit(unit).await.context(Code::Bus, look)?.is_active() {
        return Ok(false);
    }
    ensure_active(machine, bus, service, IfActive::Restart).await
}

/// What systemd says of a service, in a few words.
pub async fn describe(bus: &Bus, service: Service) -> String {
    match bus.unit(service.unit()).await {
        Ok(state) => {
            let restarts = state.service.as_ref().map_or(0, |service| service.restarts);
            format!("{}{}, {restarts} restarts", state.active, end_of(&state))
        }
        Err(error) => error.to_string(),
    }
}

/// How the service's last process ended, in words.
pub(crate) fn end_of(state: &UnitState) -> String {
    match &state.service {
        Some(service) if service.exec_main_code == 1 => {
            format!(
                " ({}, exit status {})",
                service.result, service.exec_main_status
            )
        }
        Some(service) if service.exec_main_code > 1 => {
            format!(" ({}, signal {})", service.result, service.exec_main_status)
        }
        _ => String::new(),
    }
}
