//! `kgen validate`: settings, or any rendered document.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use units::types::Role;

use super::terminal;
use crate::budget::{Size, Target, grouped};
use crate::format::Format;
use crate::lint;
use crate::platform::Platform;
use crate::report::{Finding, Report, Source};
use crate::workspace::{self, Asked, Input, Workspace};

/// What to look at, and how strictly.
#[derive(Debug)]
pub struct Validate<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// Rendered documents; none: the settings.
    pub documents: &'a [PathBuf],
    /// In which form, if one was asked for.
    pub asked: Asked,
    /// Whether warnings are errors.
    pub strict: bool,
}

/// Tells everything that is wrong. Nothing is written.
pub fn run(args: &Validate<'_>) -> Result<()> {
    let mut report = Report::default();
    let told = if args.documents.is_empty() {
        settings(args, &mut report)?
    } else {
        let mut told = String::new();
        for path in args.documents {
            told.push_str(&document(path, args.asked, &mut report)?);
        }
        told
    };
    let report = report.or_warnings()?;
    if args.strict && !report.is_empty() {
        return Err(report.strict().into());
    }
    terminal::warn(&report);
    terminal::print(told.as_bytes())
}

/// The settings, the lock, the keys, and the documents that would be made.
fn settings(args: &Validate<'_>, report: &mut Report) -> Result<String> {
    let workspace = Workspace::open(args.input, &[("master".parse()?, Role::Master)])?;
    report.extend(workspace.warnings.clone());
    let target = workspace.target(args.asked)?;
    let knode = workspace.knode()?;
    let mut pki = workspace.pki()?;
    for machine in workspace.cluster.documents() {
        let material = pki.machine(&workspace.cluster, machine)?;
        let plan = workspace.plan(machine, &knode, &material)?;
        match workspace::user_data(&plan, target) {
            Ok(_) => {}
            Err(error) => report.extend(error.downcast::<Report>()?),
        }
        let name = format!("user-data of {}", machine.name);
        let document = workspace::document(&plan, target.format)?;
        let source = Source::new(name, document.as_str());
        report.extend(lint::document(&source, target.format));
    }
    let what = match (workspace.builtin, args.input.file) {
        (true, _) => "the built-in cluster".to_owned(),
        (false, Some(file)) => file.display().to_string(),
        (false, None) => workspace::SETTINGS.to_owned(),
    };
    let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut counted = many(workspace.cluster.machines.len(), "machine");
    match workspace
        .cluster
        .pools
        .iter()
        .filter(|p| p.is_pool())
        .count()
    {
        0 => {}
        pools => counted.push_str(&format!(", {}", many(pools, "pool"))),
    }
    Ok(format!("{what}: valid, {counted}\n"))
}

/// A document of any language, compressed or not.
fn document(path: &Path, asked: Asked, report: &mut Report) -> Result<String> {
    let shown = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("reading {shown}"))?;
    let gzip = lint::is_gzip(&bytes);
    let plain = if gzip {
        lint::gunzip(&bytes)
    } else {
        Some(bytes.clone())
    };
    let Some(plain) = plain else {
        report.add(Finding::new(format!("{shown}: is not in gzip")));
        return Ok(String::new());
    };
    let Ok(text) = String::from_utf8(plain) else {
        report.add(Finding::new(format!("{shown}: is not text in UTF-8")));
        return Ok(String::new());
    };
    let format = asked.format.unwrap_or_else(|| lint::language(&text));
    let target = Target {
        format,
        platform: asked.platform.unwrap_or_default(),
        gzip,
    };
    if let Err(wrong) = target.check() {
        report.extend(wrong);
    }
    too_large(&shown, &text, &bytes, target, report)?;
    report.extend(lint::document(&Source::new(shown.as_str(), text), format));
    Ok(format!("{shown}: valid for {format}{}\n", fitting(target)))
}

fn fitting(target: Target) -> String {
    match target.platform {
        Platform::Generic => String::new(),
        platform => format!(" on {platform}"),
    }
}

fn too_large(
    shown: &str,
    text: &str,
    bytes: &[u8],
    target: Target,
    report: &mut Report,
) -> Result<()> {
    let mut size = Size::of(text)?;
    if target.gzip {
        // As it was compressed, not as we would.
        size.gzipped = bytes.len();
    }
    if size.fits(target) {
        return Ok(());
    }
    let (counted, limit) = size.counted(target).unwrap_or_default();
    let (counted, limit) = (grouped(counted), grouped(limit));
    let platform = target.platform;
    let mut finding = Finding::new(format!(
        "{shown}: counts {counted} bytes on {platform}, which takes {limit}"
    ));
    if size.fitting(target).is_some() && target.format != Format::Ignition {
        finding = finding.help("compressed with gzip it fits");
    }
    report.add(finding);
    Ok(())
}
