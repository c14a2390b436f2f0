//! Settings that may be meant, and are often regretted.

use std::time::Duration;

use units::node_config::{NetworkMode, RuntimeSource};
use units::types::Role;

use super::schema::Settings;
use super::values::Host;
use super::{azure, openstack, pxe};
use crate::report::{Finding, Report};

/// Kubernetes' first release that drops containerd 1.x.
const CONTAINERD_2: u32 = 36;
/// A token that is good for longer has often been forgotten.
const LONG_TTL: Duration = Duration::from_hours(24 * 30);

/// Everything that is worth a second thought.
pub fn warnings(s: &Settings, source: &str) -> Report {
    let mut report = Report::default();
    let mut warn = |message: String, help: &str| {
        let finding = Finding::new(format!("{source}: {message}")).help(help);
        report.add(finding.warning());
    };
    if s.runtime.source == RuntimeSource::Distribution && s.version.minor >= CONTAINERD_2 {
        warn(
            format!(
                "runtime.source: Kubernetes {} wants containerd 2.0 or newer",
                s.version
            ),
            "the images' containerd has to be that new; runtime.source: artifact brings one",
        );
    }
    let masters = s.of_role(Role::Master).count();
    if masters > 1
        && !s.balanced()
        && s.endpoint
            .as_ref()
            .is_none_or(|e| is_one_master(s, &e.value.host))
    {
        warn(
            format!("endpoint: is one of {masters} masters, and nobody reaches the API without it"),
            "write balancer: true, or name a load balancer or a DNS name that stands for all masters",
        );
    }
    if !s.pools.is_empty() && s.network.mode == NetworkMode::Routed {
        warn(
            "network.mode: nobody knows the machines of pools yet, nor their pod ranges".to_owned(),
            "something of the cloud's has to make a route for each Node that comes, as its \
             controller manager does; vxlan and host-gw need nobody",
        );
    }
    let own = s.pools.iter().filter_map(|p| p.token_ttl);
    let ttls = own.chain(s.roles.token_ttl.as_ref().map(|ttl| ttl.value));
    if ttls.max().is_some_and(|ttl| ttl > LONG_TTL) {
        warn(
            "tokenTTL: is longer than 30 days".to_owned(),
            "until then whoever reads the document can join machines to the cluster",
        );
    }
    let platforms = azure::warnings(s).into_iter();
    let platforms = platforms.chain(openstack::warnings(s));
    for (message, help) in platforms.chain(pxe::warnings(s)) {
        warn(message, help);
    }
    if !s.network.metadata_guard {
        warn(
            "network.metadataGuard: pods can read their machine's user-data".to_owned(),
            "its keys are in it; leave the guard on where user-data comes from a metadata service",
        );
    }
    for registry in &s.system.registries {
        let mirrors = registry.mirrors.iter().map(|m| (&m.url, &m.access));
        for (name, access) in [(&registry.host, &registry.access)]
            .into_iter()
            .chain(mirrors)
        {
            if access.skip_verify {
                warn(
                    format!("registries: skipVerify: whoever answers for {name} is believed"),
                    "give its authority as ca",
                );
            }
        }
    }
    report
}

fn is_one_master(s: &Settings, host: &Host) -> bool {
    s.of_role(Role::Master).any(|master| match host {
        Host::Address(address) => master.addresses.iter().any(|a| a.value == *address),
        Host::Name(name) => master.name.value.as_str() == name,
    })
}
