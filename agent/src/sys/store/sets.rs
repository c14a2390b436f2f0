//! Which artifacts are kept: those of this node.yaml, those of the last one
//! that was complete, and whatever is in use; the others are collected.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Store;
use crate::error::{Code, Context as _, Result};
use units::node_config::Artifact;
use units::paths;

/// Names what is kept, below [`paths::STATE_DIR`].
const SETS: &str = "store.json";
/// Folders with links into the store, whatever node.yaml says now.
const LINKS: [&str; 2] = [paths::KUBERNETES_BIN, paths::CNI_BIN];

/// Artifacts by the hex of their digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sets {
    /// Of the last node.yaml whose artifacts were all in place.
    current: BTreeSet<String>,
    /// Of the one before that: the way back.
    #[serde(default)]
    previous: BTreeSet<String>,
}

impl Sets {
    /// The sets once `wanted` is in place.
    fn then(self, wanted: BTreeSet<String>) -> Self {
        if wanted == self.current {
            return self;
        }
        Self {
            current: wanted,
            previous: self.current,
        }
    }
}

impl Store {
    /// Says that all of these are in place, and removes what is neither among
    /// them, nor among those before them, nor led to by a link, nor run by a
    /// process. Returns what was removed. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: something cannot be read or removed; when in doubt
    /// nothing is.
    pub fn collect(&self, artifacts: &[Artifact]) -> Result<Vec<String>> {
        let path = Path::new(paths::STATE_DIR).join(SETS);
        let known: Sets = self
            .root
            .read_if_exists(&path)?
            // One that is damaged is begun anew: links and processes still hold.
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let wanted = artifacts.iter().map(|a| a.digest.hex()).collect();
        let sets = known.then(wanted);
        let text = serde_json::to_vec(&sets)
            .context(Code::Disk, || "putting the sets into words".to_owned())?;
        self.root.create_dir(paths::STATE_DIR, 0o700)?;
        self.root.write_atomic(&path, &text, 0o644)?;

        let mut kept: BTreeSet<String> = sets.current.union(&sets.previous).cloned().collect();
        kept.extend(self.proven().into_values());
        kept.extend(self.linked(artifacts)?);
        kept.extend(self.running()?);
        let mut removed = Vec::new();
        for entry in self.root.list(paths::STORE)? {
            let name = entry.name.to_string_lossy().into_owned();
            // Hidden ones are unfinished work.
            if name.starts_with('.') || kept.contains(&name) {
                continue;
            }
            let gone = Path::new(paths::STORE).join(&entry.name);
            if self.root.remove_tree(gone)?.is_changed() {
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// What links lead to.
    fn linked(&self, artifacts: &[Artifact]) -> Result<BTreeSet<String>> {
        let files = artifacts.iter().flat_map(|artifact| &artifact.files);
        let mut folders: BTreeSet<&Path> =
            files.filter_map(|f| Path::new(&f.path).parent()).collect();
        folders.extend(LINKS.map(Path::new));
        let mut linked = BTreeSet::new();
        for folder in folders {
            if !self.root.exists(folder)? {
                continue;
            }
            for entry in self.root.list(folder)? {
                let target = self.root.read_link(folder.join(entry.name))?;
                linked.extend(target.as_deref().and_then(artifact_of));
            }
        }
        Ok(linked)
    }

    /// What processes run. A process that ends while it is looked at is none.
    fn running(&self) -> Result<BTreeSet<String>> {
        if !self.root.exists("/proc")? {
            return Ok(BTreeSet::new());
        }
        let processes = self.root.list("/proc")?.into_iter().filter(|entry| {
            let name = entry.name.as_encoded_bytes();
            name.iter().all(u8::is_ascii_digit)
        });
        let mut running = BTreeSet::new();
        for process in processes {
            let exe = Path::new("/proc").join(process.name).join("exe");
            match self.root.read_link(exe) {
                Ok(program) => running.extend(program.as_deref().and_then(artifact_of)),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(error.into());
                }
                // It ended just now.
                Err(_) => {}
            }
        }
        Ok(running)
    }
}

/// The hex of the artifact that a path in the store belongs to.
pub fn artifact_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(paths::STORE).ok()?;
    let name = below.components().next()?.as_os_str().to_str()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_last_complete_set_is_the_way_back_however_often_the_new_one_is_seen() {
        let sets = Sets::default().then(set(&["a", "b"]));
        assert_eq!(sets.previous, set(&[]));
        let sets = sets.then(set(&["b", "c"])).then(set(&["b", "c"]));
        assert_eq!(sets.current, set(&["b", "c"]));
        assert_eq!(sets.previous, set(&["a", "b"]));
    }

    #[test]
    fn a_path_in_the_store_names_its_artifact() {
        let name = |path| artifact_of(Path::new(path));
        assert_eq!(name("/opt/knode/store/ab12/kubelet"), Some("ab12".into()));
        // The kernel's word for a program whose file was replaced.
        assert_eq!(
            name("/opt/knode/store/ab12/x (deleted)"),
            Some("ab12".into())
        );
        assert_eq!(name("/opt/kubernetes/bin/kubelet"), None);
    }
}
