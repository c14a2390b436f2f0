//! Keeps this machine's member of etcd saved and small: snapshots, its
//! database written anew where that is worth it, and the end of an alarm.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use super::name;
use crate::error::{Code, Error, Result};
use crate::etcd::config::Config;
use crate::etcd::{ring, snapshots, upkeep};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::clock;
use crate::sys::etcd::{Gateway, LOCAL, Member, Status};

/// How often it looks at least.
const LOOK: Duration = Duration::from_secs(300);
/// How often where the settings want snapshots more often.
const SHORTEST: Duration = Duration::from_secs(30);

pub struct EtcdUpkeep;

impl Step<Machine> for EtcdUpkeep {
    fn name(&self) -> &'static str {
        name::ETCD_UPKEEP
    }

    fn after(&self) -> &[&'static str] {
        &[name::ETCD]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let root = &machine.root;
            let config = Config::read(root)?;
            let gateway = machine.etcd_gateway()?;
            let own = gateway.status(LOCAL).await?;
            // First what may be needed after what comes next.
            let saved = save(machine, &gateway, &config, &own).await;
            keep_small(&gateway, own, upkeep::quota(config.quota)).await?;
            saved
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        let settings = machine.config.etcd.as_ref();
        let settings = settings.and_then(|etcd| etcd.snapshots.as_ref());
        let interval = settings.map_or(LOOK, |s| Duration::from_secs(s.interval));
        // An interval is kept within a tenth of it.
        Box::pin(clock::pause((interval / 10).clamp(SHORTEST, LOOK)))
    }
}

async fn save(
    machine: &Machine,
    gateway: &Gateway,
    config: &Config,
    own: &Status,
) -> Result<String> {
    let megabytes = own.size.div_ceil(1_000_000);
    let settings = machine.config.etcd.as_ref();
    let Some(settings) = settings.and_then(|etcd| etcd.snapshots.as_ref()) else {
        return Ok(format!("{megabytes} MB; no snapshots"));
    };
    let state = snapshots::run(&machine.root, gateway, &config.name, settings, own).await?;
    let newest = state.newest.unwrap_or_default();
    let folder = &settings.folder;
    Ok(format!("{megabytes} MB; newest snapshot {folder}/{newest}"))
}

/// Ends what an alarm stands for, and gives back what is not in use.
async fn keep_small(gateway: &Gateway, own: Status, quota: u64) -> Result<()> {
    let full = gateway.out_of_space(LOCAL).await?;
    let alarm = !full.is_empty();
    if alarm {
        tracing::warn!(
            "etcd's database has reached its quota: forgets what is before revision {}",
            own.revision
        );
        // Refused where another member did.
        if let Err(error) = gateway.compact(LOCAL, own.revision).await {
            tracing::debug!("{}", error.story());
        }
    }
    let members = gateway.members(LOCAL).await?;
    let Some(mut all) = statuses(gateway, &members).await else {
        return told(alarm, &own, quota);
    };
    if upkeep::is_turn(own.id, &all, quota, alarm) {
        gateway.defragment(LOCAL).await?;
        let Some(after) = statuses(gateway, &members).await else {
            return told(alarm, &own, quota);
        };
        let size = after
            .iter()
            .find(|one| one.id == own.id)
            .map(|one| one.size);
        tracing::info!(
            before = own.size,
            after = size,
            "etcd's database is written anew"
        );
        all = after;
    }
    if alarm && upkeep::has_room(&all, quota) {
        for id in full {
            gateway.disarm(LOCAL, id).await?;
        }
        tracing::info!("etcd takes writes again");
        return Ok(());
    }
    told(alarm, &own, quota)
}

fn told(alarm: bool, own: &Status, quota: u64) -> Result<()> {
    if !alarm {
        return Ok(());
    }
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let story = format!(
        "etcd's database of {} MB, {} MB of them in use, has reached its quota of {} MB",
        megabytes(own.size),
        megabytes(own.in_use),
        megabytes(quota)
    );
    Err(Error::new(Code::EtcdSpace, story))
}

/// What all members say; `None` where one does not.
async fn statuses(gateway: &Gateway, members: &[Member]) -> Option<Vec<Status>> {
    let asked = members.iter().map(|one| gateway.status(ring::url(one)));
    join_all(asked)
        .await
        .into_iter()
        .collect::<Result<_>>()
        .ok()
}
