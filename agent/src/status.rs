//! What is true now: every step's state, and the first failure, told to
//! `/run/knode/status.json`, the journal, systemd's status line and, for a new
//! first failure, the console.

mod report;
mod table;

pub use report::{Condition, Failure, Report, ServiceReport, State, StepReport};
pub use table::table;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::balancer::ServerReport;
use crate::error::Error;
use crate::sys::root::Root;
use crate::sys::{clock, console};
use units::paths;
use units::types::{NodeName, Role};

/// The most lines on waiting that the console is told: it is no log.
const AWAITED: usize = 32;

/// The handle through which steps tell what they do. Clones share one report.
#[derive(Debug, Clone)]
pub struct Status {
    shared: Arc<Mutex<Shared>>,
    root: Root,
    started: Instant,
}

#[derive(Debug)]
struct Shared {
    report: Report,
    /// Whether the report was written at all.
    is_told: bool,
    /// Steps between their beginning and their end.
    looking: BTreeSet<String>,
    told: Option<(String, String)>,
    line: String,
    /// What the console was told of long waits.
    awaited: BTreeSet<String>,
}

impl Status {
    /// A status for steps with these names, written below `root`.
    pub fn new(root: Root, names: impl IntoIterator<Item = &'static str>) -> Self {
        let report = Report {
            node: None,
            role: None,
            config: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: false,
            ready_after: None,
            worked: None,
            elapsed: 0.0,
            written: String::new(),
            steps: names.into_iter().map(StepReport::new).collect(),
            api_servers: Vec::new(),
            services: Vec::new(),
            failure: None,
        };
        Self {
            shared: Arc::new(Mutex::new(Shared {
                report,
                is_told: false,
                looking: BTreeSet::new(),
                told: None,
                line: String::new(),
                awaited: BTreeSet::new(),
            })),
            root,
            started: Instant::now(),
        }
    }

    /// Steps of another node.yaml, none of which has begun; what else is known
    /// stays until it is told otherwise, and so do the times of a boot.
    pub fn begin_anew(&self, names: impl IntoIterator<Item = &'static str>, config: &str) {
        let mut steps: Vec<StepReport> = names.into_iter().map(StepReport::new).collect();
        self.change(|report, _| {
            for step in &mut steps {
                if let Some(before) = report.steps.iter().find(|one| one.name == step.name) {
                    (step.began, step.took) = (before.began, before.took);
                }
            }
            report.steps = steps;
            report.config = Some(config.to_owned());
        });
    }

    /// Services that are not among these are not the machine's any more.
    pub fn only_services(&self, names: &BTreeSet<String>) {
        self.change(|report, _| report.services.retain(|one| names.contains(&one.name)));
    }

    /// Says which machine this is.
    pub fn identify(&self, node: NodeName, role: Role) {
        self.change(|report, _| {
            report.node = Some(node);
            report.role = Some(role);
        });
    }

    /// A step begins. One that is done and looks again stays done until it
    /// says that it found something to do.
    pub fn begin(&self, step: &str) {
        self.shared().looking.insert(step.to_owned());
        self.change_step(step, |report, now| {
            if report.state != State::Done {
                report.state = State::Running;
            }
            report.began.get_or_insert(now);
        });
        tracing::debug!(step, "{step} begins");
    }

    /// What a running step does or waits for, in a few words.
    pub fn detail(&self, step: &str, detail: impl Into<String>) {
        let detail = detail.into();
        let known = self.read(|report| {
            report
                .steps
                .iter()
                .any(|s| s.name == step && s.detail == detail)
        });
        if known {
            return;
        }
        tracing::info!(step, "{step}: {detail}");
        self.progress(step, detail);
    }

    /// What a running step has waited for a while: as [`Status::detail`], and on
    /// the console, so that who looks at nothing else sees what is missing.
    /// Each reason once, and [`AWAITED`] of them at most.
    pub fn waits(&self, step: &str, detail: impl Into<String>) {
        let detail = detail.into();
        let line = format!("knode: {step}: {detail}");
        let news = {
            let awaited = &mut self.shared().awaited;
            awaited.len() < AWAITED && awaited.insert(line.clone())
        };
        if news {
            self.tell_console(&line);
        }
        self.detail(step, detail);
    }

    /// How far a running step came: told in the status, and not to the journal.
    pub fn progress(&self, step: &str, detail: impl Into<String>) {
        let detail = detail.into();
        let looks = self.shared().looking.contains(step);
        self.change_step(step, |report, _| {
            if looks && report.state == State::Done {
                report.state = State::Running;
            }
            report.detail = detail;
        });
    }

    /// What failed within a running step works again, and the step goes on.
    pub fn recovered(&self, step: &str) {
        let failed = |report: &Report| {
            let mut steps = report.steps.iter();
            steps.any(|s| s.name == step && s.state == State::Failed)
        };
        if self.read(failed) {
            self.change_step(step, |report, _| {
                report.state = State::Running;
                report.failure = None;
            });
        }
    }

