//! The phases of a deployment, as this machine sees them: each has an exit
//! criterion, and can be asked for alone (P55).
//!
//! What the agent's steps and wardens found is in its status; whether the agent
//! is there to find anything, and what the API server says now, is asked.

use serde_json::Value;

use super::Finding;
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::status::{Condition, Failure, Report, State, Status};
use crate::steps::services;
use crate::sys::root::Root;
use units::NodeConfig;
use units::paths;

/// The agent's unit.
const AGENT: &str = "knode.service";

/// A part of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// The machine is fit to be a node: what `knode check` asks without a phase.
    Provision,
    /// The document is whole, and every certificate on the machine is good.
    Certificates,
    /// This master's etcd, API server and controllers run; elsewhere, an API
    /// server answers.
    Masters,
    /// The machine is a Node, and Ready.
    Nodes,
    /// Pods have their network here, and ways to those of others.
    Network,
    /// Every service answers its health check.
    Daemons,
    /// What masters keep in the cluster is there; elsewhere there is nothing
    /// to keep.
    AddOns,
}

impl Phase {
    /// The agent's steps that have to be done.
    fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Provision => &["preflight", "kernel", "fetch", "runtime"],
            Self::Certificates => &["identity", "certificates", "bootstrap"],
            Self::Masters => &["etcd", "apiserver", "controllers", "balancer", "wait"],
            Self::Nodes => &["address", "register", "start", "ready"],
            Self::Network => &["network", "peers"],
            Self::Daemons => &["removals", "hosts"],
            Self::AddOns => &["objects", "approve"],
        }
    }
}

/// What a phase is judged by.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What the agent told last.
    pub report: Option<Report>,
    /// What systemd says of the agent: `active`, `inactive`, …
    pub agent: String,
    /// What the API server says now of this machine's Node, where it was asked.
    pub node: Option<std::result::Result<Value, Failure>>,
}

/// Looks: at the status, at the agent, and for [`Phase::Nodes`] at the Node.
///
/// # Errors
///
/// [`Code::Bus`], [`Code::Disk`].
pub async fn see(root: &Root, config: &NodeConfig, phases: &[Phase]) -> Result<Seen> {
    let report = match root.read_if_exists(paths::STATUS)? {
        Some(text) => serde_json::from_slice(&text).ok(),
        None => None,
    };
    let bus = services::connect().await?;
    let agent = bus.unit(AGENT).await;
    let agent = agent.map_err(|error| Error::new(Code::Bus, error.to_string()))?;
    let asks = phases.contains(&Phase::Nodes) && config.runtime.is_some();
    let node = match asks {
        true => Some(node(root, config).await.map_err(|error| (&error).into())),
        false => None,
    };
    Ok(Seen {
        report,
        agent: agent.active,
        node,
    })
}

/// This machine's Node, with the kubelet's identity.
async fn node(root: &Root, config: &NodeConfig) -> Result<Value> {
    let unnamed = || Error::new(Code::HostName, "this machine has no name");
    let name = config.node.name.clone().ok_or_else(unnamed)?;
    let status = Status::new(root.clone(), []);
    let machine = Machine::new(config.clone(), name, root.clone(), status);
    let path = format!("/api/v1/nodes/{}", machine.name);
    let found = machine.kubelet_api()?.get(&path).await?;
    found.ok_or_else(|| Error::new(Code::NotReady, "there is no such Node"))
}

/// What is thought of a phase. [`Phase::Provision`] is that of
/// [`super::judge`] besides.
pub fn judge(phase: Phase, seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![agent(seen)];
    let Some(report) = &seen.report else {
        return findings;
    };
    for name in phase.steps() {
        if let Some(step) = report.steps.iter().find(|step| step.name == *name) {
            let wanted = "done";
            findings.push(match (&step.failure, step.state) {
                (None, State::Done) => Finding::ok(name, &step.detail, wanted),
                (Some(failure), _) => failed(name, failure, wanted),
                (None, state) => {
                    let doing = match step.detail.as_str() {
                        "" => format!("{state:?}").to_lowercase(),
                        detail => detail.to_owned(),
                    };
                    Finding::ok(name, doing, wanted).failure(Code::NotReady)
                }
            });
        }
    }
    if phase == Phase::Daemons {
        findings.extend(report.services.iter().map(|service| {
            let wanted = "healthy";
            match (&service.failure, service.condition) {
                (None, Condition::Healthy) => Finding::ok(&service.name, "healthy", wanted),
                (Some(failure), _) => failed(&service.name, failure, wanted),
                (None, condition) => {
                    let found = format!("{condition:?}").to_lowercase();
                    Finding::ok(&service.name, found, wanted).failure(Code::Unhealthy)
                }
            }
        }));
    }
    if phase == Phase::Nodes {
        findings.extend(seen.node.as_ref().map(is_ready));
    }
    findings
}

