//! `kgen --role ROLE`: the main job.

use std::path::Path;

use anyhow::Result;
use units::types::{NodeName, Role};

use super::shared::Several;
use super::terminal;
use crate::format::Format;
use crate::report::{Finding, Report};
use crate::workspace::{self, Asked, Input, Workspace};

/// Whose user-data, in which language.
#[derive(Debug)]
pub struct UserData<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// What the machine does.
    pub role: Option<Role>,
    /// What it is called.
    pub name: Option<NodeName>,
    /// Several machines with one document, instead of one.
    pub several: Option<Several>,
    /// In which form, if one was asked for.
    pub asked: Asked,
}

/// Prints the user-data of one machine, or of several.
pub fn run(args: &UserData<'_>) -> Result<()> {
    let (workspace, name) = open(args)?;
    let target = workspace.target(args.asked)?;
    let several;
    let machine = match &args.several {
        Some(meant) => {
            several = meant.find(&workspace)?;
            &several
        }
        None => workspace.machine(args.role, name.as_ref())?,
    };
    let mut pki = workspace.pki()?;
    let (knode, material) = workspace.knode_beside(|| pki.machine(&workspace.cluster, machine))?;
    let plan = workspace.plan(machine, &knode, &material)?;
    let bytes = workspace::user_data(&plan, target)?;
    pki.commit()?;
    if workspace.builtin {
        terminal::say(&assumptions(&workspace, target.format, pki.folder()));
    }
    terminal::warn(&workspace.warnings);
    for note in pki.notes() {
        terminal::say(&format!("kgen: {note}"));
    }
    if !terminal::is_watched() {
        return terminal::print(&bytes);
    }
    let shown = workspace::document(&plan.redacted(), target.format)?;
    terminal::print(shown.as_bytes())?;
    terminal::say(
        "kgen: this is a terminal, so secrets are not shown; redirect the output to get them: \
         kgen … > user-data",
    );
    Ok(())
}

/// The workspace, and the name of the machine in it.
fn open(args: &UserData<'_>) -> Result<(Workspace, Option<NodeName>)> {
    let fallback = fallback(args)?;
    let workspace = Workspace::open(args.input, &fallback)?;
    if !workspace.builtin || args.several.is_some() {
        return Ok((workspace, args.name.clone()));
    }
    let Some(role) = args.role else {
        return Err(bad("--role is missing, and there is no cluster.yaml to say it").into());
    };
    let own = fallback.iter().rev().find(|(_, r)| *r == role);
    match own {
        Some((name, _)) => Ok((workspace, Some(name.clone()))),
        None => Err(bad("the built-in cluster has no ring of its own for etcd").into()),
    }
}

fn bad(message: &str) -> Report {
    Finding::new(message)
        .help("kgen init writes a cluster.yaml to begin with")
        .into()
}

/// The machines of the built-in cluster: a master, and the node asked for.
fn fallback(args: &UserData<'_>) -> Result<Vec<(NodeName, Role)>> {
    let named = |default: &str| match &args.name {
        Some(name) => Ok(name.clone()),
        None => default.parse(),
    };
    Ok(match args.role {
        Some(Role::Node) => {
            let (master, node) = ("master".parse()?, named("node")?);
            if master == node {
                return Err(bad("the built-in cluster's master is called master").into());
            }
            vec![(master, Role::Master), (node, Role::Node)]
        }
        _ => vec![(named("master")?, Role::Master)],
    })
}

/// What was assumed for want of settings.
fn assumptions(workspace: &Workspace, format: Format, pki: &Path) -> String {
    let cluster = &workspace.cluster;
    let networks = |nets: &[ipnet::IpNet]| nets.first().map(ToString::to_string);
    let pki = std::path::absolute(pki).unwrap_or_else(|_| pki.to_owned());
    format!(
        "kgen: there is no cluster.yaml here, so this is assumed (kgen init writes one to change):
  Kubernetes  {version}
  API server  {endpoint}: this name has to resolve on every machine
  pods        {pods}, services {services}
  format      {format}
  keys        {pki}: keep this folder, it is the cluster",
        version = cluster.version,
        endpoint = cluster.endpoint,
        pods = networks(&cluster.pod_cidrs).unwrap_or_default(),
        services = networks(&cluster.service_cidrs).unwrap_or_default(),
        pki = pki.display(),
    )
}
