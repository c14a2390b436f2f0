//! The stages of replacing something that signs, and which of them the files
//! in `pki/` say is done.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;
use units::types::InvalidValue;

use super::profile::Authority;

/// What a file's name has behind that of the one that signs now: it signs
/// next.
pub const NEXT: &str = "-next";
/// It has signed before.
pub const PREVIOUS: &str = "-previous";
/// A step of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A new one is made, and trusted.
    Prepare,
    /// The new one signs.
    Switch,
    /// The old one is trusted no longer.
    Finish,
}

impl Stage {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Switch => "switch",
            Self::Finish => "finish",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stage {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        [Self::Prepare, Self::Switch, Self::Finish]
            .into_iter()
            .find(|stage| stage.as_str() == text)
            .ok_or_else(|| {
                InvalidValue(format!(
                    "unknown stage {text:?}: use prepare, switch or finish"
                ))
            })
    }
}

/// Something that is being replaced.
#[derive(Debug, Clone, Serialize)]
pub struct Rotation {
    /// `cluster`, `etcd`, `front-proxy`, or `sa` for service accounts' key.
    pub name: &'static str,
    /// The stage that was done last: `prepare` or `switch`.
    pub done: &'static str,
    /// The command of the next stage.
    pub next: String,
}

/// The files of what can be replaced: their names without ending, the ending
/// of what is public, and the name in commands.
fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let authorities = Authority::ALL.into_iter();
    authorities
        .map(|a| (a.stem(), "crt", a.name()))
        .chain([("sa", "pub", "sa")])
}

/// What is being replaced in `pki/` beside the settings.
pub fn rotations(workspace: &Path) -> Vec<Rotation> {
    let pki = workspace.join("pki");
    let rotations = all().filter_map(|(stem, ending, name)| {
        let there = |which| pki.join(format!("{stem}{which}.{ending}")).exists();
        let (done, next) = match (there(NEXT), there(PREVIOUS)) {
            (true, _) => (Stage::Prepare, Stage::Switch),
            (false, true) => (Stage::Switch, Stage::Finish),
            (false, false) => return None,
        };
        Some(Rotation {
            name,
            done: done.as_str(),
            next: command(name, next),
        })
    });
    rotations.collect()
}

/// The command of a stage.
pub fn command(name: &str, stage: Stage) -> String {
    match name {
        "sa" => format!("kgen certs rotate-sa --stage {stage}"),
        name => format!("kgen certs rotate-ca {name} --stage {stage}"),
    }
}
