//! knode's word on the Node itself: a condition `KnodeHealthy`, so that
//! `kubectl describe node` names what is wrong without a look at the machine
//! (P59, B4).
//!
//! The kubelet's identity may change its own Node's status and no other's.
//! The kubelet leaves conditions alone that are not its own.
//! Source: Kubernetes API, core/v1 NodeCondition; node-problem-detector.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Result;
use crate::machine::Machine;
use crate::retry::Backoff;
use crate::status::Report;
use crate::sys::clock;
use units::node_config::Service;

/// The condition's type.
pub const TYPE: &str = "KnodeHealthy";
/// How often knode looks whether there is news; told is what two looks see.
const LOOK: Duration = Duration::from_secs(5);
/// How often the condition is looked at when there is none.
const REFRESH: Duration = Duration::from_secs(10 * 60);
/// A message is told so far, as the kubelet's are short too.
const MESSAGE: usize = 500;

/// What the condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    healthy: bool,
    reason: String,
    message: String,
}

impl Said {
    fn of(report: &Report) -> Self {
        match report.first_failure() {
            Some((place, failure)) => Self {
                healthy: false,
                reason: failure.code.clone(),
                message: format!("{place}: {}", failure.message)
                    .chars()
                    .take(MESSAGE)
                    .collect(),
            },
            None => Self {
                healthy: true,
                reason: "NothingFails".to_owned(),
                message: "every step and service is as it should be".to_owned(),
            },
        }
    }

    /// Whether an operator has to hear of the difference; a message may
    /// change with every attempt.
    fn is_news(&self, other: &Self) -> bool {
        (self.healthy, &self.reason) != (other.healthy, &other.reason)
    }

    /// A change of the Node's status; `None` where it says so already.
    /// `now` is RFC 3339.
    fn patch(&self, node: &Value, now: &str) -> Option<Value> {
        let conditions = node["status"]["conditions"].as_array();
        let known = conditions.into_iter().flatten().find(|c| c["type"] == TYPE);
        let status = if self.healthy { "True" } else { "False" };
        let mut since = json!(now);
        if let Some(known) = known
            && known["status"] == status
        {
            if known["reason"] == *self.reason && known["message"] == *self.message {
                return None;
            }
            since = known["lastTransitionTime"].clone();
        }
        Some(json!({"status": {"conditions": [{
            "type": TYPE,
            "status": status,
            "reason": self.reason,
            "message": self.message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": since,
        }]}}))
    }
}

/// Tells what changes, for ever. An API server that is away is met ever more
/// rarely (F29).
pub async fn run(machine: Arc<Machine>) {
    if !machine.runs(Service::Kubelet) {
        return std::future::pending().await;
    }
    let mut backoff = Backoff::new(LOOK, Duration::from_secs(60));
    let mut told: Option<Said> = None;
    let mut seen: Option<Said> = None;
    let mut since = tokio::time::Instant::now();
    loop {
        clock::pause(LOOK).await;
        let said = machine.status.read(Said::of);
        let lasts = seen.as_ref().is_some_and(|seen| !seen.is_news(&said));
        seen = Some(said.clone());
        let news = told.as_ref().is_none_or(|told| told.is_news(&said));
        if !lasts || !(news || since.elapsed() > REFRESH) {
            continue;
        }
        match tell(&machine, &said).await {
            Ok(()) => {
                told = Some(said);
                since = tokio::time::Instant::now();
                backoff.reset();
            }
            Err(error) => {
                // Before it is registered, or while its API server is away.
                tracing::debug!(code = %error.code(), "telling the Node: {}", error.story());
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

async fn tell(machine: &Machine, said: &Said) -> Result<()> {
    let api = machine.kubelet_api()?;
    let path = format!("/api/v1/nodes/{}", machine.name);
    let Some(node) = api.get(&path).await? else {
        return Err(crate::error::Error::new(
            crate::error::Code::NotReady,
            "the Node is not registered",
        ));
    };
    let now = OffsetDateTime::now_utc().replace_nanosecond(0);
    let now = now.ok().and_then(|now| now.format(&Rfc3339).ok());
    if let Some(patch) = said.patch(&node, &now.unwrap_or_default()) {
        api.merge_members(&format!("{path}/status"), &patch).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};
    use crate::status::Status;
    use crate::sys::root::Root;

    #[test]
    fn the_first_failure_becomes_the_conditions_reason() {
        let folder = tempfile::tempdir().unwrap();
        let status = Status::new(Root::new(folder.path()), ["fetch"]);
        assert!(status.read(Said::of).healthy);
        let error = Error::new(Code::FetchHash, "fetching kubelet");
        status.failed("fetch", &error, Duration::from_secs(1));
        let said = status.read(Said::of);
        let patch = said.patch(&json!({}), "2026-11-20T10:00:00Z").unwrap();
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(condition["status"], "False");
        assert_eq!(condition["reason"], "E-FETCH-HASH");
        assert_eq!(condition["message"], "fetch: fetching kubelet");
        assert_eq!(condition["lastTransitionTime"], "2026-11-20T10:00:00Z");
    }

    #[test]
    fn the_transition_is_when_it_was_and_nothing_is_told_twice() {
        let said = |healthy, reason: &str| Said {
            healthy,
            reason: reason.to_owned(),
            message: String::new(),
        };
        let node = |said: &Said, now| said.patch(&json!({}), now).unwrap();
        let before = node(&said(false, "E-A"), "10:00");
        assert_eq!(said(false, "E-A").patch(&before, "11:00"), None);
        let after = said(false, "E-B").patch(&before, "11:00").unwrap();
        let condition = &after["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "10:00");
        assert_eq!(condition["lastHeartbeatTime"], "11:00");
        let well = said(true, "E-B").patch(&before, "12:00").unwrap();
        let condition = &well["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "12:00");
    }
}
