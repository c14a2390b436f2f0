//! What was applied last, kept over restarts and reboots in
//! `/var/lib/knode/applied.json`: the document's files, and what each service
//! read at its start. There are digests in it and no contents.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::inputs::Inputs;
use crate::error::{Code, Context as _, Result};
use crate::sys::root::Root;
use units::node_config::Service;
use units::paths;

/// Below [`paths::STATE_DIR`].
const FILE: &str = "/var/lib/knode/applied.json";

/// What was applied last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Applied {
    /// The document's files, by path: the hex of their digests.
    pub files: BTreeMap<String, String>,
    /// Links into the store, for artifacts.
    pub links: BTreeSet<String>,
    /// The services that systemd runs for knode, and what they read at their
    /// start.
    pub services: BTreeMap<Service, Inputs>,
    /// The same of those in static pods.
    pub pods: BTreeMap<Service, Inputs>,
}

/// What was applied last; nothing where that is not known.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn read(root: &Root) -> Result<Applied> {
    let text = root.read_if_exists(FILE)?;
    // One that is damaged is begun anew: what runs is taken to be as it should.
    let known = text.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(known.unwrap_or_default())
}

/// Changes what is kept, as a whole.
///
/// # Errors
///
/// [`Code::Disk`], [`Code::DiskFull`].
pub fn change(root: &Root, change: impl FnOnce(&mut Applied)) -> Result<()> {
    let mut applied = read(root)?;
    change(&mut applied);
    let text = serde_json::to_vec(&applied)
        .context(Code::Disk, || "putting what was applied into words".into())?;
    if !root.exists(paths::STATE_DIR)? {
        root.create_dir(paths::STATE_DIR, 0o700)?;
    }
    root.write_atomic(FILE, &text, 0o600)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_begun_anew_where_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(read(&root).unwrap(), Applied::default());
        let inputs = Inputs::from([(paths::KUBELET_CONFIG.to_owned(), "ab".to_owned())]);
        change(&root, |applied| {
            applied.services.insert(Service::Kubelet, inputs.clone());
        })
        .unwrap();
        change(&root, |applied| {
            applied.links.insert("/opt/cni/bin/bridge".to_owned());
        })
        .unwrap();
        let known = read(&root).unwrap();
        assert_eq!(known.services[&Service::Kubelet], inputs);
        assert_eq!(known.links.len(), 1);
        assert_eq!(root.stat(FILE).unwrap().unwrap().mode, 0o600);
        root.write_atomic(FILE, b"{\"files\": ", 0o600).unwrap();
        assert_eq!(read(&root).unwrap(), Applied::default());
    }
}
