//! `kgen certs`: what there is, how long it holds, and making it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Serialize;
use time::OffsetDateTime;
use units::types::{NodeName, Role};

use super::terminal;
use crate::pki::{Listed, inventory};
use crate::workspace::{self, Input, Workspace};

/// So many names of a certificate are shown in a line.
const NAMES: usize = 3;

#[derive(Serialize)]
struct Json<'l> {
    certificates: &'l [Listed],
}

/// Prints every certificate.
pub fn list(input: Input<'_>, json: bool) -> Result<()> {
    let all = all(input)?;
    print(&all, json)
}

/// Prints the certificates that expire within some days; whether there are
/// any.
pub fn check(input: Input<'_>, days: u32, json: bool) -> Result<bool> {
    let all = all(input)?;
    let soon: Vec<Listed> = all
        .iter()
        .filter(|l| l.expires_within(days))
        .cloned()
        .collect();
    if json || !soon.is_empty() {
        print(&soon, json)?;
    }
    terminal::say(&match (soon.len(), all.len()) {
        (0, all) => format!("kgen: none of {all} certificates expires within {days} days"),
        (soon, all) => format!("kgen: {soon} of {all} certificates expire within {days} days"),
    });
    Ok(!soon.is_empty())
}

/// Makes leaves anew.
pub fn renew(input: Input<'_>, names: &[String]) -> Result<()> {
    let workspace = Workspace::open(input, &machines(&all(input)?))?;
    let mut pki = workspace.pki()?;
    let changed = pki.renew(&workspace.cluster, names)?;
    pki.commit()?;
    for note in pki.notes() {
        terminal::say(&format!("kgen: {note}"));
    }
    if pki.notes().is_empty() {
        terminal::say("kgen: there is nothing in pki/ to renew");
    }
    if !changed.is_empty() {
        let machines = changed.join(", ");
        terminal::say(&format!(
            "kgen: user-data has changed of {machines}: render it anew"
        ));
    }
    Ok(())
}

/// The machines of the built-in cluster that have certificates: what is known
/// of them without settings.
fn machines(all: &[Listed]) -> Vec<(NodeName, Role)> {
    let within = |l: &Listed| Some(l.name.strip_prefix("nodes/")?.split_once('/')?.0.to_owned());
    let names: BTreeSet<String> = all.iter().filter_map(within).collect();
    let is_master = |name: &str| {
        all.iter()
            .any(|l| l.name == format!("nodes/{name}/apiserver"))
    };
    let mut machines: Vec<(NodeName, Role)> = names
        .iter()
        .filter_map(|name| {
            let role = if is_master(name) {
                Role::Master
            } else {
                Role::Node
            };
            Some((name.parse().ok()?, role))
        })
        .collect();
    machines.sort_by_key(|(_, role)| *role != Role::Master);
    machines
}

fn all(input: Input<'_>) -> Result<Vec<Listed>> {
    inventory(&workspace::folder_of(input.file), OffsetDateTime::now_utc())
}

fn print(all: &[Listed], json: bool) -> Result<()> {
    let mut text = if json {
        let json = Json { certificates: all };
        serde_json::to_string_pretty(&json).context("writing JSON")?
    } else {
        table(all)?
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    terminal::print(text.as_bytes())
}

fn table(all: &[Listed]) -> Result<String> {
    let width = all.iter().map(|l| l.name.len()).max().unwrap_or(0).max(4);
    let issuers = all.iter().map(|l| l.issuer.len()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<width$}  {:<10}  {:>5}  {:<issuers$}  NAMES\n",
        "NAME", "EXPIRES", "DAYS", "ISSUER"
    );
    for listed in all {
        let names = match listed.names.get(..NAMES) {
            Some(first) if listed.names.len() > NAMES => {
                let more = listed.names.len() - NAMES;
                format!("{} and {more} more", first.join(", "))
            }
            _ => listed.names.join(", "),
        };
        let line = format!(
            "{:<width$}  {:<10}  {:>5}  {:<issuers$}  {names}",
            listed.name,
            listed.expires(),
            listed.days_left,
            listed.issuer
        );
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(text)
}
