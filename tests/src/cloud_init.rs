//! What cloud-init says of itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The output of `cloud-init status --format json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// `not started`, `running`, `done`, `error` or `disabled`.
    pub status: String,
    /// The status with what makes it worse: `degraded done`, `error - running`.
    #[serde(default)]
    pub extended_status: String,
    /// Where the user-data came from.
    #[serde(default)]
    pub detail: String,
    /// What made it fail.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Warnings, by their level: each makes cloud-init `degraded`.
    #[serde(default)]
    pub recoverable_errors: BTreeMap<String, Vec<String>>,
}

impl Status {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("reading cloud-init's status: {text}"))
    }

    /// Whether nothing more will happen.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "done" | "error" | "disabled")
    }

    /// Whether it is done and found nothing to complain about.
    pub fn is_clean(&self) -> bool {
        self.status == "done" && self.errors.is_empty() && self.recoverable_errors.is_empty()
    }
}
