//! Controller manager and scheduler of a master (P35, P38).

use futures_util::future::BoxFuture;

use super::{again, name, services, static_pods};
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use crate::upgrade::lock;
use units::node_config::Service;

pub struct Controllers;

impl Step<Machine> for Controllers {
    fn name(&self) -> &'static str {
        name::CONTROLLERS
    }

    fn after(&self) -> &[&'static str] {
        &[name::APISERVER]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            for service in [Service::KubeControllerManager, Service::KubeScheduler] {
                if machine.in_pod(service) {
                    services::ensure_current_pod(machine, service).await?;
                    static_pods::until_running(machine, name::CONTROLLERS, service).await?;
                }
            }
            let bus = services::connect().await?;
            for (service, program) in [
                (
                    Service::KubeControllerManager,
                    "/opt/kubernetes/bin/kube-controller-manager",
                ),
                (Service::KubeScheduler, "/opt/kubernetes/bin/kube-scheduler"),
            ] {
                if machine.runs(service) {
                    machine.until_installed(name::CONTROLLERS, &[program]).await;
                    services::ensure_active(machine, &bus, service, services::IfActive::Leave)
                        .await?;
                }
            }
            // This control plane is as it should be: another master's turn.
            lock::release(machine).await?;
            Ok("started".to_owned())
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(again::when_stopped(
            machine,
            &[Service::KubeControllerManager, Service::KubeScheduler],
        ))
    }
}
