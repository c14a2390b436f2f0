//! What a warden does to its service: evidence first, then a restart or the
//! way back.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use time::OffsetDateTime;

use super::Warden;
use crate::error::{Code, Error};
use crate::status::{Condition, Failure};
use crate::supervise::crash::Crashes;
use crate::supervise::evidence::Evidence;
use crate::supervise::order::{self, Need};
use crate::supervise::{probe, way_back};
use crate::sys::bus::Bus;
use crate::sys::store::Store;
use units::node_config::Service;

/// How long a process may take to write down its goroutines.
const DUMP: Duration = Duration::from_secs(3);
/// How long a restart is waited for; systemd goes on with it by itself.
const RESTART: Duration = Duration::from_secs(120);
/// Evidence of how it ended is saved once in this time.
const SPARING: Duration = Duration::from_secs(10 * 60);
/// Whoever has stayed up for so long is started at once the next time.
pub(in crate::supervise) const FORGIVEN: Duration = Duration::from_secs(10 * 60);

impl Warden {
    /// Saves how it ended, which systemd saw before us.
    pub(super) async fn keep_end(&mut self) {
        let now = self.now();
        let sparing = |saved: Duration| now.saturating_sub(saved) < SPARING;
        if self.saved.is_some_and(sparing) {
            return;
        }
        self.saved = Some(now);
        let why = format!("{} ended{}; systemd starts it anew", self.service, self.end);
        let saved = self.save(why.clone(), None).await;
        tracing::warn!(service = %self.service, "{why}{}", at(saved.as_ref()));
    }

