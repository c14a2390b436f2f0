//! The kubelet before there is an API server: on a master whose control plane
//! it runs itself (P36).

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{name, services, start, static_pods};
use crate::error::{Code, Context, Result};
use crate::graph::Step;
use crate::machine::{Machine, known};
use units::node_config::{Registration, Service};
use units::paths;

/// Until knode has made the Node, with its pod range, the kubelet may not;
/// the start step takes this away.
const NOT_YET: &str = " --register-node=false";

pub struct Kubelet;

impl Step<Machine> for Kubelet {
    fn name(&self) -> &'static str {
        name::KUBELET
    }

    fn after(&self) -> &[&'static str] {
        &[name::CERTIFICATES, name::ADDRESS, name::RUNTIME]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            machine
                .until_installed(name::KUBELET, &["/opt/kubernetes/bin/kubelet"])
                .await;
            let root = &machine.root;
            static_pods::prepare(root, &machine.config.static_pods)?;
            let bus = services::connect().await?;
            let unit = Service::Kubelet.unit();
            let look = || format!("looking at {unit}");
            if bus.unit(unit).await.context(Code::Bus, look)?.is_active() {
                return Ok("was running".to_owned());
            }
            let addresses = known(&machine.addresses).await;
            let mut text = start::kubelet_environment(machine, &addresses)?;
            if machine.config.node.registration == Registration::Agent {
                text = format!("{}{NOT_YET}\n", text.trim_end());
            }
            root.write_atomic(paths::KUBELET_ENVIRONMENT, text.as_bytes(), 0o644)?;
            services::ensure_active(machine, &bus, Service::Kubelet, services::IfActive::Leave)
                .await?;
            Ok("started, for static pods".to_owned())
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(tokio::time::sleep(Duration::from_secs(60)))
    }
}
