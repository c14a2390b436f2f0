//! The ports at which knode listens are taken by nothing else on the machine.

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

/// What a machine of a cluster listens at whatever its settings say.
/// Source: Kubernetes documentation, "Ports and Protocols"; etcd, "Configuration
/// options".
const FIXED: [(u16, &str); 10] = [
    (22, "ssh"),
    (2379, "etcd"),
    (2380, "etcd"),
    (2381, "etcd"),
    (10248, "the kubelet"),
    (10249, "kube-proxy"),
    (10250, "the kubelet"),
    (10256, "kube-proxy"),
    (10257, "the controller manager"),
    (10259, "the scheduler"),
];

/// A port at which knode listens.
struct Ours {
    port: u16,
    whose: &'static str,
    help: &'static str,
    /// Where a clash is shown that has no place of its own.
    span: Range<usize>,
}

/// Adds whatever is told to listen where knode does.
pub fn check(r: &mut Reader, s: &Settings) {
    if s.balanced() {
        let span = match (&s.balancer, &s.endpoint) {
            (Some(balancer), _) => &balancer.span,
            (None, Some(endpoint)) => &endpoint.span,
            (None, None) => &s.machines_span,
        };
        let balancer = Ours {
            port: BALANCER,
            whose: "the balancer's",
            help: "take another port, or write balancer: false and an endpoint",
            span: span.clone(),
        };
        clashes(r, s, &balancer);
    }
    if let Some(port) = s.artifacts.neighbours {
        let neighbours = Ours {
            port,
            whose: "at which machines offer each other what they downloaded",
            help: "take another port, or another artifacts.neighboursPort",
            span: s.artifacts.neighbours_span.clone(),
        };
        let balancer = s.balanced().then_some((BALANCER, "the balancer"));
        let api = Some((s.api_port(), "the API server"));
        let others = FIXED.into_iter().chain(balancer).chain(api);
        for (_, other) in others.filter(|(other, _)| *other == port) {
            let message = format!("artifacts.neighboursPort: at port {port} listens {other}");
            let help = "take a port that is free on every machine, as 7444 usually is";
            r.find(&neighbours.span, message, Some(help.to_owned()));
        }
        clashes(r, s, &neighbours);
    }
}

fn clashes(r: &mut Reader, s: &Settings, ours: &Ours) {
    let nowhere = 0..0;
    let mut find = |at: &Range<usize>, path: &str| {
        let message = format!("{path}: the port {} is {}", ours.port, ours.whose);
        let at = if *at == nowhere { &ours.span } else { at };
        r.find(at, message, Some(ours.help.to_owned()));
    };
    // Of the neighbours' port it was told above.
    if ours.port == BALANCER
        && s.api_port() == BALANCER
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
            .is_some_and(|port| port.trim().parse() == Ok(ours.port))
        {
            find(&nowhere, &format!("{program}.extraArgs.secure-port"));
        }
    }
    if within(ours.port, node_ports(&s.apiserver_args)) {
        find(&nowhere, "apiServer.extraArgs.service-node-port-range");
    }
    for (path, config) in [
        ("kubelet.config", &s.kubelet),
        ("kubeProxy.config", &s.kube_proxy),
        ("etcd.config", &s.etcd),
    ] {
        for key in listening(ours.port, config) {
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
        for key in listening(ours.port, &config.value) {
            find(&config.span, &format!("{}.{key}", config.path));
        }
    }
}

/// The keys of a configuration that make its program listen at a port, say
/// 7443: `port: 7443`, `bindAddress: 127.0.0.1:7443`,
/// `listen-client-urls: https://127.0.0.1:7443,…`.
fn listening(port: u16, config: &Value) -> Vec<&str> {
    let is_ours = |value: &Value| match value {
        Value::Number(number) => number.as_u64() == Some(port.into()),
        Value::String(text) => text
            .split(',')
            .any(|place| place.trim().ends_with(&format!(":{port}"))),
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

/// Whether a range of ports has this one: `7000-8000`, `7000+1000`.
fn within(port: u16, range: &str) -> bool {
    let ours = u32::from(port);
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
            assert!(within(super::BALANCER, range), "{range}");
        }
        for range in [
            super::NODE_PORTS,
            "7000-7442",
            "7000+442",
            "7444-8000",
            "",
            "a-b",
        ] {
            assert!(!within(super::BALANCER, range), "{range}");
        }
    }
}
