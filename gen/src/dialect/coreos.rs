//! coreos-cloudinit, Flatcar's.
//!
//! Underscores only: it drops hyphenated keys without a word. It applies a
//! document at every boot: files first, then units, then a reload if a unit
//! came with content, which is why the target does; then it starts the target,
//! which returns at once.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::encode::encode;
use super::{Document, yaml};
use crate::plan::{NodePlan, PlannedFile};

/// Where it puts units.
const UNITS: &str = "/etc/systemd/system";

#[derive(Serialize)]
struct CloudConfig<'p> {
    hostname: &'p str,
    // Before the files, as what was cut from the end is then the machine's
    // files and not its start (F30); it is applied after them all the same.
    coreos: Coreos<'p>,
    write_files: Vec<File<'p>>,
}

/// A file, as the document names it.
#[derive(Serialize)]
pub struct File<'p> {
    path: &'p str,
    permissions: String,
    owner: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    content: String,
}

#[derive(Serialize)]
struct Coreos<'p> {
    units: Vec<Unit<'p>>,
}

#[derive(Serialize)]
struct Unit<'p> {
    name: &'p str,
    enable: bool,
    command: &'static str,
    content: &'p str,
}

/// Writes the document.
pub fn render(plan: &NodePlan) -> Result<Document> {
    let target_path = Path::new(UNITS).join(plan.target);
    let is_target = |file: &&PlannedFile| Path::new(&file.path) == target_path;
    let target = plan
        .files
        .iter()
        .find(is_target)
        .and_then(|file| std::str::from_utf8(file.content.bytes()).ok())
        .with_context(|| format!("{} is not among the files", plan.target))?;
    let write_files = plan
        .files
        .iter()
        .filter(|file| !is_target(file))
        .map(file)
        .collect::<Result<_>>()?;
    yaml(&CloudConfig {
        hostname: plan.hostname.as_str(),
        coreos: Coreos {
            units: vec![Unit {
                name: plan.target,
                enable: true,
                command: "start",
                content: target,
            }],
        },
        write_files,
    })
}

/// A file in this language.
pub fn file(file: &PlannedFile) -> Result<File<'_>> {
    let encoded = encode(file.content.bytes(), is_replaced)?;
    Ok(File {
        path: &file.path,
        permissions: file.mode.to_string(),
        owner: "root:root",
        encoding: encoded.encoding,
        content: encoded.text,
    })
}

/// Whether it would put the machine's addresses into a text: it does so
/// anywhere in the document, even within a longer word.
pub fn is_replaced(text: &str) -> bool {
    ["$private_ipv", "$public_ipv"]
        .iter()
        .any(|token| text.contains(token))
}
