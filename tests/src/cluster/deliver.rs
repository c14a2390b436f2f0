//! A machine's new document, brought onto it while it runs.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Cluster;
use crate::document::Document;
use crate::wait;

const NODE_CONFIG: &str = "/etc/knode/node.yaml";
const LIMIT: Duration = Duration::from_secs(180);

impl Cluster {
    /// Writes the files of a machine's new document, one after the other as its
    /// readers do.
    pub fn write_document(&mut self, name: &str) -> Result<()> {
        let document = Document::new(self.user_data(name, "cloud-init")?);
        let text = document.content(NODE_CONFIG)?;
        let config: Value = serde_yaml::from_str(&text)?;
        let manifest = config["manifest"].as_array().context("a manifest")?;
        let others = manifest.iter().filter_map(|entry| entry["path"].as_str());
        let paths: Vec<&str> = std::iter::once(NODE_CONFIG).chain(others).collect();
        let archive = document.archive(&paths)?;
        let node = self.node(name)?;
        node.exec_within(&["tar", "-x", "-C", "/"], &archive, LIMIT)?
            .ok()?;
        Ok(())
    }

    /// Waits until the node.yaml that is there is the one that was applied.
    pub fn wait_until_applied(&mut self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        let digest = node.sh(&format!("sha256sum {NODE_CONFIG} | cut -c 1-64"))?;
        wait::until("the new node.yaml applied", LIMIT, || {
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
