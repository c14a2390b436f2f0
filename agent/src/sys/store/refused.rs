//! The way back: which artifacts were good, and which are in the store and not
//! linked to, since they did not become healthy and gave way (B12).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Store, artifact_of, sha256};
use crate::error::{Code, Context as _, Result};
use units::paths;

/// Names what is refused, below [`paths::STATE_DIR`].
const REFUSED: &str = "refused.json";

/// Names what was good, for each program.
const PROVEN: &str = "good.json";

/// Good for one node.yaml: with another, all is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Refused {
    /// The SHA-256 of the node.yaml that wants them.
    config: String,
    /// What is refused, and what is there instead; hex of their digests.
    artifacts: BTreeMap<String, String>,
}

impl Store {
    /// What is refused while node.yaml is as it is, and what is there instead;
    /// hex of digests.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the state cannot be read.
    pub fn refused(&self) -> Result<BTreeMap<String, String>> {
        let known = self.known_refused()?;
        Ok(match known.config == self.config()? {
            true => known.artifacts,
            false => BTreeMap::new(),
        })
    }

    /// Which artifact a link leads to; none where it leads elsewhere.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: the link cannot be read.
    pub fn linked_to(&self, link: &Path) -> Result<Option<String>> {
        let target = self.root.read_link(link)?;
        Ok(target.as_deref().and_then(artifact_of))
    }

    /// Makes programs' links that lead to `bad` lead to `good`, and keeps them
    /// so until node.yaml is another; whether there was such a link. Nothing
    /// is changed where `good` lacks one of them.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: a link or the state cannot be changed.
    pub fn go_back(&self, bad: &str, good: &str) -> Result<bool> {
        let mut links = Vec::new();
        for entry in self.root.list(paths::KUBERNETES_BIN)? {
            let link = Path::new(paths::KUBERNETES_BIN).join(entry.name);
            let Some(target) = self.root.read_link(&link)? else {
                continue;
            };
            if artifact_of(&target).as_deref() != Some(bad) {
                continue;
            }
            let name = target.file_name().unwrap_or_default();
            let before = Path::new(paths::STORE).join(good).join(name);
            if !self.root.exists(&before)? {
                return Ok(false);
            }
            links.push((before, link));
        }
        if links.is_empty() {
            return Ok(false);
        }
        // First, or a knode that is killed now would link forward again.
        let config = self.config()?;
        let mut known = self.known_refused()?;
        if known.config != config {
            known = Refused {
                config,
                artifacts: BTreeMap::new(),
            };
        }
        known.artifacts.insert(bad.to_owned(), good.to_owned());
        let text = serde_json::to_vec(&known)
            .context(Code::Disk, || "putting the refused into words".to_owned())?;
        let path = Path::new(paths::STATE_DIR).join(REFUSED);
        self.root.write_atomic(path, &text, 0o644)?;
        for (before, link) in links {
            self.root.symlink_atomic(before, link)?;
        }
        Ok(true)
    }

    /// What was good last, by program; hex of digests.
    pub fn proven(&self) -> BTreeMap<String, String> {
        let path = Path::new(paths::STATE_DIR).join(PROVEN);
        let text = self.root.read(path).unwrap_or_default();
        // One that is damaged is begun anew: nothing is known to be good.
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Keeps that an artifact is good for a program; it stays in the store
    /// until another one is.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: that cannot be written.
    pub fn prove(&self, program: &str, artifact: &str) -> Result<()> {
        let mut all = self.proven();
        all.insert(program.to_owned(), artifact.to_owned());
        let text = serde_json::to_vec(&all)
            .context(Code::Disk, || "putting what is good into words".to_owned())?;
        let path = Path::new(paths::STATE_DIR).join(PROVEN);
        self.root.write_atomic(path, &text, 0o644)?;
        Ok(())
    }

    fn known_refused(&self) -> Result<Refused> {
        let path = Path::new(paths::STATE_DIR).join(REFUSED);
        let known = self.root.read_if_exists(path)?;
        // One that is damaged refuses nothing.
        let known = known.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(known.unwrap_or_default())
    }

    fn config(&self) -> Result<String> {
        let config = self.root.read_if_exists(paths::NODE_CONFIG)?;
        Ok(sha256(&config.unwrap_or_default()).hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::Root;

    #[test]
    fn links_lead_back_and_stay_until_node_yaml_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let write = |path: &str, text: &str| {
            let folder = Path::new(path).parent().unwrap();
            root.create_dir(folder, 0o755).unwrap();
            root.write_atomic(path, text.as_bytes(), 0o644).unwrap();
        };
        write(paths::NODE_CONFIG, "one");
        root.create_dir(paths::STATE_DIR, 0o700).unwrap();
        root.create_dir(paths::KUBERNETES_BIN, 0o755).unwrap();
        for (artifact, name) in [("new", "kubelet"), ("old", "kubelet"), ("new2", "etcd")] {
            write(&format!("{}/{artifact}/{name}", paths::STORE), artifact);
        }
        let link = |artifact: &str, name: &str| {
            let target = format!("{}/{artifact}/{name}", paths::STORE);
            let link = format!("{}/{name}", paths::KUBERNETES_BIN);
            root.symlink_atomic(target, link).unwrap();
        };
        link("new", "kubelet");
        link("new2", "etcd");
        let store = Store::new(root.clone());
        let kubelet = Path::new("/opt/kubernetes/bin/kubelet");

        assert!(!store.go_back("new2", "old").unwrap(), "old has no etcd");
        assert!(store.refused().unwrap().is_empty());
        assert!(store.go_back("new", "old").unwrap());
        let linked = store.linked_to(kubelet).unwrap();
        assert_eq!(linked.as_deref(), Some("old"));
        assert_eq!(store.refused().unwrap()["new"], "old");
        assert!(!store.go_back("new", "old").unwrap(), "is back already");

        store.prove("kubelet", "old").unwrap();
        store.prove("kube-proxy", "older").unwrap();
        assert_eq!(store.proven()["kubelet"], "old");

        write(paths::NODE_CONFIG, "two");
        assert!(store.refused().unwrap().is_empty());
    }
}
