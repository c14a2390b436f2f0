//! All files of a machine but node.yaml, each from its own room.

use std::borrow::Cow;

use ::units::embedded::{self, StaticFile};
use ::units::paths;
use ::units::types::{FileMode, Role};
use anyhow::{Result, anyhow};

use super::kubeconfig::{KubeconfigUser, kubeconfig};
use super::{
    Content, Parts, PlannedFile, RemoteFile, addons, control_plane, docker, etcd, hooks, kubelet,
    node_config, ntp, pools, proxy, registries, static_pods, units,
};
use crate::pki::{Authority, Leaf};
use crate::secret::Secret;

/// A file that everybody may read.
pub fn public(path: impl Into<String>, text: impl Into<Cow<'static, str>>) -> PlannedFile {
    PlannedFile::public(path, text)
}

/// A file with key material, for root alone.
pub fn secret(path: impl Into<String>, secret: Secret) -> PlannedFile {
    PlannedFile::new(path, FileMode::SECRET, Content::Secret(secret))
}

/// Every file but node.yaml.
pub fn all(parts: Parts<'_>) -> Result<Vec<PlannedFile>> {
    let mut files = static_files(parts);
    files.push(knode_list(parts));
    files.extend(pki(parts));
    files.extend(kubeconfigs(parts)?);
    files.extend(pools::kubeconfigs(parts)?);
    files.extend(pools::objects(parts)?);
    files.extend(addons::files(parts)?);
    let (cluster, machine) = (parts.cluster, parts.machine);
    if machine.role.runs_kubelet() {
        files.push(kubelet::config(cluster, machine)?);
        files.push(kubelet::proxy_config(cluster)?);
        files.extend(units::runtime(cluster));
    }
    if let Some(port) = cluster.docker_on(machine) {
        files.extend(docker::files(cluster, port)?);
    }
    if cluster.runs_etcd(machine) {
        files.push(etcd::config(cluster, machine)?);
    }
    if let Some(keys) = &parts.material.master {
        files.push(control_plane::encryption(&keys.encryption)?);
    }
    files.extend(static_pods::files(parts)?);
    if machine.role == Role::Master && !cluster.static_pods {
        files.extend(control_plane::drop_ins(
            cluster,
            machine,
            parts.material.signing.is_some(),
        ));
    }
    files.extend(proxy::files(parts));
    files.extend(ntp::files(parts));
    files.extend(registries::files(parts)?);
    files.extend(hooks::files(parts));
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
        .map(|file| {
            let content = Content::Public(Cow::Borrowed(file.content));
            PlannedFile::new(file.path, file.mode, content)
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
/// bootstrap script knows which to take, as it alone knows the proxy.
pub fn knode(parts: Parts<'_>) -> Option<RemoteFile> {
    let [source] = parts.knode else {
        return None;
    };
    let direct = parts.system.proxy.is_none();
    (direct && source.arch == parts.machine.arch).then(|| RemoteFile {
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
        let stem = place(authority.stem());
        files.push(public(format!("{stem}.crt"), certificate.clone()));
        if let Some(key) = key {
            files.push(secret(format!("{stem}.key"), key.clone()));
        }
    }
    if let Some(signing) = &parts.material.signing {
        files.push(public(control_plane::SIGNING_CERT, signing.clone()));
    }
    for (leaf, pair) in &parts.material.leaves {
        if is_in_kubeconfig(*leaf) {
            continue;
        }
        let stem = place(leaf.stem());
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

/// Where a file of `pki/` lands, without its ending.
fn place(stem: &str) -> String {
    docker::place(stem).unwrap_or_else(|| format!("{}/{stem}", paths::PKI))
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
    let of_machine = parts.cluster.api_url(parts.machine);
    let own = parts.cluster.own_api_url();
    let mut files = Vec::new();
    for (leaf, pair) in &parts.material.leaves {
        let Some((path, user)) = kubeconfig_of(*leaf) else {
            continue;
        };
        let authority = authority(parts)?;
        let server = match leaf {
            // The control plane never leaves its machine.
            Leaf::ControllerManager | Leaf::Scheduler => &own,
            _ => &of_machine,
        };
        let text = kubeconfig(KubeconfigUser {
            cluster: &parts.cluster.name,
            server,
            authority,
            user,
            pair,
        });
        files.push(secret(path, text));
    }
    Ok(files)
}

/// The certificate of the cluster's authority, PEM.
pub fn authority<'p>(parts: Parts<'p>) -> Result<&'p str> {
    let authority = parts.material.authorities.get(&Authority::Cluster);
    authority
        .map(|(certificate, _)| certificate.as_str())
        .ok_or_else(|| anyhow!("the cluster's authority is missing"))
}
