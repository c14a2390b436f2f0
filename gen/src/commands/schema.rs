//! `kgen schema`: what editors know of cluster.yaml.

use anyhow::Result;

use super::terminal;
use crate::settings;

/// Prints the JSON schema.
pub fn run() -> Result<()> {
    terminal::print(settings::SCHEMA.as_bytes())
}