    /// A step succeeded.
    pub fn done(&self, step: &str, detail: impl Into<String>) {
        let detail = detail.into();
        let mut first = None;
        self.shared().looking.remove(step);
        self.change_step(step, |report, now| {
            report.state = State::Done;
            report.failures = 0;
            report.failure = None;
            report.detail.clone_from(&detail);
            if report.took.is_none() {
                report.took = report.began.map(|began| round(now - began));
                first = report.took;
            }
        });
        if let Some(seconds) = first {
            tracing::info!(step, seconds, "{step}: done: {detail}");
        }
    }

    /// A step failed and will try again after `pause`.
    pub fn failed(&self, step: &str, error: &Error, pause: Duration) {
        let failure = Failure::from(error);
        let mut repeated = false;
        self.shared().looking.remove(step);
        self.change_step(step, |report, _| {
            report.state = State::Failed;
            report.failures = report.failures.saturating_add(1);
            repeated = report.failure.as_ref() == Some(&failure);
            report.failure = Some(failure.clone());
        });
        // The same failure for hours is one line, not thousands (F29).
        if repeated {
            tracing::debug!(step, code = %error.code(), "{step}: {}", failure.message);
        } else {
            tracing::error!(
                step,
                code = %error.code(),
                "{step}: {}: {} {} Trying again in {:.1} s.",
                error.code(), sentence(&failure.message), failure.cure, pause.as_secs_f64()
            );
        }
    }

    /// How a service is now; says whether that is news.
    pub fn service(&self, service: ServiceReport) -> bool {
        let known = |report: &Report| report.services.contains(&service);
        if self.read(known) {
            return false;
        }
        self.change(|report, _| {
            let mut services = report.services.iter_mut();
            match services.find(|known| known.name == service.name) {
                Some(known) => *known = service,
                None => report.services.push(service),
            }
        });
        true
    }

    /// A failure outside any step.
    pub fn failed_outside(&self, error: &Error) {
        let failure = Failure::from(error);
        tracing::error!(code = %error.code(), "{}: {} {}", error.code(), sentence(&failure.message), failure.cure);
        self.change(|report, _| report.failure = Some(failure));
    }

    /// What failed outside any step works again.
    pub fn recovered_outside(&self) {
        if self.read(|report| report.failure.is_some()) {
            self.change(|report, _| report.failure = None);
        }
    }

    /// Whether the machine is a healthy member of its cluster.
    pub fn set_ready(&self, ready: bool) {
        let mut news = false;
        self.change(|report, now| {
            news = report.ready != ready;
            report.ready = ready;
            if ready {
                report.ready_after.get_or_insert(now);
                if report.worked.is_none() {
                    report.worked = clock::worked().map(|time| round(time.as_secs_f64()));
                }
            }
        });
        if news {
            let told = if ready { "Ready" } else { "not Ready" };
            tracing::info!(ready, "node is {told}");
            self.tell_console(&format!("knode: node is {told}"));
        }
    }

    /// How the API servers are, as the balancer sees them.
    pub fn api_servers(&self, servers: Vec<ServerReport>) {
        self.change(|report, _| report.api_servers = servers);
    }

