//! What `kgen render` writes for Azure, beside the documents.

use std::path::{Path, PathBuf};

use anyhow::Result;
use zeroize::Zeroizing;

use super::documents::Documents;
use crate::azure::{Deployment, script, template};
use crate::budget::Target;
use crate::platform::Platform;
use crate::secret::Secret;
use crate::workspace::Workspace;

/// Documents that are kept until all are there.
#[derive(Debug)]
pub struct Azure {
    deployment: Deployment,
    documents: Documents,
}

/// Files of Azure's.
#[derive(Debug, Default)]
pub struct Files {
    /// Those that are read.
    pub files: Vec<(PathBuf, Secret)>,
    /// Those that are run.
    pub scripts: Vec<(PathBuf, Secret)>,
}

impl Azure {
    /// Whether anything is made for Azure: where it is the platform, and the
    /// settings say what of it.
    pub fn wanted(workspace: &Workspace, target: Target) -> Option<Self> {
        let azure = workspace.cluster.azure.as_ref()?;
        let wanted = target.platform == Platform::Azure;
        wanted.then(|| Self {
            deployment: Deployment::new(&workspace.cluster, azure, target.format),
            documents: Documents::default(),
        })
    }

    /// Keeps the document of a machine or pool.
    pub fn keep(&self, name: &str, document: &[u8]) -> Result<()> {
        self.documents.keep(name, document)
    }

    /// The files, once all documents are kept.
    pub fn files(self, out: &Path) -> Result<Files> {
        let documents = self.documents.all()?;
        let d = &self.deployment;
        // As text the az command reads nothing else unchanged.
        let plain = |bytes: &Zeroizing<Vec<u8>>| bytes.iter().all(|b| b.is_ascii() && *b != b'\r');
        let plain = documents.values().all(plain);
        let folder = out.join("azure");
        let template = template::template(d)?;
        let parameters = template::parameters(d, &documents)?;
        Ok(Files {
            files: vec![
                (folder.join("template.json"), Secret::from(template)),
                (
                    folder.join("parameters.json"),
                    Secret::new(parameters.as_bytes().to_vec()),
                ),
            ],
            scripts: vec![
                (folder.join("up"), Secret::from(script::up(d, plain))),
                (folder.join("down"), Secret::from(script::down(d))),
            ],
        })
    }
}
