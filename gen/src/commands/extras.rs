//! What `kgen render` writes beside user-data and kubeconfigs.

use std::path::Path;

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Machine, url_host};
use crate::inventory::{self, Form};
use crate::out::{SECRET_MODE, Stage};
use crate::pki::Pki;
use crate::workspace::Workspace;

/// Writes the inventories, and the way to Docker daemons where they are
/// exposed. What is made for it waits in `pki`.
pub fn write(workspace: &Workspace, pki: &mut Pki, out: &Path, stage: &mut Stage) -> Result<()> {
    let cluster = &workspace.cluster;
    for form in [Form::Ini, Form::Yaml] {
        let path = out.join(format!("inventory.{form}"));
        stage.write(path, inventory::write(cluster, form)?, SECRET_MODE)?;
    }
    match cluster.docker_port {
        Some(port) => docker(cluster, port, pki, out, stage),
        None => Ok(()),
    }
}

/// The operator's key for Docker daemons, and for each machine what a shell
/// has to know.
fn docker(
    cluster: &Cluster,
    port: u16,
    pki: &mut Pki,
    out: &Path,
    stage: &mut Stage,
) -> Result<()> {
    let folder = out.join("docker");
    let (authority, pair) = pki.docker_client()?;
    stage.write(folder.join("ca.pem"), authority, SECRET_MODE)?;
    stage.write(folder.join("cert.pem"), pair.certificate, SECRET_MODE)?;
    stage.write(folder.join("key.pem"), pair.key.expose(), SECRET_MODE)?;
    let folder = std::path::absolute(&folder)
        .with_context(|| format!("looking for {}", folder.display()))?;
    for machine in cluster.machines.iter().filter(|m| m.role.runs_kubelet()) {
        let path = out.join(machine.name.as_str()).join("docker.env");
        stage.write(path, environment(machine, port, &folder), SECRET_MODE)?;
    }
    Ok(())
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
