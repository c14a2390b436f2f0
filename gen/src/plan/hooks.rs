//! The operator's scripts, and the units that run them: no boot command waits
//! for one, knode waits for those before it, and they are tried until they
//! succeed.

use ::units::types::FileMode;

use super::files::public;
use super::{Content, Parts, PlannedFile};
use crate::system::{ExtraContent, Extras, Hook};

/// Where scripts are, a folder for each moment.
const FOLDER: &str = "/etc/knode/hooks";
/// For root alone, who runs it.
const MODE: &str = "0700";
/// The unit of the scripts before knode.
const BEFORE: &str = "knode-before.service";
/// The unit of the scripts after the Node is Ready.
const AFTER: &str = "knode-after-ready.service";

/// The scripts and their units.
pub fn files(parts: Parts<'_>) -> Vec<PlannedFile> {
    let before = scripts(parts, "before-knode", |extras| {
        extras.hooks.before_knode.as_ref()
    });
    let after = scripts(parts, "after-ready", |extras| {
        extras.hooks.after_ready.as_ref()
    });
    let mut wants = Vec::new();
    let mut files = Vec::new();
    if !before.is_empty() {
        let order = "After=network.target\nBefore=knode.service\n";
        files.push(unit(BEFORE, "Scripts before knode", order, &before));
        wants.push(BEFORE);
    }
    if !after.is_empty() {
        // knode has started when the Node is Ready; an attempt of knode's that
        // failed is not enough.
        let order = "After=knode.service\nRequisite=knode.service\n";
        files.push(unit(
            AFTER,
            "Scripts for a Node that is Ready",
            order,
            &after,
        ));
        wants.push(AFTER);
    }
    if !wants.is_empty() {
        let path = "/etc/systemd/system/knode.service.d/20-hooks.conf";
        files.push(public(path, format!("[Unit]\nWants={}\n", wants.join(" "))));
    }
    files.extend(before);
    files.extend(after);
    files
}

/// The scripts of a moment, from the least to the most specific.
fn scripts<'s>(
    parts: Parts<'s>,
    moment: &str,
    hook: fn(&'s Extras) -> Option<&'s Hook>,
) -> Vec<PlannedFile> {
    let machine = parts.machine;
    let extras = parts.system.extras(machine.role, Some(&machine.name));
    let hooks: Vec<&Hook> = extras.filter_map(hook).collect();
    hooks
        .into_iter()
        .zip(1..)
        .filter_map(|(hook, number)| {
            let ExtraContent { bytes, .. } = hook.content.clone();
            let mode: FileMode = MODE.parse().ok()?;
            let path = format!("{FOLDER}/{moment}-{number}");
            Some(PlannedFile {
                origin: Some(hook.origin.clone()),
                ..PlannedFile::new(path, mode, Content::Secret(bytes))
            })
        })
        .collect()
}

fn unit(name: &str, what: &str, order: &str, scripts: &[PlannedFile]) -> PlannedFile {
    let lines: String = scripts
        .iter()
        .map(|script| {
            format!(
                "ExecStart=/bin/sh -c \"until {}; do sleep 10; done\"\n",
                script.path
            )
        })
        .collect();
    public(
        format!("/etc/systemd/system/{name}"),
        format!(
            "[Unit]\nDescription={what}\n{order}\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
             {lines}TimeoutStartSec=infinity\n"
        ),
    )
}
