//! When a document counts as good: the machine is Ready, every step is done and
//! every service healthy, for a minute.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{good, way_back};
use crate::machine::Machine;
use crate::status::{Condition, Report, State};
use crate::supervise::way_back::PROVEN;
use crate::sys::clock;
use units::NodeConfig;

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps the document of this machine once it is good; never returns.
pub async fn run(machine: Arc<Machine>) {
    if !way_back::SERVICES.iter().any(|one| machine.runs(*one)) {
        return pending().await;
    }
    let mut since = None;
    let mut told = false;
    loop {
        clock::pause(LOOK).await;
        if !machine
            .status
            .read(|report| is_well(report, &machine.config))
        {
            since = None;
            continue;
        }
        if since.get_or_insert_with(Instant::now).elapsed() < PROVEN {
            continue;
        }
        let (root, config) = (machine.root.clone(), machine.config.clone());
        match tokio::task::spawn_blocking(move || good::keep(&root, &config)).await {
            Ok(Ok(kept)) => {
                if kept {
                    tracing::info!("this document is good, and is kept");
                }
                return pending().await;
            }
            Ok(Err(error)) if !told => {
                told = true;
                tracing::warn!(code = %error.code(), "this document is not kept: {}", error.story());
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::warn!("this document is not kept: {error}"),
        }
        since = None;
    }
}

/// Whether everything is as it should be.
fn is_well(report: &Report, config: &NodeConfig) -> bool {
    let healthy = |name: String| {
        let mut services = report.services.iter();
        services.any(|one| one.name == name && one.condition == Condition::Healthy)
    };
    report.ready
        && report.first_failure().is_none()
        && report.steps.iter().all(|step| step.state == State::Done)
        && config.services.iter().all(|one| healthy(one.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};
    use crate::status::{Failure, ServiceReport, Status};
    use crate::sys::root::Root;

    #[test]
    fn a_document_is_good_when_everything_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let status = Status::new(Root::new(folder.path()), ["start"]);
        let sample = include_str!("../../../units/testdata/node-v1.yaml");
        let config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        let well = || status.read(|report| is_well(report, &config));
        let service = |name: String, condition, failure| ServiceReport {
            name,
            condition,
            restarts: 0,
            restarted: 0,
            failure,
        };
        status.set_ready(true);
        status.done("start", "started");
        let (last, others) = config.services.split_last().unwrap();
        for one in others {
            status.service(service(one.to_string(), Condition::Healthy, None));
        }
        assert!(!well(), "nothing is known of {last}");
        status.service(service(last.to_string(), Condition::Starting, None));
        assert!(!well());
        status.service(service(last.to_string(), Condition::Healthy, None));
        assert!(well());
        // It is healthy by another program than this document has.
        let gone_back = Failure::from(&Error::new(Code::RolledBack, "gone back"));
        status.service(service(
            last.to_string(),
            Condition::Healthy,
            Some(gone_back),
        ));
        assert!(!well());
        status.service(service(last.to_string(), Condition::Healthy, None));
        status.begin_anew(["start"], "ab");
        assert!(!well(), "the steps of another document have not begun");
        status.done("start", "were running");
        status.set_ready(false);
        assert!(!well());
    }
}
