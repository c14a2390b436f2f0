//! What is told, as it stands in `/run/knode/status.json`.

use serde::{Deserialize, Serialize};

use crate::balancer::ServerReport;
use crate::error::Error;
use units::types::{NodeName, Role};

/// The state of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for the steps before it.
    Pending,
    /// At work.
    Running,
    /// Failed, and will try again.
    Failed,
    /// Done; the machine is as it should be.
    Done,
}

/// A failure as told to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The stable code, `E-…`; see docs/errors.md.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub cure: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().to_string(),
            message: error.story(),
            cure: error.code().cure().to_owned(),
        }
    }
}

/// One step as told to operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Seconds since the agent started at which it began; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<f64>,
    /// Seconds from beginning to its first success; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<f64>,
    /// How often it failed since it last succeeded.
    #[serde(default)]
    pub failures: u32,
    /// What it found, did, or waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Why it failed last; absent once it succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl StepReport {
    /// A step that waits for those before it.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Pending,
            began: None,
            took: None,
            failures: 0,
            detail: String::new(),
            failure: None,
        }
    }
}

/// How a service of this machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It does not run, or not yet.
    Down,
    /// It runs, and has not answered yet.
    Starting,
    /// It runs and answers.
    Healthy,
    /// It runs and does not answer as it should, or only just.
    Doubtful,
    /// It has not answered as it should for long.
    Unhealthy,
    /// It starts and ends, over and over.
    Crashing,
}

/// One service as told to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// The service's name.
    pub name: String,
    /// How it is.
    pub condition: Condition,
    /// How often systemd restarted it since its last start by a job.
    #[serde(default)]
    pub restarts: u32,
    /// How often knode restarted it since knode started.
    #[serde(default)]
    pub restarted: u32,
    /// What is wrong with it; absent while nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The contents of `/run/knode/status.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The Node's name; absent when node.yaml could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The machine's role; absent when node.yaml could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The agent's version.
    pub version: String,
    /// The SHA-256 of the node.yaml that is applied, in hexadecimal; absent
    /// before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Whether the machine is a healthy member of its cluster.
    pub ready: bool,
    /// Seconds from the agent's start to ready; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_after: Option<f64>,
    /// Seconds of a processor that the agent itself had used by then: its own
    /// share of the boot, while the rest was waiting. Absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worked: Option<f64>,
    /// Seconds from the agent's start to when this was written.
    #[serde(default)]
    pub elapsed: f64,
    /// When this was written, RFC 3339, UTC.
    pub written: String,
    /// Every step, in the graph's order.
    pub steps: Vec<StepReport>,
    /// The API servers as the balancer sees them; empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_servers: Vec<ServerReport>,
    /// Every service that knode watches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceReport>,
    /// A failure outside any step, such as an unreadable node.yaml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Report {
    /// The first failure in the graph's order: the cause of those after it;
    /// after steps, services.
    pub fn first_failure(&self) -> Option<(&str, &Failure)> {
        let outside = self.failure.as_ref().map(|failure| ("knode", failure));
        let mut steps = self.steps.iter();
        let mut services = self.services.iter();
        outside
            .or_else(|| steps.find_map(|step| Some((step.name.as_str(), step.failure.as_ref()?))))
            .or_else(|| services.find_map(|one| Some((one.name.as_str(), one.failure.as_ref()?))))
    }

    /// One line: ready, the first failure, or what is being done.
    pub fn line(&self) -> String {
        let first = self.first_failure();
        let first = first.map(|(who, it)| format!("{who}: {}: {}", it.code, it.message));
        match first {
            Some(first) if self.ready => return format!("Ready; {first}"),
            Some(first) => return first,
            None if self.ready => return "Ready".to_owned(),
            None => {}
        }
        let busy: Vec<String> = self
            .steps
            .iter()
            .filter(|step| step.state == State::Running)
            .map(|step| match step.detail.as_str() {
                "" => step.name.clone(),
                detail => format!("{}: {detail}", step.name),
            })
            .collect();
        busy.join("; ")
    }
}
