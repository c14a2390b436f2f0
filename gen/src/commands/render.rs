//! `kgen render`: everything for everybody.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{kubeconfig, terminal};
use crate::out::{self, Change, Job, SECRET_MODE};
use crate::report::Report;
use crate::workspace::{self, Asked, Input, Workspace};

/// The findings of so many machines are told.
const MACHINES: usize = 8;

/// What to write where.
#[derive(Debug)]
pub struct Render<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// In which form, if one was asked for.
    pub asked: Asked,
    /// The folder to write to.
    pub out: &'a Path,
}

/// Writes the user-data of every machine and the operator's kubeconfigs, once
/// all of them could be made.
pub fn run(args: &Render<'_>) -> Result<()> {
    let workspace = Workspace::open(
        args.input,
        &[("master".parse()?, units::types::Role::Master)],
    )?;
    let target = workspace.target(args.asked)?;
    let knode = workspace.knode()?;
    let mut pki = workspace.pki()?;
    let mut files: Vec<(PathBuf, zeroize::Zeroizing<Vec<u8>>)> = Vec::new();
    let mut report = Report::default();
    for machine in &workspace.cluster.machines {
        let material = pki.machine(&workspace.cluster, machine)?;
        let plan = workspace.plan(machine, &knode, &material)?;
        let path = args.out.join(machine.name.as_str()).join("user-data");
        match workspace::user_data(&plan, target) {
            Ok(bytes) => files.push((path, bytes)),
            // What is wrong with one machine is often wrong with all.
            Err(error) if report.findings().len() < MACHINES => {
                report.extend(error.downcast::<Report>()?);
            }
            Err(_) => {}
        }
    }
    report.into_result()?;
    for (name, super_admin) in [("admin.conf", false), ("super-admin.conf", true)] {
        let text = kubeconfig::of_operator(&workspace, &mut pki, super_admin)?;
        files.push((args.out.join(name), text.expose().to_vec().into()));
    }
    pki.commit()?;
    terminal::warn(&workspace.warnings);
    for note in pki.notes() {
        terminal::say(&format!("kgen: {note}"));
    }
    let jobs: Vec<Job<'_>> = files
        .iter()
        .map(|(path, bytes)| Job::Write {
            path: path.clone(),
            bytes,
            mode: SECRET_MODE,
        })
        .collect();
    let mut unchanged = 0;
    for (change, (path, _)) in out::apply(&jobs)?.into_iter().zip(&files) {
        let verb = match change {
            Change::Created => "wrote",
            Change::Updated => "changed",
            Change::Removed => "removed",
            Change::Unchanged => {
                unchanged += 1;
                continue;
            }
        };
        terminal::say(&format!("kgen: {verb} {}", path.display()));
    }
    if unchanged > 0 {
        terminal::say(&format!("kgen: {unchanged} files as they were"));
    }
    Ok(())
}
