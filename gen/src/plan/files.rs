//! All files of a machine but node.yaml, each from its own room.

use std::borrow::Cow;

use ::units::embedded::{self, StaticFile};
use ::units::paths;
use ::units::types::{FileMode, Role};
use anyhow::{Result, anyhow};

use super::kubeconfig::{KubeconfigUser, kubeconfig};
use super::{
    Content, Parts, PlannedFile, RemoteFile, control_plane, etcd, kubelet, node_config, units,
};
use crate::pki::{Authority, Leaf};
use crate::secret::Secret;

/// A file that everybody may read.
pub fn public(path: impl Into<String>, text: impl Into<Cow<'static, str>>) -> PlannedFile {
    PlannedFile::public(path, text)
}

/// A file with key material, for root alone.
pub fn secret(path: impl Into<String>, secret: Secret) -> PlannedFile {
    PlannedFile {
        path: path.into(),
        mode: FileMode::SECRET,
        content: Content::Secret(secret),
    }
}

/// Every file but node.yaml.
pub fn all(parts: Parts<'_>) -> Result<Vec<PlannedFile>> {
    let mut files = static_files(parts);
    files.push(knode_list(parts));
    files.extend(pki(parts));
    files.extend(kubeconfigs(parts)?);
    let (cluster, machine) = (parts.cluster, parts.machine);
    if machine.role.runs_kubelet() {
        files.push(kubelet::config(cluster, machine)?);
        files.push(kubelet::proxy_config(cluster)?);
        files.extend(units::runtime(cluster));
    }
    if cluster.runs_etcd(machine) {
        files.push(etcd::config(cluster, machine)?);
    }
    if let Some(keys) = &parts.material.master {
        files.push(control_plane::encryption(&keys.encryption)?);
    }
    if machine.role == Role::Master {
        files.extend(control_plane::drop_ins(cluster, machine));
    }
    Ok(files)
}

fn static_files(parts: Parts<'_>) -> Vec<PlannedFile> {
    let role = parts.machine.role;
    let mut all: Vec<StaticFile> = embedded::COMMON.to_vec();
    all.push(embedded::target(role));
    if role.runs_kubelet() {
        all.extend(embedded::WITH_PODS);
    }
    if role == Role::Master {
        all.extend(embedded::WITH_APISERVER);
    }
    let services = node_config::services(parts.cluster, parts.machine);
    let runtime = parts.cluster.runtime_source;
    all.extend(
        services
            .into_iter()
            .filter_map(|s| embedded::unit(s, runtime)),
    );
    all.into_iter()
        .map(|file| PlannedFile {
            path: file.path.to_owned(),
            mode: file.mode,
            content: Content::Public(Cow::Borrowed(file.content)),
        })
        .collect()
}

/// Where the bootstrap script finds knode.
fn knode_list(parts: Parts<'_>) -> PlannedFile {
    let lines: String = parts
        .knode
        .iter()
        .map(|source| format!("{} {} {}\n", source.arch, source.sha256, source.url))
        .collect();
    public(paths::KNODE_SOURCES, lines)
}

/// knode itself, where there is one knode in one place. Of several, only the
/// bootstrap script knows which to take.
pub fn knode(parts: Parts<'_>) -> Option<RemoteFile> {
    let [source] = parts.knode else {
        return None;
    };
    (source.arch == parts.machine.arch).then(|| RemoteFile {
        path: paths::KNODE,
        mode: FileMode::EXECUTABLE,
        url: source.url.clone(),
        sha256: source.sha256.clone(),
    })
}

/// Certificates and keys, in kubeadm's places.
fn pki(parts: Parts<'_>) -> Vec<PlannedFile> {
    let mut files = Vec::new();
    for (authority, (certificate, key)) in &parts.material.authorities {
        let stem = format!("{}/{}", paths::PKI, authority.stem());
        files.push(public(format!("{stem}.crt"), certificate.clone()));
        if let Some(key) = key {
            files.push(secret(format!("{stem}.key"), key.clone()));
        }
    }
    for (leaf, pair) in &parts.material.leaves {
        if is_in_kubeconfig(*leaf) {
            continue;
        }
        let stem = format!("{}/{}", paths::PKI, leaf.stem());
        files.push(public(format!("{stem}.crt"), pair.certificate.clone()));
        files.push(secret(format!("{stem}.key"), pair.key.clone()));
    }
    if let Some(keys) = &parts.material.master {
        let stem = format!("{}/sa", paths::PKI);
        files.push(secret(format!("{stem}.key"), keys.service_account.clone()));
        files.push(public(
            format!("{stem}.pub"),
            keys.service_account_public.clone(),
        ));
    }
    files
}

/// Whether a certificate lands within a kubeconfig, not as a file.
fn is_in_kubeconfig(leaf: Leaf) -> bool {
    kubeconfig_of(leaf).is_some()
}

/// The kubeconfig that a client certificate is for, and the user's name in it.
fn kubeconfig_of(leaf: Leaf) -> Option<(&'static str, &'static str)> {
    match leaf {
        Leaf::KubeletClient => Some((paths::KUBELET_KUBECONFIG, "kubelet")),
        Leaf::KubeProxy => Some((paths::KUBE_PROXY_KUBECONFIG, "kube-proxy")),
        Leaf::ControllerManager => Some((
            control_plane::CONTROLLER_MANAGER_KUBECONFIG,
            "controller-manager",
        )),
        Leaf::Scheduler => Some((control_plane::SCHEDULER_KUBECONFIG, "scheduler")),
        _ => None,
    }
}

fn kubeconfigs(parts: Parts<'_>) -> Result<Vec<PlannedFile>> {
    let server = parts.cluster.api_url(parts.machine);
    let mut files = Vec::new();
    for (leaf, pair) in &parts.material.leaves {
        let Some((path, user)) = kubeconfig_of(*leaf) else {
            continue;
        };
        let authority = authority(parts)?;
        let text = kubeconfig(KubeconfigUser {
            cluster: &parts.cluster.name,
            server: &server,
            authority,
            user,
            pair,
        });
        files.push(secret(path, text));
    }
    Ok(files)
}

fn authority<'p>(parts: Parts<'p>) -> Result<&'p str> {
    let authority = parts.material.authorities.get(&Authority::Cluster);
    authority
        .map(|(certificate, _)| certificate.as_str())
        .ok_or_else(|| anyhow!("the cluster's authority is missing"))
}
