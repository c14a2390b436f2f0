//! `kgen init`: a settings file to begin with.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::terminal;
use crate::report::{Finding, Report};
use crate::workspace::SETTINGS;

/// The file, with what most clusters need and the rest in comments.
pub const TEMPLATE: &str = include_str!("cluster.yaml");

/// Writes the settings file where there is none.
pub fn run(file: Option<&Path>) -> Result<()> {
    let path = file.unwrap_or(Path::new(SETTINGS));
    let mut new = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(new) => new,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let finding = Finding::new(format!("{}: is there already", path.display()))
                .help("remove it first, or name another file with -f");
            return Err(Report::from(finding).into());
        }
        Err(error) => return Err(error).with_context(|| format!("making {}", path.display())),
    };
    new.write_all(TEMPLATE.as_bytes())
        .and_then(|()| new.sync_all())
        .with_context(|| format!("writing {}", path.display()))?;
    terminal::say(&format!(
        "kgen: wrote {0}; name your machines in it, then: kgen --role master > user-data",
        path.display()
    ));
    Ok(())
}
