//! Starts kubelet and kube-proxy, told what only the running machine knows.

use std::net::IpAddr;

use futures_util::future::BoxFuture;

use super::services::{self, IfActive};
use super::static_pods;
use super::{again, name};
use crate::error::Result;
use crate::graph::Step;
use crate::machine::{Machine, known};
use units::node_config::{self, Registration, Service};
use units::paths;
use units::types::NodeName;

/// The name servers as systemd-resolved knows them. /etc/resolv.conf would
/// send pods to its stub on the node's loopback, which is not theirs (F5).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

pub struct Start {
    /// The steps before it: that the Node is there and its pods' network, unless
    /// the kubelet makes the Node.
    pub after: &'static [&'static str],
}

impl Step<Machine> for Start {
    fn name(&self) -> &'static str {
        name::START
    }

    fn after(&self) -> &[&'static str] {
        self.after
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let addresses = known(&machine.addresses).await;
            let name = &machine.name;
            if !machine.config.static_pods.is_empty() {
                static_pods::until_reported(machine).await?;
            }
            let bus = services::connect().await?;
            let mut started = Vec::new();
            for (service, path, text) in [
                (
                    Service::Kubelet,
                    paths::KUBELET_ENVIRONMENT,
                    kubelet_environment(machine, &addresses)?,
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
                if services::ensure_active(machine, &bus, service, if_active).await? {
                    started.push(service.to_string());
                }
            }
            Ok(match started.as_slice() {
                [] => "were running".to_owned(),
                started => format!("started {}", started.join(", ")),
            })
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(again::when_stopped(
            machine,
            &[Service::Kubelet, Service::KubeProxy],
        ))
    }
}

/// What only the running machine knows of the kubelet's arguments.
///
/// # Errors
///
/// [`crate::error::Code::Disk`].
pub fn kubelet_environment(machine: &Machine, addresses: &[IpAddr]) -> Result<String> {
    let resolved = machine.root.exists(RESOLVED)?;
    Ok(kubelet_arguments(
        &machine.name,
        &machine.config.node,
        addresses,
        resolved,
    ))
}

fn kubelet_arguments(
    name: &NodeName,
    node: &node_config::Node,
    addresses: &[IpAddr],
    resolved: bool,
) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let mut arguments = format!(
        "--hostname-override={name} --node-ip={}",
        addresses.join(",")
    );
    if resolved {
        arguments.push_str(" --resolv-conf=");
        arguments.push_str(RESOLVED);
    }
    // One that registers itself is born with its labels (P33). kgen refuses those
    // that no kubelet may give itself, at which it would not start.
    if node.registration == Registration::Kubelet && !node.labels.is_empty() {
        let labels = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        arguments.push_str(" --node-labels=");
        arguments.push_str(&labels.collect::<Vec<_>>().join(","));
    }
    format!("KUBELET_ARGS={arguments}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_is_told_its_name_and_address() {
        let name = "node-1".parse().unwrap();
        let sample = include_str!("../../../units/testdata/node-v1.yaml");
        let config: units::NodeConfig = serde_yaml::from_str(sample).unwrap();
        let mut node = config.node;
        let addresses = ["10.0.0.1".parse().unwrap()];
        let text = kubelet_arguments(&name, &node, &addresses, true);
        assert_eq!(
            text,
            "KUBELET_ARGS=--hostname-override=node-1 --node-ip=10.0.0.1 \
             --resolv-conf=/run/systemd/resolve/resolv.conf\n"
        );
        node.registration = Registration::Kubelet;
        node.labels
            .insert("example.com/zone".to_owned(), "z".to_owned());
        let text = kubelet_arguments(&name, &node, &addresses, false);
        assert_eq!(
            text,
            "KUBELET_ARGS=--hostname-override=node-1 --node-ip=10.0.0.1 \
             --node-labels=example.com/rack=a1,example.com/zone=z\n"
        );
    }
}
