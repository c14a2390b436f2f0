//! Is this machine a healthy member of its cluster?

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::name;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use units::node_config::Service;

/// How long a Node may be on its way to Ready before that counts as a
/// failure.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a Ready Node is looked at.
const LOOK: Duration = Duration::from_secs(10);

pub struct Ready {
    /// Every other step of the machine.
    pub after: Vec<&'static str>,
}

impl Step<Machine> for Ready {
    fn name(&self) -> &'static str {
        name::READY
    }

    fn after(&self) -> &[&'static str] {
        &self.after
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            if !machine.runs(Service::Kubelet) {
                machine.status.set_ready(true);
                return Ok("all services run".to_owned());
            }
            let outcome = tokio::time::timeout(PATIENCE, until_ready(machine)).await;
            let outcome = outcome.unwrap_or_else(|_| {
                let reason = machine.status.read(|report| {
                    let step = report.steps.iter().find(|step| step.name == name::READY);
                    step.map_or(String::new(), |step| step.detail.clone())
                });
                Err(Error::new(Code::NotReady, "waiting for the Node to be Ready").because(reason))
            });
            machine.status.set_ready(outcome.is_ok());
            outcome.map(|()| "the Node is Ready".to_owned())
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(tokio::time::sleep(LOOK))
    }
}

async fn until_ready(machine: &Machine) -> Result<()> {
    let api = machine.kubelet_api()?;
    let path = format!("/api/v1/nodes/{}", machine.config.node.name);
    loop {
        match condition(&api.get(&path).await?.unwrap_or_default()) {
            Ok(()) => return Ok(()),
            Err(reason) => {
                machine.status.set_ready(false);
                machine.status.detail(name::READY, reason);
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The Node's Ready condition: fine, or the kubelet's reason.
fn condition(node: &Value) -> Result<(), String> {
    let ready = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    match ready {
        Some(ready) if ready["status"] == "True" => Ok(()),
        Some(ready) => Err(ready["message"]
            .as_str()
            .unwrap_or("no reason given")
            .to_owned()),
        None => Err("the kubelet has not reported yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_kubelets_reason_is_told() {
        let node = |status: &str| {
            json!({"status": {"conditions": [
                {"type": "DiskPressure", "status": "False"},
                {"type": "Ready", "status": status, "message": "cni plugin not initialized"},
            ]}})
        };
        assert_eq!(condition(&node("True")), Ok(()));
        assert_eq!(
            condition(&node("False")),
            Err("cni plugin not initialized".to_owned())
        );
        assert!(condition(&json!({})).is_err());
    }
}
