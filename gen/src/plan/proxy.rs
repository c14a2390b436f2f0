//! The proxy's environment, in one file that all services of ours read.
//! Source: systemd.exec(5), "EnvironmentFile="; Go's golang.org/x/net/http/httpproxy.

use ::units::embedded;
use ::units::paths;

use super::files::{public, secret};
use super::{Parts, PlannedFile, node_config};
use crate::cluster::{Cluster, Host};
use crate::secret::Secret;
use crate::system::Proxy;

/// The environment, and drop-ins for units of the distribution, which do not
/// read it by themselves.
pub fn files(parts: Parts<'_>) -> Vec<PlannedFile> {
    let Some(proxy) = &parts.system.proxy else {
        return Vec::new();
    };
    let cluster = parts.cluster;
    let mut files = vec![secret(
        paths::PROXY_ENVIRONMENT,
        environment(proxy, &no_proxy(cluster, proxy)),
    )];
    let services = node_config::services(cluster, parts.machine);
    let others = services
        .into_iter()
        .filter(|service| embedded::unit(*service, cluster.runtime_source).is_none());
    files.extend(others.map(|service| {
        let path = format!("/etc/systemd/system/{}.d/20-proxy.conf", service.unit());
        let file = paths::PROXY_ENVIRONMENT;
        public(path, format!("[Service]\nEnvironmentFile=-{file}\n"))
    }));
    files
}

/// The same as names and values, for pods; none without a proxy. The values
/// may hold a password.
pub fn variables(parts: Parts<'_>) -> Vec<(String, String)> {
    let proxy = parts.system.proxy.as_ref();
    proxy
        .map(|proxy| settings(proxy, &no_proxy(parts.cluster, proxy)))
        .unwrap_or_default()
}

fn environment(proxy: &Proxy, no_proxy: &str) -> Secret {
    let mut text = String::new();
    for (name, value) in settings(proxy, no_proxy) {
        // A URL has neither quotes nor backslashes.
        text.push_str(&format!("{name}=\"{value}\"\n"));
    }
    Secret::from(text)
}

/// Programs look for either case: curl for `http_proxy` alone, others for the
/// upper one first.
fn settings(proxy: &Proxy, no_proxy: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut set = |name: &str, value: &str| {
        for name in [name.to_owned(), name.to_uppercase()] {
            all.push((name, value.to_owned()));
        }
    };
    for (name, url) in [("http_proxy", &proxy.http), ("https_proxy", &proxy.https)] {
        if let Some(url) = url.as_ref().and_then(Secret::expose_text) {
            set(name, url);
        }
    }
    set("no_proxy", no_proxy);
    all
}

/// What belongs to the cluster, and what the operator names.
fn no_proxy(cluster: &Cluster, proxy: &Proxy) -> String {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.0/8", "::1"]
        .map(str::to_owned)
        .into();
    hosts.extend(cluster.pod_cidrs.iter().map(ToString::to_string));
    hosts.extend(cluster.service_cidrs.iter().map(ToString::to_string));
    for machine in node_config::named_everywhere(cluster) {
        hosts.extend(machine.addresses.iter().map(ToString::to_string));
        hosts.push(machine.name.to_string());
    }
    hosts.push(match &cluster.endpoint.host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    });
    hosts.push(".svc".to_owned());
    hosts.push(format!(".{}", cluster.domain));
    hosts.extend(proxy.no_proxy.iter().cloned());
    let mut once: Vec<String> = Vec::with_capacity(hosts.len());
    for host in hosts {
        if !once.contains(&host) {
            once.push(host);
        }
    }
    once.join(",")
}
