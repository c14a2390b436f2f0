//! coreos-cloudinit, Flatcar's.
//!
//! Underscores only: it drops hyphenated keys without a word. It applies a
//! document at every boot: files first, then units, then a reload if a unit
//! came with content, which is why the target does; then it starts the target,
//! which returns at once.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use units::types::NodeName;

use super::{Document, head, write_files};
use crate::format::Format;
use crate::plan::{NodePlan, PlannedFile};

/// Where it puts units.
const UNITS: &str = "/etc/systemd/system";

#[derive(Serialize)]
struct CloudConfig<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'p str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ssh_authorized_keys: &'p [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<User<'p>>,
    // Before the files, which follow, as what was cut from the end is then the machine's
    // files and not its start (F30); it is applied after them all the same.
    coreos: Coreos<'p>,
}

/// An account; one that is there already gets the keys alone.
#[derive(Serialize)]
struct User<'p> {
    name: &'p str,
    ssh_authorized_keys: &'p [String],
}

#[derive(Serialize)]
struct Coreos<'p> {
    units: Vec<Unit<'p>>,
}

#[derive(Serialize)]
struct Unit<'p> {
    name: &'p str,
    enable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'p str>,
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
    // Enabled alone: a command would make the boot wait for it.
    let enabled = plan.enabled.iter().map(|name| Unit {
        name,
        enable: true,
        command: None,
        content: None,
    });
    let target = Unit {
        name: plan.target,
        enable: true,
        command: Some("start"),
        content: Some(target),
    };
    // Without a user they are those of core.
    let (keys, users) = match &plan.ssh.user {
        Some(name) => (
            &[][..],
            vec![User {
                name,
                ssh_authorized_keys: &plan.ssh.authorized_keys,
            }],
        ),
        None => (&plan.ssh.authorized_keys[..], Vec::new()),
    };
    let head = head(&CloudConfig {
        hostname: plan.hostname.as_ref().map(NodeName::as_str),
        ssh_authorized_keys: keys,
        users,
        coreos: Coreos {
            units: enabled.chain([target]).collect(),
        },
    })?;
    let files = plan.files.iter().filter(|file| !is_target(file));
    write_files::append(&head, files, Format::Coreos)
}