/// Without the agent, its status is of another time.
fn agent(seen: &Seen) -> Finding {
    let wanted = "active";
    match (seen.agent.as_str(), &seen.report) {
        // It is activating until the machine is Ready for the first time.
        ("active" | "activating" | "reloading", Some(_)) => {
            Finding::ok(AGENT, seen.agent.as_str(), wanted)
        }
        ("active" | "activating", None) => {
            Finding::ok(AGENT, "has told nothing yet", wanted).failure(Code::NotReady)
        }
        (state, _) => Finding::ok(AGENT, state, wanted).failure(Code::UnitFailed),
    }
}

fn failed(subject: &str, failure: &Failure, wanted: &str) -> Finding {
    let code = Code::ALL.iter().find(|code| code.as_str() == failure.code);
    let code = code.copied().unwrap_or(Code::NotReady);
    Finding::ok(subject, &failure.message, wanted).failure(code)
}

fn is_ready(node: &std::result::Result<Value, Failure>) -> Finding {
    let (subject, wanted) = ("Node", "Ready");
    let node = match node {
        Ok(node) => node,
        Err(failure) => return failed(subject, failure, wanted),
    };
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let Some(ready) = conditions.find(|condition| condition["type"] == "Ready") else {
        let found = "its kubelet has told nothing yet";
        return Finding::ok(subject, found, wanted).failure(Code::NotReady);
    };
    if ready["status"] == "True" {
        return Finding::ok(subject, "Ready", wanted);
    }
    let message = ready["message"].as_str().unwrap_or_default();
    Finding::ok(subject, message, wanted).failure(Code::NotReady)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Verdict, worst};
    use serde_json::json;

    fn report() -> Report {
        serde_json::from_value(json!({
            "node": "node-1", "role": "node", "version": "0.1.0", "ready": false,
            "written": "2026-11-21T14:00:00Z",
            "steps": [
                {"name": "identity", "state": "done", "detail": "9 files intact"},
                {"name": "fetch", "state": "failed", "failures": 3, "failure":
                    {"code": "E-FETCH-HASH", "message": "other bytes", "cure": "look"}},
                {"name": "network", "state": "running", "detail": "waiting for a range"},
            ],
            "services": [
                {"name": "kubelet", "condition": "healthy"},
                {"name": "containerd", "condition": "down"},
            ],
        }))
        .unwrap()
    }

    fn seen() -> Seen {
        Seen {
            report: Some(report()),
            agent: "activating".to_owned(),
            node: None,
        }
    }

    #[test]
    fn each_phase_is_judged_alone() {
        let verdicts = |phase| worst(&judge(phase, &seen()));
        assert_eq!(verdicts(Phase::Certificates), Verdict::Ok);
        assert_eq!(verdicts(Phase::AddOns), Verdict::Ok, "nothing to keep here");
        let provision = judge(Phase::Provision, &seen());
        let fetch = provision.iter().find(|f| f.subject == "fetch").unwrap();
        assert_eq!(fetch.code, Some(Code::FetchHash));
        let network = judge(Phase::Network, &seen());
        assert_eq!(network[1].found, "waiting for a range");
        assert_eq!(network[1].code, Some(Code::NotReady));
        let daemons = judge(Phase::Daemons, &seen());
        assert_eq!(daemons.len(), 3);
        assert_eq!(daemons[2].code, Some(Code::Unhealthy));
    }

    #[test]
    fn an_agent_that_is_not_there_tells_nothing() {
        let mut gone = seen();
        gone.agent = "failed".to_owned();
        let findings = judge(Phase::Certificates, &gone);
        assert_eq!(findings[0].code, Some(Code::UnitFailed));
        gone.agent = "active".to_owned();
        gone.report = None;
        let findings = judge(Phase::Certificates, &gone);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].code, Some(Code::NotReady));
    }

    #[test]
    fn a_node_is_what_the_api_server_says_now() {
        let condition = |status: &str| {
            let ready = json!({"type": "Ready", "status": status, "message": "no network"});
            Ok(json!({"status": {"conditions": [ready]}}))
        };
        assert_eq!(is_ready(&condition("True")).verdict, Verdict::Ok);
        let not = is_ready(&condition("False"));
        assert_eq!(
            (not.found.as_str(), not.code),
            ("no network", Some(Code::NotReady))
        );
        let gone = Error::new(Code::ApiUnreachable, "no answer");
        assert_eq!(
            is_ready(&Err((&gone).into())).code,
            Some(Code::ApiUnreachable)
        );
    }
}
