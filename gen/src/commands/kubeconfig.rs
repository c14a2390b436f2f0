//! `kgen kubeconfig`: the operator's way in.

use anyhow::Result;
use units::types::Role;

use super::terminal;
use crate::pki::{Pair, Pki};
use crate::plan::{KubeconfigUser, kubeconfig};
use crate::secret::Secret;
use crate::workspace::{Input, Workspace};

/// Prints a kubeconfig.
pub fn run(input: Input<'_>, super_admin: bool) -> Result<()> {
    let workspace = Workspace::open(input, &[("master".parse()?, Role::Master)])?;
    let mut pki = workspace.pki()?;
    let text = of_operator(&workspace, &mut pki, super_admin)?;
    pki.commit()?;
    for note in pki.notes() {
        terminal::say(&format!("kgen: {note}"));
    }
    if !terminal::is_watched() {
        return terminal::print(text.expose());
    }
    let (authority, pair) = pki.operator(super_admin)?;
    let pair = Pair {
        key: Secret::from("(not shown)".to_owned()),
        ..pair
    };
    terminal::print(write(&workspace, super_admin, &authority, &pair).expose())?;
    terminal::say(
        "kgen: this is a terminal, so the key is not shown; redirect the output to get it: \
         kgen kubeconfig > admin.conf",
    );
    Ok(())
}

/// The operator's kubeconfig; what is made for it waits in `pki`.
pub fn of_operator(workspace: &Workspace, pki: &mut Pki, super_admin: bool) -> Result<Secret> {
    let (authority, pair) = pki.operator(super_admin)?;
    Ok(write(workspace, super_admin, &authority, &pair))
}

fn write(workspace: &Workspace, super_admin: bool, authority: &str, pair: &Pair) -> Secret {
    kubeconfig(KubeconfigUser {
        cluster: &workspace.cluster.name,
        server: &workspace.cluster.endpoint.to_string(),
        authority,
        user: if super_admin {
            "kubernetes-super-admin"
        } else {
            "kubernetes-admin"
        },
        pair,
    })
}
