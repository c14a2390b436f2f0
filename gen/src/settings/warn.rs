//! Settings that may be meant, and are often regretted.

use units::node_config::RuntimeSource;
use units::types::Role;

use super::schema::Settings;
use super::values::Host;
use crate::report::{Finding, Report};

/// Kubernetes' first release that drops containerd 1.x.
const CONTAINERD_2: u32 = 36;

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
        && s.endpoint
            .as_ref()
            .is_none_or(|e| is_one_master(s, &e.value.host))
    {
        warn(
            format!("endpoint: is one of {masters} masters, and nobody reaches the API without it"),
            "name a load balancer, or a DNS name that stands for all masters",
        );
    }
    if !s.network.metadata_guard {
        warn(
            "network.metadataGuard: pods can read their machine's user-data".to_owned(),
            "its keys are in it; leave the guard on where user-data comes from a metadata service",
        );
    }
    report
}

fn is_one_master(s: &Settings, host: &Host) -> bool {
    s.of_role(Role::Master).any(|master| match host {
        Host::Address(address) => master.addresses.iter().any(|a| a.value == *address),
        Host::Name(name) => master.name.value.as_str() == name,
    })
}
