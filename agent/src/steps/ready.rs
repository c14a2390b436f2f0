//! Is this machine a healthy member of its cluster: its Node Ready, and its
//! kube-proxy healthy?

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::{name, services};
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::supervise::place;
use crate::sys::bus::Bus;
use crate::sys::{clock, http};
use crate::upgrade::drain;
use units::node_config::Service;
use units::paths;

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
        Box::pin(clock::pause(LOOK))
    }
}

async fn until_ready(machine: &Machine) -> Result<()> {
    let api = machine.kubelet_api()?;
    let bus = services::connect().await?;
    let path = format!("/api/v1/nodes/{}", machine.name);
    loop {
        let node = api.get(&path).await?.unwrap_or_default();
        let services = match condition(&node) {
            Ok(()) => proxy_health(machine, &bus).await,
            Err(reason) => Err(with_kubelet(reason, &bus).await),
        };
        match services {
            // With its kubelet of another version, or back at the one before.
            Ok(()) => return drain::end(machine, &node).await,
            Err(reason) => {
                machine.status.set_ready(false);
                machine.status.detail(name::READY, reason);
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// A kubelet that does not stay up cannot say why itself; systemd can.
async fn with_kubelet(reason: String, bus: &Bus) -> String {
    let restarts = match bus.unit(Service::Kubelet.unit()).await {
        Ok(state) => state.service.map_or(0, |service| service.restarts),
        Err(_) => 0,
    };
    if restarts == 0 {
        return reason;
    }
    let state = services::describe(bus, Service::Kubelet).await;
    format!("{reason}; kubelet.service is {state}: see its journal")
}

/// A Node can be Ready while its services are unreachable, so ask kube-proxy
/// as well: fine, or why not.
async fn proxy_health(machine: &Machine, bus: &Bus) -> Result<(), String> {
    if !machine.runs(Service::KubeProxy) {
        return Ok(());
    }
    let answered = async {
        let config = machine.root.read_to_string(paths::KUBE_PROXY_CONFIG)?;
        let url = place::kube_proxy(&config)?;
        let asked = machine.local_client()?.get(&url).send().await;
        let reply = asked.map_err(|error| http::refused(error, &url))?;
        reply
            .error_for_status()
            .map_err(|error| http::refused(error, &url))?;
        Ok(())
    };
    match answered.await {
        Ok(()) => Ok(()),
        Err(error) => {
            let error: Error = error;
            let state = services::describe(bus, Service::KubeProxy).await;
            Err(format!(
                "kube-proxy is not healthy ({state}): {}",
                error.story()
            ))
        }
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
