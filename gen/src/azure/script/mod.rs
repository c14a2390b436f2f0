//! The same as scripts of the az command: `up` and `down`.
//!
//! Every step looks first, so that `up` can be run again after any failure. The
//! az command puts documents into base64 itself, and takes them for text in
//! Latin-1: a document that is anything but ASCII goes by the template.

mod lines;
mod machines;
mod network;

pub use lines::quoted;
use lines::{Command, Lines, Word};

use super::{Deployment, TAG};

/// What both begin with.
const SHEBANG: &str = "#!/usr/bin/env bash\n";

/// Makes all of it. `plain` says whether all documents are such that the az
/// command reads them as they are.
pub fn up(d: &Deployment, plain: bool) -> String {
    let mut text = format!(
        "{SHEBANG}# Makes the cluster {} on Azure, or what of it is missing. Written by kgen render.\n",
        d.cluster
    );
    text.push_str(&variables(d));
    text.push_str(&format!("location={}\n", quoted(&d.location)));
    if !plain {
        text.push_str("# The az command does not read these documents as they are.\n");
    }
    text.push_str(&format!(
        "way={}\n",
        if plain { "commands" } else { "template" }
    ));
    text.push_str(include_str!("up-begin"));
    if plain {
        let mut lines = Lines::default();
        network::lines(d, &mut lines);
        machines::lines(d, &mut lines);
        text.push_str(&lines.into_text());
    }
    text
}

/// Takes all of it away.
pub fn down(d: &Deployment) -> String {
    let mut text = format!(
        "{SHEBANG}# Deletes the cluster {} on Azure, with its disks. Written by kgen render.\n",
        d.cluster
    );
    text.push_str(&variables(d));
    text.push_str(include_str!("down"));
    text
}

/// What the shell puts in.
fn variable(text: &str) -> Word {
    Word::Variable(text.to_owned())
}

/// In the region of the cluster, and with its tag.
fn here(command: Command) -> Command {
    command
        .with("--location", variable("$location"))
        .with("--tags", variable("$tag=$cluster"))
}

fn variables(d: &Deployment) -> String {
    format!(
        "cluster={}\ngroup={}\ntag={}\n",
        quoted(&d.cluster),
        quoted(&d.group),
        quoted(TAG)
    )
}
