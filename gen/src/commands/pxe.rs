//! What `kgen render` writes for machines that boot from the network, beside
//! the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::artifacts::KnodeSource;
use crate::budget::Target;
use crate::cluster::Mac;
use crate::out::{SECRET_MODE, Stage};
use crate::platform::Platform;
use crate::pxe::{Deployment, dnsmasq, index, ipxe, seed};
use crate::secret::Secret;
use crate::workspace::Workspace;

/// The folder of what is rendered that has it all.
const FOLDER: &str = "pxe";

/// What is made of a deployment.
#[derive(Debug)]
pub struct Pxe {
    deployment: Deployment,
    /// Checksums of the knodes that documents name, by processor.
    knode: BTreeMap<String, BTreeSet<String>>,
}

impl Pxe {
    /// Whether anything is made of it: where that is the platform, and the
    /// settings say how; documents name the knodes of `sources`.
    pub fn wanted(workspace: &Workspace, target: Target, sources: &[KnodeSource]) -> Option<Self> {
        let pxe = workspace.cluster.pxe.as_ref()?;
        if target.platform != Platform::Pxe {
            return None;
        }
        let mut knode: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in sources {
            let sums = knode.entry(source.arch.to_string()).or_default();
            sums.insert(source.sha256.clone());
        }
        Some(Self {
            deployment: Deployment::new(&workspace.cluster, pxe, target.format),
            knode,
        })
    }

    /// Puts a document, and what cloud-init asks for beside it, into the folder
    /// of every machine that boots with it.
    pub fn seed(&self, name: &str, document: &[u8], out: &Path, stage: &mut Stage) -> Result<()> {
        let d = &self.deployment;
        for machine in d.of_document(name) {
            let folder = out.join(FOLDER).join(machine.mac.hyphens());
            for (name, text) in seed::beside(&d.cluster, machine, document) {
                stage.write(folder.join(name), text, SECRET_MODE)?;
            }
            stage.write(folder.join(seed::USER_DATA), document, SECRET_MODE)?;
        }
        Ok(())
    }

    /// Scripts and configuration.
    pub fn files(&self, out: &Path) -> Result<Vec<(PathBuf, Secret)>> {
        let (d, folder) = (&self.deployment, out.join(FOLDER));
        let mut files = vec![(folder.join(ipxe::BOOT), ipxe::boot(d))];
        for machine in &d.machines {
            files.push((folder.join(ipxe::name(machine)), ipxe::own(d, machine)));
        }
        if let Some(text) = dnsmasq::configuration(d) {
            files.push((folder.join(dnsmasq::NAME), text));
        }
        let index = serde_json::to_string_pretty(&index::Index::new(d, self.knode.clone()))?;
        files.push((folder.join(index::NAME), format!("{index}\n")));
        let secret = |(path, text)| (path, Secret::from(text));
        Ok(files.into_iter().map(secret).collect())
    }

    /// Files of network cards that no machine has any more.
    pub fn gone(&self, out: &Path) -> Result<Vec<PathBuf>> {
        let folder = out.join(FOLDER);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A file where a folder should be is told when the folder is made.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", folder.display()));
            }
        };
        let mut gone = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
            let (name, path) = (entry.file_name(), entry.path());
            let stem = name.to_str().map(|n| n.strip_suffix(".ipxe").unwrap_or(n));
            let mac: Option<Mac> = stem.and_then(|stem| stem.parse().ok());
            let Some(mac) = mac.filter(|mac| stem == Some(&mac.hyphens())) else {
                continue;
            };
            if self.deployment.machines.iter().any(|m| m.mac == mac) {
                continue;
            }
            if path.is_dir() {
                let files = seed::FILES.map(|file| path.join(file));
                gone.extend(files.into_iter().filter(|file| file.exists()));
            } else {
                gone.push(path);
            }
        }
        gone.sort();
        Ok(gone)
    }
}
