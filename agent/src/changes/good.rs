//! The last document with which the machine was healthy, kept below
//! `/var/lib/knode/good/` (0700): node.yaml, and those of its files that may
//! come back ([`way_back::goes_back`]). There is no certificate, key or
//! kubeconfig among them, so what the machine renewed stays as it is.
//!
//! Each document has a folder of its own, named by the SHA-256 of its
//! node.yaml, with the files by theirs; `current` links to the one that
//! counts. Whoever is killed in between leaves the one before it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::way_back;
use crate::document;
use crate::error::{Code, Context as _, Error, Result};
use crate::run;
use crate::sys::root::{Kind, Root};
use crate::sys::store::sha256;
use units::NodeConfig;
use units::node_config::{ManifestEntry, Service};
use units::paths;

/// Where documents are kept.
const FOLDER: &str = "/var/lib/knode/good";
/// Links to the one that counts.
const CURRENT: &str = "current";
/// Which service was healthy with which document.
const PROVEN: &str = "/var/lib/knode/good-config.json";
/// node.yaml in its folder.
const NODE: &str = "node.yaml";

/// The last good document.
#[derive(Debug, Clone)]
pub struct Good {
    /// The SHA-256 of its node.yaml, in hexadecimal.
    pub digest: String,
    /// Its node.yaml, as it was written.
    pub text: String,
    /// What that says of this machine.
    pub config: NodeConfig,
}

/// Keeps the document that is there, if it is the one of `config` and another
/// than the one that is kept; whether it was. Waits for the disk.
///
/// # Errors
///
/// [`Code::ConfigAltered`]: it is not whole; [`Code::Disk`],
/// [`Code::DiskFull`]: the one before it is still kept.
pub fn keep(root: &Root, config: &NodeConfig) -> Result<bool> {
    let text = root.read_to_string(paths::NODE_CONFIG)?;
    let digest = sha256(text.as_bytes()).hex();
    if run::understand(root, &text, paths::NODE_CONFIG)?.1 != *config {
        // Another one is on its way.
        return Ok(false);
    }
    if read(root)?.is_some_and(|good| good.digest == digest) {
        return Ok(false);
    }
    document::whole(root, &config.manifest)?;
    if !root.exists(paths::STATE_DIR)? {
        root.create_dir(paths::STATE_DIR, 0o700)?;
    }
    let folder = Path::new(FOLDER).join(&digest);
    root.create_dir(FOLDER, 0o700)?;
    root.create_dir(&folder, 0o700)?;
    for entry in &config.manifest {
        if !way_back::goes_back(&entry.path) {
            continue;
        }
        let bytes = root.read(&entry.path)?;
        if sha256(&bytes) != entry.digest {
            let text = format!("{} was changed while it was copied", entry.path);
            return Err(Error::new(Code::ConfigAltered, text));
        }
        root.write_atomic(folder.join(entry.digest.hex()), &bytes, 0o600)?;
    }
    root.write_atomic(folder.join(NODE), text.as_bytes(), 0o600)?;
    root.symlink_atomic(&digest, Path::new(FOLDER).join(CURRENT))?;
    for entry in root.list(FOLDER)? {
        if entry.name != *digest && entry.name != CURRENT {
            let path = Path::new(FOLDER).join(&entry.name);
            match root.stat(&path)?.is_some_and(|stat| stat.kind == Kind::Dir) {
                true => root.remove_tree(path)?,
                false => root.remove(path)?,
            };
        }
    }
    Ok(true)
}

/// The last good document; none where there is none, or it is damaged, or says
/// nothing of a machine with this host name.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn read(root: &Root) -> Result<Option<Good>> {
    let Some(target) = root.read_link(Path::new(FOLDER).join(CURRENT))? else {
        return Ok(None);
    };
    let Some(digest) = target.file_name().and_then(|name| name.to_str()) else {
        return Ok(None);
    };
    let text = root.read_if_exists(folder(digest).join(NODE))?;
    let Some(text) = text.filter(|text| sha256(text).hex() == digest) else {
        return Ok(None);
    };
    let text = String::from_utf8(text).unwrap_or_default();
    let config = match run::understand(root, &text, "the last good node.yaml") {
        Ok((_, config)) => config,
        Err(error) => {
            tracing::debug!(code = %error.code(), "{}", error.story());
            return Ok(None);
        }
    };
    Ok(Some(Good {
        digest: digest.to_owned(),
        text,
        config,
    }))
}

/// With which document each service was healthy last: the SHA-256 of its
/// node.yaml, in hexadecimal. So a service that fails much later is not held
/// against a document that, for another reason, never became good.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn proven(root: &Root) -> Result<BTreeMap<Service, String>> {
    let text = root.read_if_exists(PROVEN)?;
    // One that is damaged is begun anew.
    let known = text.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(known.unwrap_or_default())
}

/// Keeps that a service is healthy with the document of this node.yaml.
///
/// # Errors
///
/// [`Code::Disk`], [`Code::DiskFull`].
pub fn prove(root: &Root, service: Service, digest: &str) -> Result<()> {
    let mut all = proven(root)?;
    all.insert(service, digest.to_owned());
    let doing = || "putting what is good into words".to_owned();
    let text = serde_json::to_vec(&all).context(Code::Disk, doing)?;
    if !root.exists(paths::STATE_DIR)? {
        root.create_dir(paths::STATE_DIR, 0o700)?;
    }
    root.write_atomic(PROVEN, &text, 0o600)?;
    Ok(())
}

fn folder(digest: &str) -> PathBuf {
    Path::new(FOLDER).join(digest)
}

impl Good {
    /// A file of it.
    pub fn entry(&self, path: &str) -> Option<&ManifestEntry> {
        self.config.manifest.iter().find(|entry| entry.path == path)
    }

    /// Whether what it has of these paths is there, and as it was.
    ///
    /// # Errors
    ///
    /// As [`Good::content`], of the first that is not.
    pub fn holds<'p>(&self, root: &Root, paths: impl Iterator<Item = &'p String>) -> Result<()> {
        for entry in paths.filter_map(|path| self.entry(path)) {
            self.content(root, entry)?;
        }
        Ok(())
    }

    /// What a file of it holds.
    ///
    /// # Errors
    ///
    /// [`Code::ConfigAltered`]: the copy is damaged; [`Code::Disk`].
    pub fn content(&self, root: &Root, entry: &ManifestEntry) -> Result<Vec<u8>> {
        let bytes = root.read_if_exists(folder(&self.digest).join(entry.digest.hex()))?;
        let bytes = bytes.filter(|bytes| sha256(bytes) == entry.digest);
        bytes.ok_or_else(|| {
            let text = format!("the good copy of {} is damaged", entry.path);
            Error::new(Code::ConfigAltered, text)
        })
    }
}
