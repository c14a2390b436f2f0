//! `kgen completions` and `kgen man`: what the command line says of itself.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::terminal;
use crate::out::{Change, PUBLIC_MODE, Stage};

/// The program's name.
const NAME: &str = "kgen";

/// Prints a shell's completions.
pub fn completions(mut command: Command, shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    terminal::print(&script)
}

/// Writes a page for the program and for each of its commands.
pub fn pages(mut command: Command, folder: &Path) -> Result<()> {
    command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, NAME.to_owned(), &mut pages)?;
    let mut stage = Stage::default();
    for (name, page) in pages {
        stage.write(folder.join(format!("{name}.1")), page, PUBLIC_MODE)?;
    }
    let changes = stage.commit()?;
    let written = changes
        .iter()
        .filter(|(_, change)| *change != Change::Unchanged)
        .count();
    let folder = folder.display();
    terminal::say(&format!(
        "kgen: wrote {written} pages to {folder}; man {folder}/kgen.1"
    ));
    Ok(())
}

/// The page of a command, and those of the commands below it.
fn collect(command: &Command, name: String, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        collect(below, format!("{name}-{}", below.get_name()), pages)?;
    }
    // A page's title is a command's name, which lives as long as the program.
    let title: &'static str = name.clone().leak();
    let mut page = Vec::new();
    Man::new(command.clone().name(title))
        .manual("kgen")
        .render(&mut page)
        .with_context(|| format!("writing the page of {name}"))?;
    pages.push((name, page));
    Ok(())
}
