//! What `kgen render` writes beside user-data and kubeconfigs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::azure::Azure;
use super::openstack::Openstack;
use super::pxe::Pxe;
use super::{kubeconfig, shared};
use crate::cluster::{Cluster, Machine, url_host};
use crate::inventory::{self, Form};
use crate::out::{SCRIPT_MODE, SECRET_MODE, Stage};
use crate::pki::Pki;
use crate::secret::Secret;
use crate::workspace::Workspace;

/// Files beside the documents: all are for their owner alone.
#[derive(Debug, Default)]
pub struct Extras {
    /// What is there after a render, in order.
    pub files: Vec<(PathBuf, Secret)>,
    /// Those of it that are run.
    pub scripts: Vec<(PathBuf, Secret)>,
    /// What was rendered once and goes.
    pub gone: Vec<PathBuf>,
}

impl Extras {
    /// The operator's kubeconfigs, what tells a running cluster of bootstrap
    /// tokens, the inventories, and the way to Docker daemons where they are
    /// exposed, what makes machines on Azure or OpenStack with these documents, and what
    /// machines boot from the network. What is made for it waits in `pki`.
    pub fn make(
        workspace: &Workspace,
        pki: &mut Pki,
        azure: Option<Azure>,
        openstack: Option<Openstack>,
        pxe: Option<&Pxe>,
        out: &Path,
    ) -> Result<Self> {
        let cluster = &workspace.cluster;
        let mut files = Vec::new();
        for (name, super_admin) in [("admin.conf", false), ("super-admin.conf", true)] {
            let text = kubeconfig::of_operator(workspace, pki, super_admin)?;
            files.push((out.join(name), text));
        }
        files.extend(shared::tokens(workspace, pki, out)?);
        for form in [Form::Ini, Form::Yaml] {
            let text = inventory::write(cluster, form)?;
            files.push((out.join(format!("inventory.{form}")), Secret::from(text)));
        }
        if let Some(port) = cluster.docker_port {
            files.extend(docker(cluster, port, pki, out)?);
        }
        let mut scripts = Vec::new();
        if let Some(azure) = azure {
            let made = azure.files(out)?;
            files.extend(made.files);
            scripts = made.scripts;
        }
        if let Some(openstack) = openstack {
            let made = openstack.files(out)?;
            files.extend(made.files);
            scripts.extend(made.scripts);
        }
        let mut gone = shared::gone(workspace, out)?;
        if let Some(pxe) = pxe {
            files.extend(pxe.files(out)?);
            gone.extend(pxe.gone(out)?);
        }
        Ok(Self {
            files,
            scripts,
            gone,
        })
    }

    /// Makes it so, once `stage` is committed.
    pub fn write(self, stage: &mut Stage) -> Result<()> {
        for (path, bytes) in self.files {
            stage.write(path, bytes.expose(), SECRET_MODE)?;
        }
        for (path, bytes) in self.scripts {
            stage.write(path, bytes.expose(), SCRIPT_MODE)?;
        }
        self.gone.into_iter().for_each(|path| stage.remove(path));
        Ok(())
    }
}

/// The operator's key for Docker daemons, and for each machine what a shell
/// has to know.
fn docker(
    cluster: &Cluster,
    port: u16,
    pki: &mut Pki,
    out: &Path,
) -> Result<Vec<(PathBuf, Secret)>> {
    let folder = out.join("docker");
    let (authority, pair) = pki.docker_client()?;
    let mut files = vec![
        (folder.join("ca.pem"), Secret::from(authority)),
        (folder.join("cert.pem"), Secret::from(pair.certificate)),
        (folder.join("key.pem"), pair.key),
    ];
    let folder = std::path::absolute(&folder)
        .with_context(|| format!("looking for {}", folder.display()))?;
    for machine in cluster.machines.iter().filter(|m| m.role.runs_kubelet()) {
        let path = out.join(machine.name.as_str()).join("docker.env");
        let text = environment(machine, port, &folder);
        files.push((path, Secret::from(text)));
    }
    Ok(files)
}

/// Source: Docker documentation, "Environment variables" of the docker command.
fn environment(machine: &Machine, port: u16, folder: &Path) -> String {
    let host = match machine.address() {
        Some(address) => url_host(address),
        None => machine.name.to_string(),
    };
    let folder = folder.display().to_string().replace('\'', "'\\''");
    format!(
        "export DOCKER_HOST=tcp://{host}:{port}\nexport DOCKER_TLS_VERIFY=1\n\
         export DOCKER_CERT_PATH='{folder}'\n"
    )
}
