//! `kgen kubeconfig`: the operator's way in.

use std::path::PathBuf;

use anyhow::Result;
use units::types::Role;

use super::{merge, terminal};
use crate::cluster::{Cluster, Endpoint, Host};
use crate::kubeconfig::Access;
use crate::pki::{AltName, Leaf, Pair, Pki, of_machine};
use crate::plan::{KubeconfigUser, kubeconfig};
use crate::secret::Secret;
use crate::workspace::{Input, Workspace};

/// Whose kubeconfig, and what to do with it.
#[derive(Debug)]
pub struct Kubeconfig<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// Whether it works even when RBAC is broken.
    pub super_admin: bool,
    /// Another address of the API server.
    pub server: Option<&'a Endpoint>,
    /// Where to put it instead of printing it.
    pub merge: Option<Merge<'a>>,
}

/// Into which kubeconfig the cluster is put.
#[derive(Debug)]
pub struct Merge<'a> {
    /// The file; none: kubectl's.
    pub file: Option<PathBuf>,
    /// The name of context and cluster.
    pub context: Option<&'a str>,
    /// Whether the context becomes the current one.
    pub make_current: bool,
}

/// Prints a kubeconfig, or puts it into another one.
pub fn run(args: &Kubeconfig<'_>) -> Result<()> {
    let workspace = Workspace::open(args.input, &[("master".parse()?, Role::Master)])?;
    let mut pki = workspace.pki()?;
    let (authority, pair) = pki.operator(args.super_admin)?;
    let cluster = &workspace.cluster;
    let server = args.server.unwrap_or(&cluster.endpoint);
    pki.commit()?;
    for note in pki.notes() {
        terminal::say(&format!("kgen: {note}"));
    }
    if !is_certified(cluster, &server.host) {
        terminal::say(&format!(
            "kgen: the API server's certificate does not name {}: add it to apiServer.certSANs",
            server.host
        ));
    }
    let server = server.to_string();
    let user = user(args.super_admin);
    if let Some(merge) = &args.merge {
        let name = merge.context.unwrap_or(&cluster.name);
        // Every cluster of ours has a kubernetes-admin.
        let user = format!("{user}@{name}");
        let access = Access {
            cluster: name,
            user: &user,
            context: merge.context.unwrap_or(&user),
            server: &server,
            authority: &authority,
            certificate: &pair.certificate,
            key: &pair.key,
        };
        let file = match &merge.file {
            Some(file) => file.clone(),
            None => merge::default_file()?,
        };
        return merge::into(&file, &access, merge.make_current);
    }
    let write = |pair: &Pair| {
        kubeconfig(KubeconfigUser {
            cluster: &cluster.name,
            server: &server,
            authority: &authority,
            user,
            pair,
        })
    };
    if !terminal::is_watched() {
        return terminal::print(write(&pair).expose());
    }
    let shown = Pair {
        key: Secret::from("(not shown)".to_owned()),
        ..pair
    };
    terminal::print(write(&shown).expose())?;
    terminal::say(
        "kgen: this is a terminal, so the key is not shown; redirect the output to get it: \
         kgen kubeconfig > admin.conf",
    );
    Ok(())
}

/// The operator's kubeconfig; what is made for it waits in `pki`.
pub fn of_operator(workspace: &Workspace, pki: &mut Pki, super_admin: bool) -> Result<Secret> {
    let (authority, pair) = pki.operator(super_admin)?;
    Ok(kubeconfig(KubeconfigUser {
        cluster: &workspace.cluster.name,
        server: &workspace.cluster.endpoint.to_string(),
        authority: &authority,
        user: user(super_admin),
        pair: &pair,
    }))
}

fn user(super_admin: bool) -> &'static str {
    if super_admin {
        "kubernetes-super-admin"
    } else {
        "kubernetes-admin"
    }
}

/// Whether a master's API server proves to be `host`.
fn is_certified(cluster: &Cluster, host: &Host) -> bool {
    let wanted = match host {
        Host::Address(address) => AltName::Address(*address),
        Host::Name(name) => AltName::Dns(name.clone()),
    };
    cluster.of_role(Role::Master).any(|master| {
        let profile = of_machine(Leaf::Apiserver, cluster, master);
        profile.alt_names.contains(&wanted)
    })
}
