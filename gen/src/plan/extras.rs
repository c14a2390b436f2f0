//! The operator's own files, units and packages among ours.

use std::collections::BTreeSet;

use ::units::{embedded, paths};
use anyhow::Result;

use super::files::public;
use super::{Content, Parts, PlannedFile, ntp};
use crate::report::Report;
use crate::system::{ExtraContent, ExtraUnit, Origin, Package};

/// Where units are on a machine.
const UNITS: &str = "/etc/systemd/system";
/// Files that knode writes on the machine, or the reader of the document.
const OTHERS: [&str; 5] = [
    "/etc/hostname",
    "/etc/hosts",
    paths::CONTAINERD_CONFIG,
    paths::CNI_CONFIG,
    paths::NODE_CONFIG,
];
/// Folders that are knode's alone.
const FOLDERS: [&str; 5] = [
    "/opt/knode/",
    "/opt/kubernetes/bin/",
    "/etc/knode/",
    "/etc/kubernetes/pki/",
    "/var/lib/knode/",
];

/// What is not a file.
#[derive(Debug, Default)]
pub struct Brought {
    /// The units that are enabled.
    pub enabled: Vec<String>,
    /// The packages that are installed.
    pub packages: Vec<Package>,
}

/// Adds the operator's files and units to `files`, which are ours.
pub fn add(files: &mut Vec<PlannedFile>, parts: Parts<'_>) -> Result<Brought> {
    let ours: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
    let mut report = Report::default();
    let mut brought = Brought::default();
    let mut added: Vec<PlannedFile> = Vec::new();
    // Started with the target, which waits for none of them.
    let mut wants: Vec<String> = Vec::new();
    if !parts.system.ntp_servers.is_empty() {
        wants.push(ntp::UNIT.to_owned());
    }
    let machine = parts.machine;
    for extras in parts.system.extras(machine.role, Some(&machine.name)) {
        for file in &extras.files {
            let planned = planned(&file.path, &file.content, &file.origin);
            added.push(PlannedFile {
                mode: file.mode,
                owner: file.owner.clone(),
                ..planned
            });
        }
        for unit in &extras.units {
            added.extend(unit_files(unit));
            if (unit.enable || unit.start) && ours.contains(&format!("{UNITS}/{}", unit.name)) {
                let message = format!("{} is kgen's own, and knode starts it", unit.name);
                let help = "change it by dropIns; leave enable and start out";
                report.add(unit.origin.finding(message).help(help));
            }
            once(&mut brought.enabled, unit.enable, &unit.name);
            once(&mut wants, unit.start, &unit.name);
        }
        for package in &extras.packages {
            if !brought.packages.iter().any(|p| p.name == package.name) {
                brought.packages.push(package.clone());
            }
        }
    }
    for file in &added {
        let is_ours = ours.contains(&file.path)
            || OTHERS.contains(&file.path.as_str())
            || FOLDERS.iter().any(|folder| file.path.starts_with(folder))
                && !file.path.starts_with(&format!("{}/", paths::OBJECTS_DIR));
        if let (true, Some(origin)) = (is_ours, &file.origin) {
            let message = format!("{} is written by kgen or knode", file.path);
            let help = "settings change what is in it: see docs/settings.md";
            report.add(origin.finding(message).help(help));
        }
    }
    nested(&ours, &added, &mut report);
    report.into_result()?;
    // Of several, the most specific one is meant; it comes last.
    let mut taken = BTreeSet::new();
    added.reverse();
    added.retain(|file| taken.insert(file.path.clone()));
    files.append(&mut added);
    if !wants.is_empty() {
        let target = embedded::target_name(machine.role);
        let path = format!("{UNITS}/{target}.d/10-kgen.conf");
        files.push(public(path, format!("[Unit]\nWants={}\n", wants.join(" "))));
    }
    Ok(brought)
}

/// What would be a file and a folder.
fn nested(ours: &BTreeSet<String>, added: &[PlannedFile], report: &mut Report) {
    let own = added.iter().map(|file| &file.path);
    let paths: BTreeSet<&String> = ours.iter().chain(own).collect();
    for file in added {
        let folders = file
            .path
            .match_indices('/')
            .skip(1)
            .map(|(end, _)| &file.path[..end]);
        for folder in folders {
            if let (true, Some(origin)) = (paths.contains(&folder.to_owned()), &file.origin) {
                let message = format!("{}: {folder} is a file, and no folder", file.path);
                report.add(origin.finding(message));
            }
        }
        let folder = format!("{}/", file.path);
        let inside = paths.iter().find(|path| path.starts_with(&folder));
        if let (Some(inside), Some(origin)) = (inside, &file.origin) {
            let message = format!("{} is the folder of {inside}", file.path);
            report.add(origin.finding(message));
        }
    }
}

fn once(names: &mut Vec<String>, wanted: bool, name: &str) {
    if wanted && !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

fn unit_files(unit: &ExtraUnit) -> Vec<PlannedFile> {
    let path = format!("{UNITS}/{}", unit.name);
    let own = unit.content.iter().map(|c| planned(&path, c, &unit.origin));
    let drop_ins = unit.drop_ins.iter().map(|(name, content)| {
        let path = format!("{path}.d/{name}");
        planned(&path, content, &unit.origin)
    });
    own.chain(drop_ins).collect()
}

fn planned(path: &str, content: &ExtraContent, origin: &Origin) -> PlannedFile {
    let content = if content.is_secret {
        Content::Secret(content.bytes.clone())
    } else {
        match content.bytes.expose_text() {
            Some(text) => Content::Public(text.to_owned().into()),
            None => Content::Binary(content.bytes.expose().to_vec()),
        }
    };
    PlannedFile {
        origin: Some(origin.clone()),
        ..PlannedFile::new(path, ::units::types::FileMode::PUBLIC, content)
    }
}
