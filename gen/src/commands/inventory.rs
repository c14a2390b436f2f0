//! `kgen inventory`: the machines by role.

use anyhow::Result;
use units::types::Role;

use super::terminal;
use crate::inventory::{self, Form};
use crate::workspace::{Input, Workspace};

/// Prints the inventory. Nothing is written, and no key is looked at.
pub fn run(input: Input<'_>, form: Form) -> Result<()> {
    let workspace = Workspace::open(input, &[("master".parse()?, Role::Master)])?;
    terminal::warn(&workspace.warnings);
    terminal::print(inventory::write(&workspace.cluster, form)?.as_bytes())
}
