//! `kgen certs`: what there is, how long it holds, and making it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Serialize;
use time::OffsetDateTime;
use units::types::{NodeName, Role};

use super::terminal;
use crate::pki::{Authority, Kind, Listed, Rotation, Stage, inventory, rotate_command, rotations};
use crate::workspace::{self, Input, Workspace};

/// So many names of a certificate are shown in a line.
const NAMES: usize = 3;

#[derive(Serialize)]
struct Json<'l> {
    certificates: &'l [Listed],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rotations: &'l [Rotation],
}

/// Prints every certificate.
pub fn list(input: Input<'_>, json: bool) -> Result<()> {
    let all = all(input)?;
    let rotations = rotations(&workspace::folder_of(input.file));
    print(&all, &rotations, json)?;
    if !json {
        rotations.iter().for_each(tell);
    }
    Ok(())
}

fn tell(rotation: &Rotation) {
    let Rotation { name, done, next } = rotation;
    terminal::say(&format!(
        "kgen: {name} is being replaced: {done} is done; when every machine has been made anew \
         from its documents: {next}"
    ));
}

/// What is replaced, in which stage.
#[derive(Debug)]
pub struct Rotate<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// The authorities; none: the key of service accounts.
    pub authorities: &'a [Authority],
    /// The stage; none: say which is next.
    pub stage: Option<Stage>,
    /// Whether the stage before needs no time.
    pub now: bool,
}

/// Takes the replacement of authorities, or of the key of service accounts,
/// one stage further.
pub fn rotate(args: &Rotate<'_>) -> Result<()> {
    let folder = workspace::folder_of(args.input.file);
    let Some(stage) = args.stage else {
        let names = names(args.authorities);
        for name in names {
            match rotations(&folder).iter().find(|r| r.name == name) {
                Some(rotation) => tell(rotation),
                None => terminal::say(&format!(
                    "kgen: {name} is not being replaced; to begin: {}",
                    rotate_command(name, Stage::Prepare)
                )),
            }
        }
        return Ok(());
    };
    let workspace = Workspace::open(args.input, &machines(&all(args.input)?))?;
    let mut pki = workspace.pki()?;
    let cluster = &workspace.cluster;
    let machines = if args.authorities.is_empty() {
        pki.rotate_service_account(cluster, stage, args.now)?;
        let masters = cluster.of_role(Role::Master);
        masters.map(|m| m.name.to_string()).collect()
    } else {
        pki.rotate_authorities(cluster, args.authorities, stage, args.now)?
    };
    pki.commit()?;
    for note in pki.notes() {
        terminal::say(&format!("kgen: {note}"));
    }
    let machines = machines.join(", ");
    let operator = args.authorities.contains(&Authority::Cluster);
    let kubeconfigs = if operator { "; and kubeconfigs" } else { "" };
    terminal::say(&format!(
        "kgen: user-data has changed of {machines}{kubeconfigs}: kgen render, and make each \
         machine anew, one after the other"
    ));
    let then = match stage {
        Stage::Prepare => Stage::Switch,
        Stage::Switch => Stage::Finish,
        Stage::Finish => {
            terminal::say("kgen: then nothing is left of what was replaced");
            return Ok(());
        }
    };
    for name in names(args.authorities) {
        let command = rotate_command(name, then);
        terminal::say(&format!("kgen: when all of them are: {command}"));
    }
    Ok(())
}

fn names(authorities: &[Authority]) -> Vec<&'static str> {
    match authorities {
        [] => vec!["sa"],
        authorities => authorities.iter().map(|a| a.name()).collect(),
    }
}

/// Prints the certificates that expire within some days, and the tokens that
/// do before long; whether there are any certificates. Tokens come and go.
pub fn check(input: Input<'_>, days: u32, json: bool) -> Result<bool> {
    let all = all(input)?;
    let soon: Vec<Listed> = all
        .iter()
        .filter(|l| l.expires_within(days))
        .cloned()
        .collect();
    if json || !soon.is_empty() {
        print(&soon, &[], json)?;
    }
    let certificates = |all: &[Listed]| all.iter().filter(|l| l.kind == Kind::Certificate).count();
    let expiring = certificates(&soon);
    terminal::say(&match (expiring, certificates(&all)) {
        (0, all) => format!("kgen: none of {all} certificates expires within {days} days"),
        (soon, all) => format!("kgen: {soon} of {all} certificates expire within {days} days"),
    });
    if soon.len() > expiring {
        terminal::say(
            "kgen: the next kgen render makes new bootstrap tokens, for machines that are to join",
        );
    }
    Ok(expiring > 0)
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

fn print(all: &[Listed], rotations: &[Rotation], json: bool) -> Result<()> {
    let mut text = if json {
        let json = Json {
            certificates: all,
            rotations,
        };
        serde_json::to_string_pretty(&json).context("writing JSON")?
    } else {
        table(all)?
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    terminal::print(text.as_bytes())
}

/// What stands where others have an issuer.
fn issuer(listed: &Listed) -> &str {
    match listed.kind {
        Kind::Certificate => &listed.issuer,
        Kind::Token => "(bootstrap token)",
    }
}

fn table(all: &[Listed]) -> Result<String> {
    let width = all.iter().map(|l| l.name.len()).max().unwrap_or(0).max(4);
    let issuers = all
        .iter()
        .map(|l| issuer(l).len())
        .max()
        .unwrap_or(0)
        .max(6);
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
            issuer(listed)
        );
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(text)
}
