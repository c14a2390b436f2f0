//! Starts kubelet and kube-proxy, told what only the running machine knows.

use std::net::IpAddr;

use futures_util::future::BoxFuture;

use super::name;
use super::services::{self, IfActive};
use crate::error::Result;
use crate::graph::Step;
use crate::machine::{Machine, known};
use units::node_config::Service;
use units::paths;
use units::types::NodeName;

/// The name servers as systemd-resolved knows them. /etc/resolv.conf would
/// send pods to its stub on the node's loopback, which is not theirs (F5).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

pub struct Start;

impl Step<Machine> for Start {
    fn name(&self) -> &'static str {
        name::START
    }

    fn after(&self) -> &[&'static str] {
        &[name::REGISTER, name::RUNTIME, name::NETWORK, name::FETCH]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let addresses = known(&machine.addresses).await;
            let name = &machine.config.node.name;
            let resolved = machine.root.exists(RESOLVED)?;
            let bus = services::connect().await?;
            let mut started = Vec::new();
            for (service, path, text) in [
                (
                    Service::Kubelet,
                    paths::KUBELET_ENVIRONMENT,
                    kubelet_environment(name, &addresses, resolved),
                ),
                (
                    Service::KubeProxy,
                    paths::KUBE_PROXY_ENVIRONMENT,
                    format!("KUBE_PROXY_ARGS=--hostname-override={name}\n"),
                ),
            ] {
                if !machine.runs(service) {
                    continue;
                }
                let changed = machine.root.write_atomic(path, text.as_bytes(), 0o644)?;
                let if_active = if changed.is_changed() {
                    IfActive::Restart
                } else {
                    IfActive::Leave
                };
                if services::ensure_active(&bus, service, if_active).await? {
                    started.push(service.to_string());
                }
            }
            Ok(match started.as_slice() {
                [] => "were running".to_owned(),
                started => format!("started {}", started.join(", ")),
            })
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(tokio::time::sleep(std::time::Duration::from_secs(15)))
    }
}

fn kubelet_environment(name: &NodeName, addresses: &[IpAddr], resolved: bool) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let mut arguments = format!(
        "--hostname-override={name} --node-ip={}",
        addresses.join(",")
    );
    if resolved {
        arguments.push_str(" --resolv-conf=");
        arguments.push_str(RESOLVED);
    }
    format!("KUBELET_ARGS={arguments}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_is_told_its_name_and_address() {
        let name = "node-1".parse().unwrap();
        let text = kubelet_environment(&name, &["10.0.0.1".parse().unwrap()], true);
        assert_eq!(
            text,
            "KUBELET_ARGS=--hostname-override=node-1 --node-ip=10.0.0.1 \
             --resolv-conf=/run/systemd/resolve/resolv.conf\n"
        );
    }
}
