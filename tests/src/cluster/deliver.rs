//! A new document for a machine that runs, as an operator delivers it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Cluster;
use crate::document::Document;
use crate::wait;

const NODE_CONFIG: &str = "/etc/knode/node.yaml";
/// How long writing the files may take.
const WRITE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Writes the files of a machine's new document, and waits until knode says
    /// that all of it is brought about.
    pub fn deliver(&mut self, name: &str, limit: Duration) -> Result<()> {
        self.write_document(name)?;
        self.wait_until_applied(name, limit)
    }

    /// Writes the files of a machine's new document, one after the other as its
    /// readers do.
    pub fn write_document(&mut self, name: &str) -> Result<()> {
        let document = Document::new(self.user_data(name, "cloud-init")?);
        let config: Value = serde_yaml::from_str(&document.content(NODE_CONFIG)?)?;
        let manifest = config["manifest"].as_array().context("a manifest")?;
        let others = manifest.iter().filter_map(|entry| entry["path"].as_str());
        let paths: Vec<&str> = std::iter::once(NODE_CONFIG).chain(others).collect();
        let archive = document.archive(&paths)?;
        let node = self.node(name)?;
        node.exec_within(&["tar", "-x", "-C", "/"], &archive, WRITE)?
            .ok()?;
        Ok(())
    }

    /// Waits until the node.yaml that is there is the one that was applied.
    pub fn wait_until_applied(&mut self, name: &str, limit: Duration) -> Result<()> {
        let node = self.node(name)?;
        let digest = node.sh(&format!("sha256sum {NODE_CONFIG} | cut -c 1-64"))?;
        wait::until("the new node.yaml applied", limit, || {
            let status = self.status(name)?.unwrap_or_default();
            let steps = status["steps"].as_array().cloned().unwrap_or_default();
            let done = steps.iter().all(|step| step["state"] == "done");
            Ok((status["config"] == digest.trim() && done).then_some(()))
        })
        .with_context(|| {
            let status = self.status(name).ok().flatten().unwrap_or_default();
            format!("{status:#}")
        })
    }
}
