//! What there is to serve, for `kgen serve`: a file beside the scripts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Deployment;

/// The file's name.
pub const NAME: &str = "machines.json";
/// The version that is written, and read.
const VERSION: u32 = 1;

/// What there is to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The form of this file.
    pub version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Where machines look for everything but their documents.
    pub server: String,
    /// Where they look for those.
    pub documents: String,
    /// Files that machines boot: kernels and initrds.
    pub boot: Vec<String>,
    /// The checksums of the knodes that documents name, SHA-256 in hexadecimal,
    /// by processor; none in what an older kgen wrote.
    #[serde(default)]
    pub knode: BTreeMap<String, BTreeSet<String>>,
    /// The machines.
    pub machines: Vec<Known>,
}

/// A machine that there are files for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Its network card, with colons.
    pub mac: String,
}

impl Index {
    /// What there is to serve of a deployment whose documents name these knodes.
    pub fn new(d: &Deployment, knode: BTreeMap<String, BTreeSet<String>>) -> Self {
        let files = d.machines.iter().flat_map(|m| [&m.kernel, &m.initrd]);
        let mut boot: Vec<String> = files.cloned().collect();
        boot.sort();
        boot.dedup();
        let machines = d.machines.iter().map(|m| Known {
            name: m.name.clone(),
            mac: m.mac.to_string(),
        });
        Self {
            version: VERSION,
            cluster: d.cluster.clone(),
            server: d.server.to_string(),
            documents: d.documents.to_string(),
            boot,
            knode,
            machines: machines.collect(),
        }
    }

    /// Whether this kgen reads this form.
    pub fn is_known(&self) -> bool {
        self.version == VERSION
    }
}
