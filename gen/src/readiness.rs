//! Whether a running cluster is what its settings mean, phase by phase: each
//! phase of a deployment has an exit criterion, and this is it. (P55, P57)
//!
//! Decided from what the API server says alone; nothing is asked for here.

mod addons;
mod certificates;
mod masters;
mod nodes;
pub mod probe;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use units::types::InvalidValue;

use crate::cluster::Cluster;

/// A part of a deployment that can be waited for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No machine waits for a certificate.
    Certificates,
    /// Every API server answers with etcd behind it, and there are leaders.
    Masters,
    /// Every machine is a Node and Ready.
    Nodes,
    /// Every Node has its own range for pods, and a network.
    Network,
    /// knode is content with what it supervises, at the version of the settings.
    Daemons,
    /// What runs in kube-system is available.
    #[serde(rename = "add-ons")]
    Addons,
    /// A pod is scheduled and runs. Needs a probe.
    Pods,
    /// A Service is reached from a pod by every way. Needs a probe.
    Services,
}

impl Phase {
    /// In the order of a deployment.
    pub const ALL: [Self; 8] = [
        Self::Certificates,
        Self::Masters,
        Self::Nodes,
        Self::Network,
        Self::Daemons,
        Self::Addons,
        Self::Pods,
        Self::Services,
    ];

    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::Masters => "masters",
            Self::Nodes => "nodes",
            Self::Network => "network",
            Self::Daemons => "daemons",
            Self::Addons => "add-ons",
            Self::Pods => "pods",
            Self::Services => "services",
        }
    }

    /// Whether something has to be made in the cluster to know.
    pub fn probes(self) -> bool {
        matches!(self, Self::Pods | Self::Services)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let found = Self::ALL.into_iter().find(|phase| phase.as_str() == text);
        found.ok_or_else(|| {
            InvalidValue(format!(
                "unknown phase {text:?}: use {}",
                Self::ALL.map(Self::as_str).join(", ")
            ))
        })
    }
}

/// What the API server said.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `/readyz?verbose`.
    pub health: String,
    /// The Leases in kube-system.
    pub leases: Value,
    /// The Nodes.
    pub nodes: Value,
    /// The CertificateSigningRequests.
    pub requests: Value,
    /// The Deployments in kube-system.
    pub deployments: Value,
    /// The DaemonSets in kube-system.
    pub daemon_sets: Value,
    /// The server's time.
    pub now: OffsetDateTime,
}

/// One thing that has to be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Criterion {
    /// When in a deployment.
    pub phase: Phase,
    /// What it is about: a machine, a component.
    pub subject: String,
    /// Whether it is so.
    pub met: bool,
    /// What was found, in a few words.
    pub found: String,
}

impl Criterion {
    fn met(phase: Phase, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            phase,
            subject: subject.into(),
            met: true,
            found: found.into(),
        }
    }

    fn unmet(phase: Phase, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            met: false,
            ..Self::met(phase, subject, found)
        }
    }
}

/// Everything that has to be so in `phases` without a probe, in their order. `least` is how many
/// Nodes there have to be, those of pools among them; none: those that the
/// settings name.
pub fn judge(
    cluster: &Cluster,
    phases: &[Phase],
    least: Option<usize>,
    seen: &Seen,
) -> Vec<Criterion> {
    let all = certificates::judge(seen)
        .into_iter()
        .chain(masters::judge(cluster, seen))
        .chain(nodes::judge(cluster, least, seen))
        .chain(addons::judge(seen));
    let mut all: Vec<Criterion> = all.filter(|c| phases.contains(&c.phase)).collect();
    all.sort_by_key(|criterion| criterion.phase);
    all
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
