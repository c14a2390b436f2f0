//! Documents for several machines: `kgen --pool` and `kgen --by-hostname`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use units::types::{NodeName, Role};

use crate::cluster::{Cluster, Machine};
use crate::pki::Pki;
use crate::plan::token_object;
use crate::report::{Finding, Report};
use crate::secret::Secret;
use crate::workspace::Workspace;
use crate::yaml::nearest;

/// The folder of what is rendered that tells a running cluster of tokens.
const TOKENS: &str = "pools";
/// How files in it end.
const TOKEN: &str = "-token.yaml";

/// Which of them.
#[derive(Debug, Clone)]
pub enum Several {
    /// The machines of a pool.
    Pool(NodeName),
    /// The nodes of the settings.
    ByHostname {
        /// A role, if one was named.
        role: Option<Role>,
        /// Some of them; empty: all.
        names: Vec<NodeName>,
    },
}

impl Several {
    /// What the document is for.
    pub fn find(&self, workspace: &Workspace) -> Result<Machine, Report> {
        if workspace.builtin {
            let finding = Finding::new("there is no cluster.yaml to say which machines are meant");
            return Err(finding.help("kgen init writes one to begin with").into());
        }
        match self {
            Self::Pool(name) => pool(&workspace.cluster, name),
            Self::ByHostname { role, names } => by_hostname(&workspace.cluster, *role, names),
        }
    }
}

fn pool(cluster: &Cluster, name: &NodeName) -> Result<Machine, Report> {
    let pools = || cluster.pools.iter().filter(|m| m.is_pool());
    if let Some(pool) = pools().find(|pool| pool.name == *name) {
        return Ok(pool.clone());
    }
    let names: Vec<&str> = pools().map(|pool| pool.name.as_str()).collect();
    let help = match (nearest(name.as_str(), names.iter().copied()), &names[..]) {
        (Some(nearest), _) => format!("did you mean {nearest}?"),
        (None, []) => format!("add one to cluster.yaml: pools: [{{name: {name}}}]"),
        (None, names) => format!("there are {}", names.join(", ")),
    };
    Err(Finding::new(format!("no pool is called {name}"))
        .help(help)
        .into())
}

fn by_hostname(
    cluster: &Cluster,
    role: Option<Role>,
    names: &[NodeName],
) -> Result<Machine, Report> {
    if let Some(role @ (Role::Master | Role::Etcd)) = role {
        let finding = Finding::new(format!(
            "a document by host name cannot be for the role {role}: it would bring each machine \
             the private keys of all others"
        ));
        return Err(finding.help("each has its own: --name NAME").into());
    }
    let Some(all) = cluster.pools.iter().find(|pool| !pool.is_pool()) else {
        if cluster.of_role(Role::Node).next().is_none() {
            let finding = Finding::new("no machine has the role node");
            return Err(finding.help("add some to nodes in cluster.yaml").into());
        }
        let finding = Finding::new("cluster.yaml says that each node has a document of its own");
        return Err(finding
            .help(
                "write nodeDocuments: by-hostname into it; masters have to make the token of \
                 such a document known, and their documents depend on it",
            )
            .into());
    };
    let mut chosen = all.clone();
    let mut report = Report::default();
    for name in names.iter().filter(|name| !all.has_host(name)) {
        let finding = Finding::new(match cluster.machine(name.as_str()) {
            Some(machine) => format!("{name} has the role {}, not node", machine.role),
            None => format!("no machine is called {name}"),
        });
        let hosts = all.shared.iter().flat_map(|s| s.hosts.keys());
        report.add(match nearest(name.as_str(), hosts.map(NodeName::as_str)) {
            Some(nearest) => finding.help(format!("did you mean {nearest}?")),
            None => finding,
        });
    }
    report.into_result()?;
    if let Some(shared) = &mut chosen.shared
        && !names.is_empty()
    {
        shared.hosts.retain(|name, _| names.contains(name));
    }
    Ok(chosen)
}

/// What tells a running cluster of tokens, a file each in a folder of what is
/// rendered.
pub fn tokens(workspace: &Workspace, pki: &mut Pki, out: &Path) -> Result<Vec<(PathBuf, Secret)>> {
    let tokens = pki.all_tokens(&workspace.cluster)?;
    tokens
        .iter()
        .map(|token| {
            let path = out.join(TOKENS).join(format!("{}{TOKEN}", token.pool));
            Ok((path, token_object(token)?))
        })
        .collect()
}

/// What told of the tokens of pools that are no longer there: the folder is
/// applied as a whole, and would bring them back.
pub fn gone(workspace: &Workspace, out: &Path) -> Result<Vec<PathBuf>> {
    let folder = out.join(TOKENS);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        // A file where a folder should be is told when the folder is made.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let mut gone = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("reading {}", folder.display()))?
            .path();
        let name = path.file_name().and_then(|name| name.to_str());
        let pool = name.and_then(|name| name.strip_suffix(TOKEN));
        let mut pools = workspace.cluster.pools.iter();
        if pool.is_some_and(|pool| !pools.any(|p| p.name.as_str() == pool)) {
            gone.push(path);
        }
    }
    gone.sort();
    Ok(gone)
}
