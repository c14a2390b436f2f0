//! The balancer's port is taken by nothing else on the machine.

use std::ops::Range;

use serde_json::Value;
use units::types::Role;

use super::schema::{Args, Settings};
use super::values::{Endpoint, Host};
use crate::yaml::Reader;

/// The port of loopback behind which all API servers are.
pub const BALANCER: u16 = 7443;

/// Where NodePorts are unless the API server is told otherwise.
/// Source: kube-apiserver --help, --service-node-port-range.
const NODE_PORTS: &str = "30000-32767";

/// Adds whatever is told to listen where the balancer does.
pub fn check(r: &mut Reader, s: &Settings) {
    if !s.balanced() {
        return;
    }
    let nowhere = 0..0;
    let span = match (&s.balancer, &s.endpoint) {
        (Some(balancer), _) => &balancer.span,
        (None, Some(endpoint)) => &endpoint.span,
        (None, None) => &s.machines_span,
    };
    let mut find = |at: &Range<usize>, path: &str| {
        let message = format!("{path}: the port {BALANCER} is the balancer's");
        let help = "take another port, or write balancer: false and an endpoint";
        let at = if *at == nowhere { span } else { at };
        r.find(at, message, Some(help.to_owned()));
    };
    if s.api_port() == BALANCER
        && let Some(endpoint) = &s.endpoint
    {
        find(&endpoint.span, &endpoint.path);
    }
    for (program, args) in [
        ("apiServer", &s.apiserver_args),
        ("controllerManager", &s.controller_manager_args),
        ("scheduler", &s.scheduler_args),
    ] {
        if args
            .get("secure-port")
            .is_some_and(|port| port.trim() == "7443")
        {
            find(&nowhere, &format!("{program}.extraArgs.secure-port"));
        }
    }
    if within(node_ports(&s.apiserver_args)) {
        find(&nowhere, "apiServer.extraArgs.service-node-port-range");
    }
    for (path, config) in [
        ("kubelet.config", &s.kubelet),
        ("kubeProxy.config", &s.kube_proxy),
        ("etcd.config", &s.etcd),
    ] {
        for key in listening(config) {
            find(&nowhere, &format!("{path}.{key}"));
        }
    }
    let machines = s.machines.iter().map(|m| &m.layer);
    let pools = s.pools.iter().map(|p| &p.layer);
    for layer in [&s.roles.master, &s.roles.node]
        .into_iter()
        .chain(machines)
        .chain(pools)
    {
        let Some(config) = &layer.kubelet else {
            continue;
        };
        for key in listening(&config.value) {
            find(&config.span, &format!("{}.{key}", config.path));
        }
    }
}

/// The keys of a configuration that make its program listen at the
/// balancer's port: `port: 7443`, `bindAddress: 127.0.0.1:7443`,
/// `listen-client-urls: https://127.0.0.1:7443,…`.
fn listening(config: &Value) -> Vec<&str> {
    let is_ours = |value: &Value| match value {
        Value::Number(number) => number.as_u64() == Some(BALANCER.into()),
        Value::String(text) => text
            .split(',')
            .any(|place| place.trim().ends_with(&format!(":{BALANCER}"))),
        _ => false,
    };
    let names_port = |key: &str| {
        let key = key.to_ascii_lowercase();
        key.ends_with("port") || key.ends_with("bindaddress") || key.starts_with("listen-")
    };
    let entries = config.as_object().into_iter().flatten();
    entries
        .filter(|(key, value)| names_port(key) && is_ours(value))
        .map(|(key, _)| key.as_str())
        .collect()
}

fn node_ports(args: &Args) -> &str {
    args.get("service-node-port-range")
        .map_or(NODE_PORTS, String::as_str)
}

/// Whether a range of ports has the balancer's: `7000-8000`, `7000+1000`.
fn within(range: &str) -> bool {
    let port = |text: &str| text.trim().parse::<u32>().ok();
    let (first, last) = if let Some((first, last)) = range.split_once('-') {
        (port(first), port(last))
    } else if let Some((first, more)) = range.split_once('+') {
        let first = port(first);
        (
            first,
            first
                .zip(port(more))
                .map(|(first, more)| first.saturating_add(more)),
        )
    } else {
        (port(range), port(range))
    };
    let ours = u32::from(BALANCER);
    matches!((first, last), (Some(first), Some(last)) if (first..=last).contains(&ours))
}

impl Settings {
    /// Whether machines reach all masters through a port of their own.
    pub fn balanced(&self) -> bool {
        match &self.balancer {
            Some(typed) => typed.value,
            None => self.endpoint.is_none() && self.of_role(Role::Master).count() > 1,
        }
    }

    /// The port of every API server: the endpoint's where the endpoint is a
    /// master itself, not a load balancer.
    pub fn api_port(&self) -> u16 {
        let Some(endpoint) = &self.endpoint else {
            return Endpoint::PORT;
        };
        let is_master = self
            .of_role(Role::Master)
            .any(|m| match &endpoint.value.host {
                Host::Address(address) => m.addresses.iter().any(|a| a.value == *address),
                Host::Name(name) => *name == m.name.value.as_str(),
            });
        if is_master {
            endpoint.value.port
        } else {
            Endpoint::PORT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn ranges_of_ports_are_read() {
        for range in ["7000-8000", "7443-7443", "7000+443", "7443"] {
            assert!(within(range), "{range}");
        }
        for range in [
            super::NODE_PORTS,
            "7000-7442",
            "7000+442",
            "7444-8000",
            "",
            "a-b",
        ] {
            assert!(!within(range), "{range}");
        }
    }
}
