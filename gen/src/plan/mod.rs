//! What lands on one machine: the narrow waist between the cluster and the
//! dialects.

mod addons;
mod control_plane;
mod docker;
mod etcd;
mod extras;
mod files;
mod hooks;
mod kubeconfig;
mod kubelet;
mod node_config;
mod ntp;
mod overlay;
mod pools;
mod proxy;
mod registries;
mod static_pods;
mod units;

use std::borrow::Cow;
use std::collections::BTreeSet;

use ::units::embedded;
use ::units::node_config::Artifact;
use ::units::types::{FileMode, NodeName};
use anyhow::{Result, ensure};

pub use kubeconfig::{KubeconfigUser, kubeconfig};
pub use pools::token_object;

use crate::artifacts::KnodeSource;
use crate::cluster::{Cluster, Machine};
use crate::pki::Material;
use crate::secret::Secret;
use crate::system::{Origin, Owner, Package, Ssh, System};

/// Everything that one machine is given, in no language yet.
#[derive(Debug)]
pub struct NodePlan {
    /// Whose plan it is, for messages.
    pub name: NodeName,
    /// The host name; absent where several machines have one document, and
    /// each has a host name already.
    pub hostname: Option<NodeName>,
    /// The files in the order in which they are written: what brings knode, then
    /// node.yaml with its manifest, then all others of ours by path, then the
    /// operator's.
    pub files: Vec<PlannedFile>,
    /// The unit that is enabled and started; its file is among the files.
    pub target: &'static str,
    /// Other units that are enabled, and started with the next boot.
    pub enabled: Vec<String>,
    /// Packages of the distribution that are installed.
    pub packages: Vec<Package>,
    /// Who may log in.
    pub ssh: Ssh,
    /// What the machine may fetch while it boots, if its language can; its
    /// bootstrap script makes sure of it in any case.
    pub remote: Option<RemoteFile>,
}

/// One file.
#[derive(Debug)]
pub struct PlannedFile {
    /// The absolute path.
    pub path: String,
    /// The permission bits.
    pub mode: FileMode,
    /// The bytes.
    pub content: Content,
    /// Whose it is; absent: root's.
    pub owner: Option<Owner>,
    /// Where the operator typed it, if it is the operator's.
    pub origin: Option<Origin>,
}

/// One file that is fetched, from one place.
#[derive(Debug, Clone)]
pub struct RemoteFile {
    /// The absolute path.
    pub path: &'static str,
    /// The permission bits.
    pub mode: FileMode,
    /// Where it is.
    pub url: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// The bytes of a file, and whether they may be shown.
#[derive(Debug)]
pub enum Content {
    /// Anybody may see them.
    Public(Cow<'static, str>),
    /// The same for what is not text.
    Binary(Vec<u8>),
    /// There is key material in them.
    Secret(Secret),
}

impl PlannedFile {
    /// A file that everybody may read.
    pub fn public(path: impl Into<String>, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(path, FileMode::PUBLIC, Content::Public(text.into()))
    }

    /// A file of root's.
    pub fn new(path: impl Into<String>, mode: FileMode, content: Content) -> Self {
        Self {
            path: path.into(),
            mode,
            content,
            owner: None,
            origin: None,
        }
    }

    /// The owner as documents name it.
    pub fn owned_by(&self) -> String {
        match &self.owner {
            Some(owner) => owner.to_string(),
            None => Owner::ROOT.to_owned(),
        }
    }
}

impl Content {
    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Public(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
            Self::Secret(secret) => secret.expose(),
        }
    }
}

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'p> {
    /// The cluster.
    pub cluster: &'p Cluster,
    /// The machine or machines, one of the cluster's [`Cluster::documents`].
    pub machine: &'p Machine,
    /// Its certificates and keys.
    pub material: &'p Material,
    /// Its downloads.
    pub artifacts: &'p [Artifact],
    /// The version of etcd that the lock names, if it names one.
    pub etcd_version: Option<&'p str>,
    /// Where it finds knode.
    pub knode: &'p [KnodeSource],
    /// What it is given besides Kubernetes.
    pub system: &'p System,
}

/// Readers stop at the first file that they cannot write, and uploads are cut
/// at the end: what brings knode comes first, so that it can say so (F30).
fn rank(file: &PlannedFile) -> u8 {
    let path = file.path.as_str();
    match path {
        // What may fail to be written is not ours.
        _ if file.origin.is_some() => 3,
        ::units::paths::BOOTSTRAP_SCRIPT | ::units::paths::KNODE_SOURCES => 0,
        _ if path.contains("/knode.service") || path.contains("/knode-bootstrap.service") => 0,
        _ if path.contains("/systemd/system/kubernetes-") => 0,
        ::units::paths::NODE_CONFIG => 1,
        _ => 2,
    }
}

impl NodePlan {
    /// Plans a machine.
    pub fn new(parts: Parts<'_>) -> Result<Self> {
        let mut files = files::all(parts)?;
        let brought = extras::add(&mut files, parts)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.push(node_config::file(parts, &files)?);
        files.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.path.cmp(&b.path)));
        let mut seen = BTreeSet::new();
        for file in &files {
            ensure!(seen.insert(&file.path), "{} is planned twice", file.path);
        }
        Ok(Self {
            name: parts.machine.name.clone(),
            hostname: (parts.machine.shared.is_none()).then(|| parts.machine.name.clone()),
            files,
            target: embedded::target_name(parts.machine.role),
            enabled: brought.enabled,
            packages: brought.packages,
            ssh: parts.system.ssh.of_use(),
            remote: files::knode(parts),
        })
    }

    /// The same plan with nothing secret in it, to be looked at.
    pub fn redacted(&self) -> Self {
        let files = self.files.iter().map(|file| PlannedFile {
            path: file.path.clone(),
            mode: file.mode,
            content: match &file.content {
                Content::Public(text) => Content::Public(text.clone()),
                Content::Binary(bytes) => Content::Binary(bytes.clone()),
                Content::Secret(secret) => {
                    Content::Public(format!("(secret: {} bytes, not shown)\n", secret.len()).into())
                }
            },
            owner: file.owner.clone(),
            origin: file.origin.clone(),
        });
        Self {
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            files: files.collect(),
            target: self.target,
            enabled: self.enabled.clone(),
            packages: self.packages.clone(),
            ssh: self.ssh.clone(),
            remote: self.remote.clone(),
        }
    }

    /// The file of a path.
    pub fn file(&self, path: &str) -> Option<&PlannedFile> {
        self.files.iter().find(|file| file.path == path)
    }
}
