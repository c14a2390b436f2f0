//! `kgen render`: everything for everybody.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use units::types::Role;

use super::azure::Azure;
use super::extras::Extras;
use super::jump;
use super::openstack::Openstack;
use super::progress::Progress;
use super::pxe::Pxe;
use super::terminal;
use crate::cluster::Machine;
use crate::out::{Change, SECRET_MODE, Stage};
use crate::pki::Pki;
use crate::report::Report;
use crate::workspace::{self, Asked, Input, Workspace};

/// The findings of so many machines are told.
const MACHINES: usize = 8;
/// So few machines are not worth another thread.
const FEW: usize = 16;
/// So many files are told by name.
const SHOWN: usize = 64;

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

/// Writes the user-data of every machine and the files beside it, once all of
/// them could be made.
pub fn run(args: &Render<'_>) -> Result<()> {
    let workspace = Workspace::open(args.input, &[("master".parse()?, Role::Master)])?;
    jump::check(&workspace, args.out)?;
    let target = workspace.target(args.asked)?;
    let knode = workspace.knode()?;
    let mut pki = workspace.pki()?;
    let documents_in_all = workspace.cluster.documents().count();
    let azure = Azure::wanted(&workspace, target);
    let openstack = Openstack::wanted(&workspace, target);
    let pxe = Pxe::wanted(&workspace, target, &knode);
    let (done, progress) = (AtomicUsize::new(0), Mutex::new(Progress::new()));
    let mut stage = documents(&workspace, &mut pki, |pki, machine, stage| {
        let material = pki.machine(&workspace.cluster, machine)?;
        let plan = workspace.plan(machine, &knode, &material)?;
        let path = args.out.join(machine.name.as_str()).join("user-data");
        let mut bytes = workspace::user_data(&plan, target)?;
        if let Some(azure) = &azure {
            azure.keep(machine.name.as_str(), &bytes)?;
        }
        if let Some(openstack) = &openstack {
            openstack.keep(machine.name.as_str(), &bytes)?;
        }
        if let Some(pxe) = &pxe {
            pxe.seed(machine.name.as_str(), &bytes, args.out, stage)?;
        }
        stage.write(path, std::mem::take(&mut *bytes), SECRET_MODE)?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        // Where another thread tells it, this one goes on.
        if let Ok(mut progress) = progress.try_lock() {
            progress.tell(|| format!("rendering, {done} of {documents_in_all} documents"));
        }
        Ok(())
    })?;
    drop(progress);
    Extras::make(
        &workspace,
        &mut pki,
        azure,
        openstack,
        pxe.as_ref(),
        args.out,
    )?
    .write(&mut stage)?;
    pki.commit()?;
    terminal::warn(&workspace.warnings);
    for note in pki.notes() {
        terminal::say(&format!("kgen: {note}"));
    }
    tell(&stage.commit()?);
    Ok(())
}

/// Does `work` for every machine, on all processors; what is wrong with single
/// machines is told together.
fn documents(
    workspace: &Workspace,
    pki: &mut Pki,
    work: impl Fn(&mut Pki, &Machine, &mut Stage) -> Result<()> + Sync,
) -> Result<Stage> {
    let machines: Vec<&Machine> = workspace.cluster.documents().collect();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let share = machines.len().div_ceil(processors).max(FEW);
    let shares = machines
        .chunks(share)
        .map(|share| Ok((share, pki.fork(&workspace.cluster)?)))
        .collect::<Result<Vec<_>>>()?;
    let done = thread::scope(|threads| {
        let threads: Vec<_> = shares
            .into_iter()
            .map(|(share, pki)| threads.spawn(|| of_share(share, pki, &work)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    let mut stage = Stage::default();
    let mut report = Report::default();
    for share in done {
        pki.join(share.pki)?;
        stage.append(share.stage)?;
        report.extend(share.report);
    }
    report.into_result()?;
    Ok(stage)
}

struct Share {
    pki: Pki,
    stage: Stage,
    report: Report,
}

fn of_share(
    machines: &[&Machine],
    mut pki: Pki,
    work: impl Fn(&mut Pki, &Machine, &mut Stage) -> Result<()>,
) -> Result<Share> {
    let mut stage = Stage::default();
    let mut report = Report::default();
    for machine in machines {
        match work(&mut pki, machine, &mut stage) {
            Ok(()) => {}
            // What is wrong with one machine is often wrong with all.
            Err(error) => report.extend(error.downcast::<Report>()?),
        }
        if report.findings().len() >= MACHINES {
            break;
        }
    }
    Ok(Share { pki, stage, report })
}

/// Says what became of the files; of many, how many became what.
fn tell(changes: &[(PathBuf, Change)]) {
    let of = |wanted: Change| changes.iter().filter(move |(_, change)| *change == wanted);
    for (change, verb) in [
        (Change::Created, "wrote"),
        (Change::Updated, "changed"),
        (Change::Removed, "removed"),
    ] {
        let count = of(change).count();
        if count > SHOWN {
            terminal::say(&format!("kgen: {verb} {count} files"));
            continue;
        }
        for (path, _) in of(change) {
            terminal::say(&format!("kgen: {verb} {}", path.display()));
        }
    }
    let unchanged = of(Change::Unchanged).count();
    if unchanged > 0 {
        terminal::say(&format!("kgen: {unchanged} files as they were"));
    }
}
