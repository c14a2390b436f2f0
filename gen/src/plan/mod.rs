//! What lands on one machine: the narrow waist between the cluster and the
//! dialects.

mod control_plane;
mod etcd;
mod files;
mod kubeconfig;
mod kubelet;
mod node_config;
mod overlay;
mod units;

use std::borrow::Cow;

use ::units::embedded;
use ::units::node_config::Artifact;
use ::units::types::{FileMode, NodeName};
use anyhow::{Result, ensure};

pub use kubeconfig::{KubeconfigUser, kubeconfig};

use crate::artifacts::KnodeSource;
use crate::cluster::{Cluster, Machine};
use crate::pki::Material;
use crate::secret::Secret;

/// Everything that one machine is given, in no language yet.
#[derive(Debug)]
pub struct NodePlan {
    /// The machine's name, its host name too.
    pub hostname: NodeName,
    /// The files in the order in which they are written: what brings knode, then
    /// node.yaml with its manifest, then all others by path.
    pub files: Vec<PlannedFile>,
    /// The unit that is enabled and started; its file is among the files.
    pub target: &'static str,
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
    /// There is key material in them.
    Secret(Secret),
}

impl PlannedFile {
    /// A file that everybody may read.
    pub fn public(path: impl Into<String>, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            path: path.into(),
            mode: FileMode::PUBLIC,
            content: Content::Public(text.into()),
        }
    }
}

impl Content {
    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Public(text) => text.as_bytes(),
            Self::Secret(secret) => secret.expose(),
        }
    }
}

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'p> {
    /// The cluster.
    pub cluster: &'p Cluster,
    /// The machine, one of the cluster's.
    pub machine: &'p Machine,
    /// Its certificates and keys.
    pub material: &'p Material,
    /// Its downloads.
    pub artifacts: &'p [Artifact],
    /// Where it finds knode.
    pub knode: &'p [KnodeSource],
}

/// Readers stop at the first file that they cannot write, and uploads are cut
/// at the end: what brings knode comes first, so that it can say so (F30).
fn rank(path: &str) -> u8 {
    match path {
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
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.push(node_config::file(parts, &files)?);
        files.sort_by(|a, b| rank(&a.path).cmp(&rank(&b.path)).then(a.path.cmp(&b.path)));
        for pair in files.windows(2) {
            ensure!(
                pair[0].path != pair[1].path,
                "{} is planned twice",
                pair[0].path
            );
        }
        Ok(Self {
            hostname: parts.machine.name.clone(),
            files,
            target: embedded::target_name(parts.machine.role),
            remote: files::knode(parts),
        })
    }

    /// The same plan with nothing secret in it, to be looked at.
    pub fn redacted(&self) -> Self {
        let files = self.files.iter().map(|file| PlannedFile {
            path: file.path.clone(),
            mode: file.mode,
            content: Content::Public(match &file.content {
                Content::Public(text) => text.clone(),
                Content::Secret(secret) => {
                    format!("(secret: {} bytes, not shown)\n", secret.len()).into()
                }
            }),
        });
        Self {
            hostname: self.hostname.clone(),
            files: files.collect(),
            target: self.target,
            remote: self.remote.clone(),
        }
    }

    /// The file of a path.
    pub fn file(&self, path: &str) -> Option<&PlannedFile> {
        self.files.iter().find(|file| file.path == path)
    }
}
