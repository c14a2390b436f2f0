//! Brings this machine's member into its ring, before it is started and after.

use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use super::config::Config;
use super::decide::{Decision, Seen, decide};
use super::mark::{self, Mark};
use super::ring;
use crate::error::{Code, Context as _, Error, Result};
use crate::machine::Machine;
use crate::sys::bus::Bus;
use crate::sys::etcd::{Gateway, LOCAL};
use crate::sys::lock::Lock;
use crate::sys::root::Root;
use units::node_config::Service;
use units::paths;

/// Who works on the member: knode, or a command of the operator's.
const LOCK: &str = "/run/knode/etcd.lock";
/// The member's unit, which has to know [`paths::ETCD_ENVIRONMENT`].
const UNIT: &str = "/etc/systemd/system/etcd.service";
/// etcd.yaml for a member that joins.
const JOINING: &str = "/run/knode/etcd.yaml";
/// How long a new member may take to get all data, before it is asked again.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Keeps others from the member as long as it lives.
///
/// # Errors
///
/// [`Code::Etcd`]: somebody else is at it; [`Code::Disk`].
pub fn hold(root: &Root) -> Result<Lock> {
    let busy = || Error::new(Code::Etcd, "another knode is at work on this member");
    Lock::take(root, LOCK)?.ok_or_else(busy)
}

/// Before the unit is started: the member's data and those of the others say
/// how. Tells where it comes into a ring that is there.
///
/// # Errors
///
/// As [`decide`]; [`Code::Etcd`] with the ring's reason, [`Code::Bus`],
/// [`Code::Disk`].
pub async fn prepare(machine: &Machine, bus: &Bus) -> Result<()> {
    let root = &machine.root;
    let unit = Service::Etcd.unit();
    let state = bus.activity(unit).await;
    let state = state.context(Code::Bus, || format!("looking at {unit}"))?;
    let config = Config::read(root)?;
    if state.is_active() {
        return Ok(());
    }
    if config.has_data(root)? {
        return as_documented(root, &config);
    }
    // systemd would start it over and over, and so begin a ring beside the one
    // that there may be as soon as nobody of that answers.
    withdraw(root)?;
    if !matches!(state.active.as_str(), "inactive" | "failed") {
        let stop = bus.stop(unit).await;
        stop.context(Code::Bus, || format!("stopping {unit}"))?;
    }
    let mark = mark::read(root)?;
    let gateway = machine.etcd_gateway()?;
    let seen = ring::look(&gateway, &config).await;
    match decide(&config, false, &mark, &seen)? {
        Decision::Start => permit(root, paths::ETCD_CONFIG),
        Decision::Join { remove, add } => join(root, &gateway, &config, &seen, (remove, add)).await,
    }
}

async fn join(
    root: &Root,
    gateway: &Gateway,
    config: &Config,
    seen: &Seen,
    (remove, add): (Option<u64>, bool),
) -> Result<()> {
    let known = root.read_to_string(UNIT)?;
    if !known.contains(paths::ETCD_ENVIRONMENT) {
        let story = format!("{UNIT} is of an older kgen, which knew no way into a ring");
        return Err(Error::new(Code::EtcdRejoin, story));
    }
    let name = &config.name;
    let members = seen.ring.iter().flatten();
    let mut healthy = members.filter(|one| seen.healthy.contains(&one.id) && !one.learner);
    let through = healthy.next().map(ring::url);
    let through = through.ok_or_else(|| Error::new(Code::Etcd, "no healthy member"))?;
    // What etcd leaves where the others refused it; a log is not among it.
    set_aside(root, config)?;
    if let Some(id) = remove {
        tracing::info!(
            "the data of {name} are gone: its member {} leaves",
            super::hex(id)
        );
        gateway.remove(through, id).await?;
    }
    let mut mark = Mark::default();
    if add {
        let id = gateway.add_learner(through, &config.peer_url).await?;
        tracing::info!("{name} comes into the ring as member {}", super::hex(id));
        mark.member = Some(id);
    }
    mark::keep(root, &mark)?;
    let ring = gateway.members(through).await?;
    root.write_atomic(JOINING, config.joining(&ring).as_bytes(), 0o600)?;
    permit(root, JOINING)
}

/// The unit starts, with this configuration, though it sees no log.
fn permit(root: &Root, config: &str) -> Result<()> {
    let environment = format!("CONFIG_FILE={config}\n");
    root.write_atomic(paths::ETCD_ENVIRONMENT, environment.as_bytes(), 0o644)?;
    Ok(())
}

/// The unit starts only with a log.
fn withdraw(root: &Root) -> Result<()> {
    root.remove(paths::ETCD_ENVIRONMENT)?;
    root.remove(JOINING)?;
    Ok(())
}

/// A member with data starts as the document says. A log that is somewhere
/// else the unit does not see.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn as_documented(root: &Root, config: &Config) -> Result<()> {
    if config.is_at_its_place() {
        return withdraw(root);
    }
    permit(root, paths::ETCD_CONFIG)
}

/// Moves what is in the member's folder to a place of its own within the data,
/// which it returns; `None` where there is nothing.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn set_aside(root: &Root, config: &Config) -> Result<Option<PathBuf>> {
    let member = config.data.join("member");
    if !root.exists(&member)? {
        return Ok(None);
    }
    let aside = config.data.join(format!("aside-{}", stamp()));
    root.create_dir(&aside, 0o700)?;
    root.rename(&member, aside.join("member"))?;
    Ok(Some(aside))
}

/// The time in UTC, for names of files.
pub fn stamp() -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = OffsetDateTime::now_utc().format(&format);
    now.unwrap_or_default()
}

/// After the unit was started: a learner gets its vote, and who the member is
/// is kept.
///
/// # Errors
///
/// [`Code::Etcd`]: it has not caught up yet, or does not answer.
pub async fn settle(machine: &Machine, step: &str) -> Result<()> {
    let root = &machine.root;
    let config = Config::read(root)?;
    let gateway = machine.etcd_gateway()?;
    let mut own = gateway.status(LOCAL).await?;
    if own.learner {
        machine.status.detail(step, "gets all data, to have a vote");
        let promoted = tokio::time::timeout(CATCH_UP, promote(&gateway, &config, own.id)).await;
        promoted.unwrap_or_else(|_| {
            let story = format!("{} has not caught up with its ring yet", config.name);
            Err(Error::new(Code::Etcd, story))
        })?;
        tracing::info!("{} has a vote in its ring", config.name);
        own = gateway.status(LOCAL).await?;
    }
    as_documented(root, &config)?;
    let mark = Mark {
        member: Some(own.id),
        ..Mark::default()
    };
    if mark::read(root)? != mark {
        mark::keep(root, &mark)?;
    }
    Ok(())
}

/// Until the ring gives the learner its vote.
async fn promote(gateway: &Gateway, config: &Config, id: u64) -> Result<()> {
    loop {
        let seen = ring::look(gateway, config).await;
        for member in seen.ring.iter().flatten() {
            let others = member.id != id && seen.healthy.contains(&member.id);
            if !others || member.learner {
                continue;
            }
            match gateway.promote(ring::url(member), id).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!("not yet: {}", error.story()),
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Why a member with data does not start, where the ring says it.
///
/// # Errors
///
/// [`Code::EtcdRemoved`].
pub async fn diagnose(machine: &Machine) -> Result<()> {
    let root = &machine.root;
    let config = Config::read(root)?;
    let seen = ring::look(&machine.etcd_gateway()?, &config).await;
    decide(&config, config.has_data(root)?, &mark::read(root)?, &seen).map(drop)
}
