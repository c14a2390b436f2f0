//! `kgen sizes`: which platform takes these documents.

use std::fmt::Write as _;

use anyhow::Result;
use units::types::Role;

use super::terminal;
use crate::budget::{Size, Target, grouped};
use crate::platform::Platform;
use crate::workspace::{self, Asked, Input, Workspace};

/// The largest document of a role.
struct Largest {
    role: Role,
    name: String,
    size: Size,
}

/// Prints a table of all platforms. Nothing is written, not even keys.
pub fn run(input: Input<'_>, asked: Asked) -> Result<()> {
    let workspace = Workspace::open(input, &[("master".parse()?, Role::Master)])?;
    let target = workspace.target(asked)?;
    let largest = largest(&workspace, target)?;
    terminal::print(table(&largest, target)?.as_bytes())
}

fn largest(workspace: &Workspace, target: Target) -> Result<Vec<Largest>> {
    let mut all: Vec<Largest> = Vec::new();
    let mut pki = workspace.pki()?;
    let knode = workspace.knode()?;
    for machine in workspace.cluster.documents() {
        let material = pki.machine(&workspace.cluster, machine)?;
        let plan = workspace.plan(machine, &knode, &material)?;
        let size = Size::of(&workspace::document(&plan, target.format)?)?;
        let (role, name) = (machine.role, machine.name.to_string());
        match all.iter_mut().find(|l| l.role == role) {
            Some(largest) if largest.size.plain >= size.plain => {}
            Some(largest) => (largest.name, largest.size) = (name, size),
            None => all.push(Largest { role, name, size }),
        }
    }
    Ok(all)
}

fn table(all: &[Largest], target: Target) -> Result<String> {
    let mut text = format!("The largest document of each role in {}:\n", target.format);
    for Largest { role, name, size } in all {
        let (plain, gzipped) = (grouped(size.plain), grouped(size.gzipped));
        writeln!(
            text,
            "  {:<8}{plain:>9} bytes,{gzipped:>8} in gzip  ({name})",
            role.as_str()
        )?;
    }
    write!(text, "\n{:<14}{:>9}  {:<13}", "Platform", "Limit", "of")?;
    for Largest { role, .. } in all {
        write!(text, "{:<18}", role.as_str())?;
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for platform in Platform::ALL {
        let (bytes, basis) = match platform.limit() {
            Some(limit) => (grouped(limit.bytes), limit.basis.as_str()),
            None => ("none".to_owned(), ""),
        };
        write!(text, "{:<14}{bytes:>9}  {basis:<13}", platform.as_str())?;
        for largest in all {
            let cell = cell(largest.size, Target { platform, ..target });
            write!(text, "{cell:<18}")?;
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    Ok(text)
}

fn cell(size: Size, target: Target) -> String {
    // What was asked for may be what this platform does not take.
    let target = match target.check() {
        Ok(target) => target,
        Err(_) => return "no gzip".to_owned(),
    };
    let fitting = size.fitting(target);
    let Some((counted, limit)) = size.counted(fitting.unwrap_or(target)) else {
        return "fits".to_owned();
    };
    let share = (counted * 100).div_ceil(limit);
    match fitting {
        Some(fitting) if fitting.gzip && !target.gzip => format!("with --gzip {share}%"),
        Some(_) => format!("fits {share}%"),
        None => format!("too large {share}%"),
    }
}
