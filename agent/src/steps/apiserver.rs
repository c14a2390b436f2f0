//! The API server of a master (P35).

use futures_util::future::BoxFuture;

use super::{again, name, services, static_pods, wait_api};
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use units::node_config::Service;

pub struct Apiserver {
    /// The steps before it: etcd, where that runs on this machine as well.
    pub after: &'static [&'static str],
}

impl Step<Machine> for Apiserver {
    fn name(&self) -> &'static str {
        name::APISERVER
    }

    fn after(&self) -> &[&'static str] {
        self.after
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            if machine.in_pod(Service::KubeApiserver) {
                services::ensure_current_pod(machine, Service::KubeApiserver).await?;
                let ready = wait_api::until_ready(machine, name::APISERVER);
                static_pods::patiently(machine, Service::KubeApiserver, ready).await?;
                return Ok("ready, in its pod".to_owned());
            }
            machine
                .until_installed(name::APISERVER, &["/opt/kubernetes/bin/kube-apiserver"])
                .await;
            let bus = services::connect().await?;
            services::ensure_active(
                machine,
                &bus,
                Service::KubeApiserver,
                services::IfActive::Leave,
            )
            .await?;
            wait_api::until_ready(machine, name::APISERVER).await?;
            Ok("ready".to_owned())
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(again::when_stopped(machine, &[Service::KubeApiserver]))
    }
}
