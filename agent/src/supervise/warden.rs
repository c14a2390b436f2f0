//! One service's warden: asks, listens to systemd, and does what was decided.

mod configuration;
mod repair;

pub(super) use repair::FORGIVEN;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::crash::Crashes;
use super::health::{CONTROL_PLANE, Health, NODE, Verdict};
use super::probe::Probe;
use super::way_back::{self, Trial};
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::retry::Backoff;
use crate::status::{Condition, Failure, ServiceReport};
use crate::steps::services::{connect, end_of};
use crate::sys::bus::{Bus, UnitState};
use crate::sys::http::Client;
use crate::sys::{clock, program};
use units::node_config::Service;

/// How often one that does not run is looked at.
const IDLE: Duration = Duration::from_secs(30);
/// How long the journal is searched for the last line, and how much of it is
/// told.
const LINE: (Duration, u64) = (Duration::from_secs(3), 400);

/// Which services are in doubt, for those that need them.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<Service, bool>>>);

impl Board {
    fn set(&self, service: Service, doubtful: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(service, doubtful);
    }

    /// It is not a service of this machine any more.
    pub fn forget(&self, service: Service) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&service);
    }

    fn all(&self) -> BTreeMap<Service, bool> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

/// Watches one service for ever; a bus that is lost is connected to anew.
pub async fn watch(
    service: Service,
    machines: Receiver<Arc<Machine>>,
    board: Board,
    client: Client,
) {
    let start = Instant::now();
    let policy = match service {
        Service::Containerd | Service::Kubelet | Service::KubeProxy => NODE,
        _ => CONTROL_PLANE,
    };
    let machine = Arc::clone(&machines.borrow());
    let mut warden = Warden {
        service,
        start,
        health: Health::new(policy, Duration::ZERO),
        crashes: Crashes::default(),
        unit: None,
        saved: None,
        restarted: 0,
        told: None,
        end: String::new(),
        trial: Trial::default(),
        document: Trial::default(),
        well_since: None,
        suits: false,
        stays: false,
        proven: false,
        notice: None,
        machine,
        machines,
        board,
        probe: Probe::new(service, client),
    };
    warden.notice = warden.gone_back();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let began = Instant::now();
        if let Err(error) = warden.serve().await {
            tracing::debug!(code = %error.code(), "watching {service}: {}", error.story());
        }
        if began.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

struct Warden {
    service: Service,
    start: Instant,
    health: Health,
    crashes: Crashes,
    unit: Option<UnitState>,
    /// When evidence of how it ended was saved last.
    saved: Option<Duration>,
    restarted: u32,
    told: Option<Failure>,
    /// How it ended last, in systemd's words.
    end: String,
    trial: Trial,
    /// The same of the whole document.
    document: Trial,
    /// Since when it is healthy with this document.
    well_since: Option<Duration>,
    /// Whether it is kept that it was for long enough.
    suits: bool,
    /// Whether it was told why this document stays.
    stays: bool,
    /// Whether it is kept that the program of this run is good.
    proven: bool,
    /// What is told as long as node.yaml is as it is.
    notice: Option<Failure>,
    machine: Arc<Machine>,
    /// The machine as another node.yaml has it.
    machines: Receiver<Arc<Machine>>,
    board: Board,
    probe: Probe,
}

impl Warden {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Goes by the newest node.yaml, with which a program that was refused is
    /// tried again.
    fn refresh(&mut self) {
        let newest = Arc::clone(&self.machines.borrow());
        if !Arc::ptr_eq(&newest, &self.machine) {
            self.machine = newest;
            self.notice = self.gone_back();
            self.trial = Trial::default();
            self.document = Trial::default();
            (self.well_since, self.suits, self.stays) = (None, false, false);
        }
    }

    /// What is told where the program of this node.yaml was tried, and the one
    /// before it runs.
    fn gone_back(&self) -> Option<Failure> {
        let bad = way_back::refused(&self.machine.root, self.service)?;
        Some(Failure::from(&repair::gone_back(self.service, &bad)))
    }

    /// Until the bus is lost.
    async fn serve(&mut self) -> Result<()> {
        let lost = |error| Error::new(Code::Bus, "listening to systemd").because(error);
        let bus = connect().await?;
        let unit = self.service.unit();
        let mut changes = bus.watch_unit(unit).await.map_err(lost)?;
        let state = bus.unit(unit).await.map_err(lost)?;
        self.changed(state).await;
        loop {
            // Dropped in the middle, it would have taken a change and not told it.
            let mut change = pin!(changes.next());
            loop {
                tokio::select! {
                    state = &mut change => {
                        self.changed(state.map_err(lost)?).await;
                        if !self.runs() {
                            // One in a loop changes before it is time to look.
                            self.refresh();
                            self.consider_way_back(&bus, false).await;
                            self.consider_document(false).await;
                        }
                        break;
                    }
                    () = self.pause() => {
                        self.refresh();
                        match self.runs() {
                            true => self.look(&bus).await,
                            false => self.idle(&bus).await,
                        }
                    }
                }
            }
        }
    }

    fn runs(&self) -> bool {
        self.unit.as_ref().is_some_and(UnitState::is_active)
    }

    /// Until it is time to look.
    async fn pause(&self) {
        match self.runs() {
            true => clock::pause(self.health.pace()).await,
            // What changes is heard of; this is for what does not.
            false => clock::pause(IDLE).await,
        }
    }

    /// A look at one that does not run.
    async fn idle(&mut self, bus: &Bus) {
        if !self.crashes.looping(self.now()) {
            let state = self.unit.as_ref();
            let starts =
                state.is_some_and(|unit| unit.active == "activating" && unit.sub != "auto-restart");
            let condition = if starts {
                Condition::Starting
            } else {
                Condition::Down
            };
            self.tell(condition, None);
        }
        self.consider_way_back(bus, false).await;
        self.consider_document(false).await;
    }

    /// systemd told of a change.
    async fn changed(&mut self, state: UnitState) {
        let now = self.now();
        let before = self.unit.replace(state.clone());
        let same = before.as_ref().map(|unit| &unit.invocation_id) == Some(&state.invocation_id);
        if !same {
            self.health.began(now);
            self.proven = false;
        }
        let restarts = state.service.as_ref().map_or(0, |service| service.restarts);
        let was_looping = self.crashes.looping(now);
        let crashed = self.crashes.count(restarts, now);
        let ends = [before.as_ref(), Some(&state)];
        let bad = ends.into_iter().flatten().find(|unit| ended_badly(unit));
        let looping = self.crashes.looping(now);
        // Just started anew, it says nothing of its end.
        let mut ends = ends.into_iter().flatten().rev().map(end_of);
        if let Some(end) = ends.find(|end| !end.is_empty()) {
            self.end = end;
        }
        if (looping && !was_looping) || (crashed && bad.is_some()) {
            self.keep_end().await;
        }
        if looping {
            self.tell_loop().await;
        } else if !state.is_active() {
            self.board.set(self.service, true);
            let starts = state.active == "activating" && state.sub != "auto-restart";
            let condition = if starts {
                Condition::Starting
            } else {
                Condition::Down
            };
            self.tell(condition, None);
        } else if !same {
            self.tell(Condition::Starting, None);
        }
    }

    async fn tell_loop(&mut self) {
        let service = self.service;
        let of_unit = format!("_SYSTEMD_UNIT={}", service.unit());
        let last = tokio::task::spawn_blocking(move || {
            let command = ["journalctl", "--no-pager", "--output=cat", "--lines=1"];
            let command = [&command[..], &[of_unit.as_str()]].concat();
            program::output(&command, LINE.0, LINE.1)
        });
        let last = last.await.unwrap_or_default();
        let text = format!("{service} starts and ends over and over{}", self.end);
        let error = Error::new(Code::CrashLoop, text).because(crate::scrub::scrub(last.trim()));
        self.tell(Condition::Crashing, Some(&error));
    }

    /// One probe, and what follows from it.
    async fn look(&mut self, bus: &Bus) {
        let asked = self.now();
        let outcome = self
            .probe
            .ask(&self.machine, self.health.policy().timeout)
            .await;
        let now = self.now();
        let verdict = match &outcome {
            Ok(()) => self.health.answered(now),
            Err(_) => self.health.failed(asked, now),
        };
        self.board.set(self.service, self.health.is_doubtful());
        let error = outcome.err().map(|error| {
            let text = format!("{} is not healthy", self.service);
            Error::new(Code::Unhealthy, text).because(error.story())
        });
        let well = verdict == Verdict::Healthy;
        self.consider_way_back(bus, well).await;
        self.consider_document(well).await;
        if self.crashes.looping(now) {
            return;
        }
        match verdict {
            Verdict::Healthy => {
                self.prove();
                self.forgive(bus).await;
                self.tell(Condition::Healthy, None);
            }
            Verdict::Starting => self.tell(Condition::Starting, None),
            // What was wrong is told until it is over.
            Verdict::Recovering | Verdict::Suspect => self.tell_doubt(),
            Verdict::Unknown | Verdict::Cooling => self.tell(Condition::Unhealthy, error.as_ref()),
            Verdict::Restart => {
                if let Some(error) = error {
                    self.tell(Condition::Unhealthy, Some(&error));
                    self.restart(bus, &error).await;
                }
            }
        }
    }

    /// In doubt; a failure that was told stays told.
    fn tell_doubt(&mut self) {
        let failure = self.told.clone();
        let condition = match failure {
            Some(_) => Condition::Unhealthy,
            None => Condition::Doubtful,
        };
        self.put(condition, failure);
    }

    fn tell(&mut self, condition: Condition, error: Option<&Error>) {
        let failure = error.map(Failure::from).or_else(|| self.notice.clone());
        let code = |failure: &Option<Failure>| failure.as_ref().map(|one| one.code.clone());
        let news = code(&failure) != code(&self.told);
        let service = self.service;
        match (error, news) {
            (Some(error), true) => tracing::error!(
                %service, code = %error.code(), "{}: {}", error.code(), error.story()
            ),
            (None, true) if condition == Condition::Healthy => {
                tracing::info!(%service, "{service} is healthy again");
            }
            _ => {}
        }
        self.told.clone_from(&failure);
        self.put(condition, failure);
    }

    fn put(&self, condition: Condition, failure: Option<Failure>) {
        let unit = self.unit.as_ref().and_then(|unit| unit.service.as_ref());
        self.machine.status.service(ServiceReport {
            name: self.service.to_string(),
            condition,
            restarts: unit.map_or(0, |service| service.restarts),
            restarted: self.restarted,
            failure,
        });
    }
}

/// By a watchdog, for want of memory, or by a signal that no operator sends.
fn ended_badly(unit: &UnitState) -> bool {
    unit.service.as_ref().is_some_and(|service| {
        matches!(
            service.result.as_str(),
            "watchdog" | "oom-kill" | "core-dump"
        )
    })
}