    /// A look at the report.
    pub fn read<T>(&self, look: impl FnOnce(&Report) -> T) -> T {
        look(&self.shared().report)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_step(&self, step: &str, change: impl FnOnce(&mut StepReport, f64)) {
        self.change(|report, now| {
            if let Some(found) = report.steps.iter_mut().find(|s| s.name == step) {
                change(found, now);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Report, f64)) {
        let now = round(self.started.elapsed().as_secs_f64());
        let mut shared = self.shared();
        let before = shared.report.clone();
        change(&mut shared.report, now);
        // Looks that find all as it was are not told: a machine at rest rests.
        if shared.report == before && shared.is_told {
            return;
        }
        shared.report.elapsed = now;
        shared.report.written = OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default();
        self.tell(&mut shared);
    }

    /// Telling must never stop the work: what fails here is logged.
    fn tell(&self, shared: &mut Shared) {
        let text = match serde_json::to_vec_pretty(&shared.report) {
            Ok(text) => text,
            Err(error) => return tracing::warn!("cannot put the status into words: {error}"),
        };
        let written = self.root.write_atomic(paths::STATUS, &text, 0o644);
        shared.is_told = written.is_ok();
        if let Err(error) = written {
            tracing::warn!("cannot tell the status: {error}");
        }
        let line = shared.report.line();
        if line != shared.line {
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Status(&line)]) {
                tracing::debug!("cannot tell systemd: {error}");
            }
            shared.line = line;
        }
        let first = shared
            .report
            .first_failure()
            .map(|(step, failure)| (step.to_owned(), failure.code.clone()));
        if first != shared.told {
            if let Some((step, failure)) = shared.report.first_failure() {
                self.tell_console(&format!(
                    "knode: {step}: {}: {} {}",
                    failure.code,
                    sentence(&failure.message),
                    failure.cure
                ));
            }
            shared.told = first;
        }
    }

    /// The serial console is what an operator sees of a machine that nobody
    /// can log in to; many containers have none.
    fn tell_console(&self, line: &str) {
        if let Err(error) = console::say(&self.root, line) {
            tracing::debug!("cannot tell the console: {error}");
        }
    }
}

/// `message` with a full stop, to put another sentence behind.
fn sentence(message: &str) -> String {
    match message.chars().last() {
        Some('.' | '!' | '?') => message.to_owned(),
        _ => format!("{message}."),
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_first_failure_in_graph_order_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("run/knode")).unwrap();
        let status = Status::new(Root::new(folder.path()), ["fetch", "start"]);
        status.begin("start");
        let pause = Duration::from_secs(1);
        status.failed(
            "start",
            &Error::new(Code::UnitFailed, "starting kubelet"),
            pause,
        );
        status.failed(
            "fetch",
            &Error::new(Code::FetchHash, "fetching kubelet"),
            pause,
        );
        let line = status.read(Report::line);
        assert_eq!(line, "fetch: E-FETCH-HASH: fetching kubelet");

        let text = std::fs::read_to_string(folder.path().join("run/knode/status.json")).unwrap();
        let report: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(report.first_failure().unwrap().1.code, "E-FETCH-HASH");

        status.done("fetch", "4 artifacts");
        assert_eq!(
            status.read(|r| r.first_failure().unwrap().0.to_owned()),
            "start"
        );
    }

    #[test]
    fn the_console_is_told_once_of_a_long_wait_and_of_readiness() {
        let folder = tempfile::tempdir().unwrap();
        for place in ["run/knode", "dev"] {
            std::fs::create_dir_all(folder.path().join(place)).unwrap();
        }
        let console = folder.path().join("dev/console");
        std::fs::write(&console, "").unwrap();
        let status = Status::new(Root::new(folder.path()), ["wait"]);
        let told = || std::fs::read_to_string(&console).unwrap();
        status.begin("wait");
        status.detail("wait", "waiting for m");
        assert_eq!(told(), "");
        // A file keeps what was written before; a line takes its place.
        status.waits("wait", "waiting for m");
        assert_eq!(told(), "knode: wait: waiting for m\r\n");
        std::fs::write(&console, "").unwrap();
        status.waits("wait", "waiting for m");
        status.set_ready(false);
        assert_eq!(told(), "");
        status.set_ready(true);
        assert_eq!(told(), "knode: node is Ready\r\n");
        assert_eq!(status.read(|r| r.steps[0].detail.clone()), "waiting for m");
    }

    #[test]
    fn another_node_yaml_begins_anew_and_keeps_the_times_of_the_boot() {
        let folder = tempfile::tempdir().unwrap();
        let status = Status::new(Root::new(folder.path()), ["fetch", "start"]);
        status.set_ready(true);
        status.begin("fetch");
        status.done("fetch", "");
        let error = Error::new(Code::UnitFailed, "starting kubelet");
        status.failed("start", &error, Duration::from_secs(1));
        let took = status.read(|report| report.steps[0].took);
        status.begin_anew(["fetch", "network"], "ab");
        status.read(|report| {
            let names: Vec<&str> = report.steps.iter().map(|s| s.name.as_str()).collect();
            assert_eq!(names, ["fetch", "network"]);
            assert!(report.steps.iter().all(|s| s.state == State::Pending));
            assert_eq!(report.steps[0].took, took);
            assert!(report.first_failure().is_none() && report.ready);
            assert_eq!(report.config.as_deref(), Some("ab"));
        });
    }

    #[test]
    fn a_look_that_finds_all_as_it_was_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/knode/status.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let status = Status::new(Root::new(folder.path()), ["ready"]);
        let state = || status.read(|report| report.steps[0].state);
        let look = || {
            status.begin("ready");
            status.done("ready", "the Node is Ready");
        };
        look();
        std::fs::remove_file(&path).unwrap();
        look();
        assert!(!path.exists(), "written, and nothing had changed");
        // One that finds something to do says so, and is done after it.
        status.begin("ready");
        assert_eq!(state(), State::Done);
        status.detail("ready", "waiting for the kubelet");
        assert_eq!(state(), State::Running);
        assert!(path.exists());
        status.done("ready", "the Node is Ready");
        // What is told between two looks is no look.
        status.detail("ready", "two of three healthy");
        assert_eq!(state(), State::Done);
    }
}
