//! `kgen diff`: what `kgen render` would change in a folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use units::types::Role;

use super::azure::Azure;
use super::extras::Extras;
use super::jump;
use super::openstack::Openstack;
use super::pxe::Pxe;
use super::terminal;
use crate::difference;
use crate::landing::Landing;
use crate::lint;
use crate::plan::{Content, NodePlan};
use crate::report::Source;
use crate::workspace::{self, Asked, Input, Workspace};

/// Where to look, and at what.
#[derive(Debug)]
pub struct Diff<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// In which form, if one was asked for.
    pub asked: Asked,
    /// What `kgen render` wrote.
    pub out: &'a Path,
}

/// Prints what would change in the user-data of all machines and the files
/// beside it; whether anything would. Nothing is written.
pub fn run(args: &Diff<'_>) -> Result<bool> {
    let workspace = Workspace::open(args.input, &[("master".parse()?, Role::Master)])?;
    jump::check(&workspace, args.out)?;
    let target = workspace.target(args.asked)?;
    let knode = workspace.knode()?;
    let mut pki = workspace.pki()?;
    let azure = Azure::wanted(&workspace, target);
    let openstack = Openstack::wanted(&workspace, target);
    let pxe = Pxe::wanted(&workspace, target, &knode);
    let mut text = String::new();
    for machine in workspace.cluster.documents() {
        let name = machine.name.as_str();
        let material = pki.machine(&workspace.cluster, machine)?;
        let plan = workspace.plan(machine, &knode, &material)?;
        let bytes = workspace::user_data(&plan, target)?;
        if let Some(azure) = &azure {
            azure.keep(name, &bytes)?;
        }
        if let Some(openstack) = &openstack {
            openstack.keep(name, &bytes)?;
        }
        let path = args.out.join(name).join("user-data");
        let Some(old) = read(&path)? else {
            text.push_str(&format!("{name}: new, {} files\n", plan.files.len()));
            continue;
        };
        if old == *bytes {
            continue;
        }
        let (old, old_form) = landing(&path, &old)?;
        let (new, new_form) = landing(Path::new("the new document"), &bytes)?;
        if old_form != new_form {
            text.push_str(&format!("{name}: {old_form} → {new_form}\n"));
        }
        for line in difference::between(&old, &new, &secrets(&plan)).lines() {
            // A file's name begins what is about it; its lines are indented.
            let own = !line.starts_with([' ', '-', '+']);
            text.push_str(&if own {
                format!("{name}: {line}\n")
            } else {
                format!("  {line}\n")
            });
        }
    }
    text.push_str(&extras(
        &Extras::make(
            &workspace,
            &mut pki,
            azure,
            openstack,
            pxe.as_ref(),
            args.out,
        )?,
        args.out,
    )?);
    for name in gone(args.out, &workspace)? {
        text.push_str(&format!(
            "{name}: is in {}, and no longer in the settings\n",
            args.out.display()
        ));
    }
    terminal::print(text.as_bytes())?;
    Ok(!text.is_empty())
}

/// What becomes of the files beside the documents; keys are in some of them.
fn extras(extras: &Extras, out: &Path) -> Result<String> {
    let mut text = String::new();
    let mut tell = |path: &Path, what: &str| {
        let name = path.strip_prefix(out).unwrap_or(path).display();
        text.push_str(&format!("{name}: {what}\n"));
    };
    for (path, bytes) in extras.files.iter().chain(&extras.scripts) {
        match read(path)? {
            None => tell(path, "new"),
            Some(old) if old != bytes.expose() => tell(path, "changed"),
            Some(_) => {}
        }
    }
    for path in &extras.gone {
        tell(path, "goes");
    }
    Ok(text)
}

/// The files whose contents are not shown.
fn secrets(plan: &NodePlan) -> BTreeSet<String> {
    let secret = plan
        .files
        .iter()
        .filter(|f| matches!(f.content, Content::Secret(_)));
    secret.map(|file| file.path.clone()).collect()
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// What a document brings, and in which form it is.
pub(super) fn landing(path: &Path, bytes: &[u8]) -> Result<(Landing, String)> {
    let shown = path.display();
    let gzip = lint::is_gzip(bytes);
    let plain = if gzip {
        lint::gunzip(bytes)
    } else {
        Some(bytes.to_vec())
    };
    let text = plain.and_then(|plain| String::from_utf8(plain).ok());
    let text = text.ok_or_else(|| anyhow!("{shown}: is no document"))?;
    let source = Source::new(shown.to_string(), text);
    // What is told of it has none of its text.
    let read = Landing::read(&source);
    let (format, landing) =
        read.map_err(|_| anyhow!("{shown}: is no document: kgen validate {shown}"))?;
    Ok((
        landing,
        format!("{format}{}", if gzip { " in gzip" } else { "" }),
    ))
}

/// The machines that were rendered once and are no longer there.
fn gone(out: &Path, workspace: &Workspace) -> Result<Vec<String>> {
    let entries = match fs::read_dir(out) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", out.display())),
    };
    let mut gone = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", out.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut documents = workspace.cluster.documents();
        let known = documents.any(|machine| machine.name.as_str() == name);
        if entry.path().join("user-data").exists() && !known {
            gone.push(name);
        }
    }
    gone.sort();
    Ok(gone)
}
