//! The API server of a master (P35).

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{name, services, wait_api};
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use units::node_config::Service;

pub struct Apiserver {
    /// Whether etcd runs on this machine as well.
    pub after_etcd: bool,
}

impl Step<Machine> for Apiserver {
    fn name(&self) -> &'static str {
        name::APISERVER
    }

    fn after(&self) -> &[&'static str] {
        if self.after_etcd {
            &[name::IDENTITY, name::ETCD]
        } else {
            &[name::IDENTITY]
        }
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            machine
                .until_installed(name::APISERVER, &["/opt/kubernetes/bin/kube-apiserver"])
                .await;
            let bus = services::connect().await?;
            services::ensure_active(&bus, Service::KubeApiserver, services::IfActive::Leave)
                .await?;
            wait_api::until_ready(machine, name::APISERVER).await?;
            Ok("ready".to_owned())
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(tokio::time::sleep(Duration::from_secs(15)))
    }
}
