//! What the machines of a cluster download, and the lock file that pins it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Cluster;
use crate::artifact_server::Served;
use crate::artifacts::Artifact;
use crate::{artifacts, cache, kube, rootfs};

const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

impl Cluster {
    /// Serves one more artifact, and pins it.
    pub fn add_artifact(&self, name: &str, artifact: &Artifact) -> Result<()> {
        let file = artifact.path.file_name().context("a file without a name")?;
        let served = self
            .server
            .add(&format!("/{}", file.to_string_lossy()), &artifact.path)?;
        let path = self.path("kgen.lock");
        let text = fs::read_to_string(&path).context("reading the lock")?;
        let mut lock: Value = serde_json::from_str(&text)?;
        let entries = lock["artifacts"].as_array_mut().context("no artifacts")?;
        entries.push(entry(name, &artifact.version, &served));
        fs::write(&path, format!("{lock:#}\n")).context("writing the lock")
    }

    /// Serves the artifacts and pins them.
    pub(super) fn lock(&self, version: &str) -> Result<String> {
        let mut entries = Vec::new();
        let mut add = |name: &str, version: &str, served: Served| {
            entries.push(entry(name, version, &served));
        };
        let knode = self.server.add("/knode", &self.programs.knode)?;
        add("knode", env!("CARGO_PKG_VERSION"), knode);
        let etcd = artifacts::etcd()?;
        add(
            "etcd",
            &etcd.version,
            self.server.add("/etcd.tar.gz", &etcd.path)?,
        );
        let cni = cni_plugins()?;
        add(
            "cni-plugins",
            "1.9.1",
            self.server.add("/cni-plugins.tgz", &cni)?,
        );
        for name in kube::PROGRAMS {
            let path = format!("/{version}/{name}");
            let served = match &self.kube {
                Some(kube) => self.server.add(&path, &kube.program(name))?,
                // Nothing is there: the machines say so and go as far as they can.
                None => Served {
                    url: self.server.url(&path),
                    sha256: "0".repeat(64),
                    size: 1,
                },
            };
            add(name, version, served);
        }
        let kubectl = artifacts::kubectl()?;
        add("kubectl", version, self.server.add("/kubectl", &kubectl)?);
        let lock = json!({"version": 1, "artifacts": entries});
        // JSON is YAML.
        Ok(format!("{lock:#}\n"))
    }
}

/// What the lock says of an artifact.
fn entry(name: &str, version: &str, served: &Served) -> Value {
    json!({
        "name": name,
        "version": version,
        "arch": artifacts::architecture(),
        "urls": [served.url],
        "sha256": served.sha256,
        "size": served.size,
    })
}

/// Debian's CNI plugins, packed as upstream packs them.
fn cni_plugins() -> Result<PathBuf> {
    let root = rootfs::unpacked(&["containernetworking-plugins"])?;
    cache::once("cni-plugins.tgz", |target| {
        let programs = CNI_PLUGINS.map(|name| root.join("usr/lib/cni").join(name));
        artifacts::pack(".", &programs, target)
    })
}
