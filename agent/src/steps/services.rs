//! Starting services through systemd, which owns the processes.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::{Code, Context, Error, Result};
use crate::sys::bus::{Bus, UnitState};
use units::node_config::Service;

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
static BUS: Mutex<Option<Bus>> = Mutex::const_new(None);
/// How long a connection that works takes to say so.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection to systemd: the agent's own, made anew where it is lost.
///
/// # Errors
///
/// [`Code::Bus`]: there is no bus.
pub async fn connect() -> Result<Bus> {
    let mut known = BUS.lock().await;
    if let Some(bus) = known.as_ref()
        && let Ok(Ok(())) = tokio::time::timeout(ANSWER, bus.ping()).await
    {
        return Ok(bus.clone());
    }
    let bus = Bus::connect().await;
    let bus = bus.context(Code::Bus, || "connecting to systemd".to_owned())?;
    *known = Some(bus.clone());
    Ok(bus)
}

/// The service runs; says whether it had to be started.
///
/// # Errors
///
/// [`Code::UnitFailed`] with systemd's reason.
pub async fn ensure_active(bus: &Bus, service: Service, if_active: IfActive) -> Result<bool> {
    let unit = service.unit();
    let look = || format!("looking at {unit}");
    let mut state = bus.unit(unit).await.context(Code::Bus, look)?;
    if !state.is_loaded() {
        // Its file may be younger than systemd's last look.
        bus.daemon_reload().await.context(Code::Bus, look)?;
        state = bus.unit(unit).await.context(Code::Bus, look)?;
    }
    let outcome = match (state.is_active(), if_active) {
        (true, IfActive::Leave) => return Ok(false),
        (true, IfActive::Restart) => bus.restart(unit).await,
        (false, _) => bus.start(unit).await,
    };
    match outcome {
        Ok(()) => Ok(true),
        Err(error) => {
            let why = match bus.unit(unit).await {
                Ok(state) => end_of(&state),
                Err(_) => String::new(),
            };
            Err(Error::new(Code::UnitFailed, format!("starting {unit}{why}")).because(error))
        }
    }
}

/// The service runs with what it reads at its start, if it runs at all; says
/// whether it was restarted.
///
/// # Errors
///
/// [`Code::UnitFailed`] with systemd's reason.
pub async fn restart_if_active(bus: &Bus, service: Service) -> Result<bool> {
    let unit = service.unit();
    let look = || format!("looking at {unit}");
    if !bus.unit(unit).await.context(Code::Bus, look)?.is_active() {
        return Ok(false);
    }
    ensure_active(bus, service, IfActive::Restart).await
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
