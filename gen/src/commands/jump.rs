//! A cluster goes by way of each minor version, and not back: what the documents
//! in a folder say is compared with what they would say. (P61)
//!
//! Source: Kubernetes documentation, "Version Skew Policy".

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use units::paths;
use units::types::Role;

use super::diff::{landing, read};
use crate::cluster::KubernetesVersion;
use crate::report::{Finding, Report};
use crate::workspace::Workspace;

/// Refuses a version that the cluster of the documents in `out` may not go to
/// at once. One master's document tells; one that cannot be read tells nothing.
pub fn check(workspace: &Workspace, out: &Path) -> Result<()> {
    let wanted = workspace.cluster.version;
    for master in workspace.cluster.of_role(Role::Master) {
        let path = out.join(master.name.as_str()).join("user-data");
        let Ok(Some(bytes)) = read(&path) else {
            continue;
        };
        let Some(version) = version(&path, &bytes) else {
            continue;
        };
        if let Some(why) = refusal(version, wanted) {
            let told = format!("kubernetesVersion: {wanted}: {why}");
            let help = format!(
                "{} has the documents of {version}; a new cluster's go into another folder",
                out.display()
            );
            return Err(Report::from(Finding::new(told).help(help)).into());
        }
        return Ok(());
    }
    Ok(())
}

/// The version in a document's node.yaml.
fn version(path: &Path, bytes: &[u8]) -> Option<KubernetesVersion> {
    let (landing, _) = landing(path, bytes).ok()?;
    let (_, text) = landing.files.get(paths::NODE_CONFIG)?;
    let config: Value = serde_yaml::from_str(std::str::from_utf8(text).ok()?).ok()?;
    config["cluster"]["kubernetesVersion"]
        .as_str()?
        .parse()
        .ok()
}

/// Why a running cluster may not go from one to the other.
fn refusal(from: KubernetesVersion, to: KubernetesVersion) -> Option<String> {
    if to.minor > from.minor + 1 {
        let next = from.minor + 1;
        return Some(format!(
            "from {from} a cluster goes by way of each minor version: to 1.{next} first"
        ));
    }
    (to.minor < from.minor).then(|| {
        format!("no cluster goes back from {from}: what is in etcd may be unknown to an older one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_goes_by_way_of_each_minor_version() {
        let refused = |from: &str, to: &str| {
            refusal(from.parse().unwrap(), to.parse().unwrap()).unwrap_or_default()
        };
        assert_eq!(refused("1.35.1", "1.36.2"), "");
        assert_eq!(refused("1.36.2", "1.36.1"), "");
        assert!(refused("1.34.9", "1.36.0").contains("to 1.35 first"));
        assert!(refused("1.36.0", "1.35.9").contains("goes back"));
    }
}
