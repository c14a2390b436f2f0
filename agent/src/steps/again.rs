//! When a step that starts services looks again.

use std::time::Duration;

use futures_util::future::select_all;

use super::services::connect;
use crate::error::{Code, Context, Result};
use crate::machine::Machine;
use crate::sys::bus::Activity;
use crate::sys::clock;
use units::node_config::Service;

/// Looked at now and then, whatever systemd tells or does not tell.
const SWEEP: Duration = Duration::from_secs(60);
/// What is stopped may be about to be started again by who stopped it.
const SETTLED: Duration = Duration::from_secs(2);

/// Returns soon after one of these of the machine's services was stopped and
/// not started again, and else after a while. systemd tells, so that a machine at rest rests.
pub async fn when_stopped(machine: &Machine, services: &[Service]) {
    when(machine, services, is_stopped).await;
}

/// The same, and soon after one ended by itself, though systemd starts it anew:
/// for a step that sees to more than its being started.
pub async fn when_ended(machine: &Machine, services: &[Service]) {
    when(machine, services, |state| is_stopped(state) || ends(state)).await;
}

async fn when(machine: &Machine, services: &[Service], is: fn(&Activity) -> bool) {
    let ours = services.iter().filter(|service| machine.runs(**service));
    let all: Vec<_> = ours.map(|one| Box::pin(until(*one, is))).collect();
    let stopped = async {
        if all.is_empty() {
            return std::future::pending().await;
        }
        if let (Err(error), ..) = select_all(all).await {
            tracing::debug!(code = %error.code(), "listening to systemd: {}", error.story());
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = stopped => {}
        () = clock::pause(SWEEP) => {}
    }
}

async fn until(service: Service, is: fn(&Activity) -> bool) -> Result<()> {
    let unit = service.unit();
    let doing = || format!("listening for changes of {unit}");
    let bus = connect().await?;
    let mut changes = bus.watch_unit(unit).await.context(Code::Bus, doing)?;
    // Asked after the ear is open, so that nothing falls between.
    let mut state = bus.activity(unit).await.context(Code::Bus, doing)?;
    loop {
        if ends(&state) && is(&state) {
            return Ok(());
        }
        if is(&state) {
            match tokio::time::timeout(SETTLED, changes.next()).await {
                Ok(next) => state = Activity::from(&next.context(Code::Bus, doing)?),
                Err(_) => return Ok(()),
            }
        } else {
            state = Activity::from(&changes.next().await.context(Code::Bus, doing)?);
        }
    }
}

/// systemd neither runs it nor is about to.
fn is_stopped(state: &Activity) -> bool {
    matches!(state.active.as_str(), "inactive" | "failed")
}

/// It ended, and systemd is about to start it anew.
fn ends(state: &Activity) -> bool {
    state.sub == "auto-restart"
}