    /// The right one first; evidence before, and no hurry after.
    pub(super) async fn restart(&mut self, bus: &Bus, error: &Error) {
        let service = self.service;
        if let Some(need) = self.blame().await {
            tracing::info!(%service, "{service} is left alone: {need} does not work");
            return self.health.pardon();
        }
        let saved = self.save(error.story(), Some(bus)).await;
        self.restarted = self.restarted.saturating_add(1);
        self.health.restarted(self.now());
        tracing::error!(
            %service, code = %error.code(), "{}: {}; it is restarted{}",
            error.code(), error.story(), at(saved.as_ref())
        );
        // The dump ended it, and systemd has started it since.
        let before = self.unit.as_ref().map(|unit| unit.invocation_id.clone());
        let renewed = match bus.unit(service.unit()).await {
            Ok(unit) => unit.is_active() && Some(unit.invocation_id) != before,
            Err(_) => false,
        };
        if !renewed {
            match tokio::time::timeout(RESTART, bus.restart(service.unit())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%service, "restarting {service}: {error}"),
                Err(_) => tracing::warn!(%service, "{service} takes long to restart"),
            }
        }
        self.health.began(self.now());
        if let Ok(state) = bus.unit(service.unit()).await {
            // That systemd started it is no crash: we ended it.
            let restarts = state.service.as_ref().map_or(0, |service| service.restarts);
            self.crashes.excuse(restarts);
            self.unit = Some(state);
        }
        self.tell(Condition::Starting, None);
    }

    /// systemd's pauses before a restart grow with a counter that it never sets
    /// back by itself: without this, crashes of months ago would make the next
    /// one last.
    pub(super) async fn forgive(&mut self, bus: &Bus) {
        if self.health.runs_for(self.now()) < FORGIVEN {
            return;
        }
        let service = self.service;
        let counter = self.unit.as_mut().and_then(|unit| unit.service.as_mut());
        let Some(counter) = counter.filter(|counter| counter.restarts > 0) else {
            return;
        };
        match bus.reset_failed(service.unit()).await {
            Ok(()) => {
                counter.restarts = 0;
                self.crashes.excuse(0);
                tracing::info!(%service, "{service} has stayed up; its restarts are forgiven");
            }
            Err(error) => tracing::debug!(%service, "{error}"),
        }
    }

    /// What else is to blame, if anything is.
    pub(super) async fn blame(&self) -> Option<Need> {
        let api = match order::needs(self.service).contains(&Need::Api) {
            true => Some(probe::api_answers(&self.machine).await),
            false => None,
        };
        order::blame(self.service, &self.board.all(), api)
    }

    /// Keeps that its program is good, once it has been healthy for a while.
    pub(super) fn prove(&mut self) {
        let (service, root) = (self.service, &self.machine.root);
        if self.proven || self.health.runs_for(self.now()) < way_back::PROVEN {
            return;
        }
        self.proven = true;
        let pid = self.unit.as_ref().and_then(|unit| unit.service.as_ref());
        let artifact = pid.and_then(|unit| way_back::runs(root, unit.main_pid));
        let (Some(artifact), Some(_)) = (artifact, way_back::link(service)) else {
            return;
        };
        let store = Store::new(root.clone());
        let program = service.to_string();
        if store.proven().get(&program) != Some(&artifact)
            && let Err(error) = store.prove(&program, &artifact)
        {
            tracing::warn!(%service, code = %error.code(), "{}", error.story());
        }
    }

    /// A new program that has had its time gives way to the last good one.
    pub(super) async fn consider_way_back(&mut self, bus: &Bus, well: bool) {
        let (service, now) = (self.service, self.now());
        let store = Store::new(self.machine.root.clone());
        let Some(link) = way_back::link(service).filter(|_| !self.proven) else {
            return;
        };
        let Ok(Some(linked)) = store.linked_to(&link) else {
            return;
        };
        let good = store.proven().remove(&service.to_string());
        // One that answers for some seconds between two crashes is not well.
        let well = well && !self.crashes.looping(now);
        if !self.trial.is_lost(&linked, good.as_deref(), well, now) {
            return;
        }
        if self.blame().await.is_some() {
            return self.trial.pardon();
        }
        let Some(good) = good else { return };
        let error = gone_back(service, &linked);
        let saved = self.save(error.story(), None).await;
        match store.go_back(&linked, &good) {
            Ok(true) => {}
            Ok(false) => return self.trial.pardon(),
            Err(error) => {
                return tracing::warn!(%service, code = %error.code(), "{}", error.story());
            }
        }
        tracing::error!(
            %service, code = %error.code(), "{}: {}{}",
            error.code(), error.story(), at(saved.as_ref())
        );
        self.notice = Some(Failure::from(&error));
        let restart = bus.restart(service.unit());
        if let Ok(Err(error)) = tokio::time::timeout(RESTART, restart).await {
            tracing::warn!(%service, "restarting {service}: {error}");
        }
        self.crashes = Crashes::default();
        self.health.began(self.now());
        self.tell(Condition::Starting, None);
    }

    /// Saves evidence, with a dump of what the process is doing where it is
    /// to be ended anyway. It must not keep anyone from being restarted.
    pub(super) async fn save(&self, why: String, end: Option<&Bus>) -> Option<PathBuf> {
        let (root, service) = (self.machine.root.clone(), self.service);
        let now = OffsetDateTime::now_utc();
        let begin = move || Evidence::begin(&root, service, &why, now);
        let evidence = tokio::task::spawn_blocking(begin).await;
        if let Some(bus) = end {
            self.dump(bus).await;
        }
        let saved = match evidence {
            Ok(Ok(evidence)) => tokio::task::spawn_blocking(|| evidence.finish()).await,
            Ok(Err(error)) => Ok(Err(error)),
            Err(error) => Err(error),
        };
        match saved {
            Ok(Ok(place)) => Some(place),
            Ok(Err(error)) => {
                tracing::warn!(code = %error.code(), "no evidence of {service}: {}", error.story());
                None
            }
            Err(error) => {
                tracing::warn!("no evidence of {service}: {error}");
                None
            }
        }
    }

    /// A Go program that gets SIGQUIT writes down every goroutine, and ends;
    /// one that is stopped has to be woken for it.
    async fn dump(&self, bus: &Bus) {
        let unit = self.service.unit();
        let before = self.unit.as_ref().and_then(|unit| unit.service.as_ref());
        let pid = before.map_or(0, |service| service.main_pid);
        for signal in [Signal::SIGQUIT, Signal::SIGCONT] {
            if let Err(error) = bus.signal(unit, signal).await {
                return tracing::debug!("no dump of {unit}: {error}");
            }
        }
        let process = PathBuf::from(format!("/proc/{pid}/exe"));
        let ended = async {
            // Of a process that is gone there is no program.
            while let Ok(Some(_)) = self.machine.root.read_link(&process) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // What it said is on its way through the journal.
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        if tokio::time::timeout(DUMP, ended).await.is_err() {
            tracing::debug!("{unit} does not end by SIGQUIT");
        }
    }
}

pub(super) fn gone_back(service: Service, bad: &str) -> Error {
    let short: String = bad.chars().take(12).collect();
    let text =
        format!("{service} of artifact {short} did not become healthy; the one before it is back");
    Error::new(Code::RolledBack, text)
}

pub(super) fn at(saved: Option<&PathBuf>) -> String {
    saved.map_or(String::new(), |place| {
        format!("; the evidence is in {}", place.display())
    })
}
