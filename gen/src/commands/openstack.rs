//! What `kgen render` writes for OpenStack, beside the documents.

use std::path::Path;

use anyhow::Result;

use super::azure::Files;
use super::documents::Documents;
use crate::budget::Target;
use crate::openstack::{Deployment, script, template};
use crate::platform::Platform;
use crate::secret::Secret;
use crate::workspace::Workspace;

/// Documents that are kept until all are there.
#[derive(Debug)]
pub struct Openstack {
    deployment: Deployment,
    documents: Documents,
}

impl Openstack {
    /// Whether anything is made for OpenStack: where it is the platform, and the
    /// settings say what of it.
    pub fn wanted(workspace: &Workspace, target: Target) -> Option<Self> {
        let openstack = workspace.cluster.openstack.as_ref()?;
        let wanted = target.platform == Platform::Openstack;
        wanted.then(|| Self {
            deployment: Deployment::new(&workspace.cluster, openstack, target.format),
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
        let folder = out.join("openstack");
        let template = template::template(d)?;
        let environment = template::environment(d, &documents)?;
        let refused = template::refused(d, &template, &environment);
        let up = script::up(d, refused.as_deref());
        Ok(Files {
            files: vec![
                (folder.join("stack.yaml"), Secret::from(template)),
                (
                    folder.join("environment.yaml"),
                    Secret::new(environment.as_bytes().to_vec()),
                ),
            ],
            scripts: vec![
                (folder.join("up"), Secret::from(up)),
                (folder.join("down"), Secret::from(script::down(d))),
            ],
        })
    }
}
