//! A document that was tried and did not become healthy: remembered by the
//! SHA-256 of its node.yaml, in `/var/lib/knode/refused-config.json`, for as
//! long as no other is delivered. Wherever it turns up again, as at each boot
//! that writes the user-data anew, the last good one is put back (B12).

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::applied;
use super::good::{self, Good};
use super::inputs;
use super::way_back::{self, Difference};
use crate::document;
use crate::error::{Code, Context as _, Error, Result};
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::NodeConfig;
use units::node_config::{ManifestEntry, Service};
use units::paths;

/// Below [`paths::STATE_DIR`].
const FILE: &str = "/var/lib/knode/refused-config.json";

/// A document that was refused. There are digests in it and no contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The SHA-256 of its node.yaml, in hexadecimal.
    config: String,
    /// The same of the one that is there instead.
    good: String,
    /// The service that did not become healthy.
    service: Service,
    /// What differs between the two.
    files: Difference,
    /// When the good node.yaml was written, in nanoseconds since 1970: at
    /// another time it was somebody else.
    written: Option<u64>,
}

/// What is to be made of the node.yaml that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// It may be applied; nothing is refused.
    Free,
    /// It is neither the refused one nor the one that is there instead: once it
    /// is taken, the refusal is over.
    Other,
    /// The good one is there instead of the refused one; the flag says whether
    /// a file of it had to be put back.
    Holds(Box<Refusal>, bool),
}

impl Refusal {
    /// What is told for as long as it stands.
    pub fn told(&self) -> Error {
        let short = |digest: &str| digest.chars().take(12).collect::<String>();
        let text = format!(
            "{} did not become healthy with node.yaml {}; the one before it ({}) is back",
            self.service,
            short(&self.config),
            short(&self.good)
        );
        Error::new(Code::RolledBack, text)
    }
}

/// Refuses the document of `bad`, whose node.yaml has the digest `digest`; the
/// next look at node.yaml ([`look`]) puts `good` back.
///
/// # Errors
///
/// [`Code::ConfigAltered`]: the good copy is damaged, and nothing is refused;
/// [`Code::Disk`], [`Code::DiskFull`].
pub fn refuse(
    root: &Root,
    service: Service,
    good: &Good,
    (digest, bad): (&str, &NodeConfig),
) -> Result<Refusal> {
    let files = way_back::differing(&good.config, bad);
    good.holds(root, files.keys())?;
    let refusal = Refusal {
        config: digest.to_owned(),
        good: good.digest.clone(),
        service,
        files,
        written: None,
    };
    keep(root, &refusal)?;
    Ok(refusal)
}

/// Looks at node.yaml, which has this digest, and puts the good document back
/// where the refused one is there again, or files of it are. Safe to be killed
/// anywhere: node.yaml comes last.
///
/// # Errors
///
/// [`Code::Disk`], [`Code::DiskFull`]: the next look goes on with it.
pub fn look(root: &Root, digest: &str) -> Result<Stand> {
    let Some(mut refusal) = read(root)? else {
        return Ok(Stand::Free);
    };
    let good = good::read(root)?.filter(|good| good.digest == refusal.good);
    let Some(good) = good.filter(|good| good.holds(root, refusal.files.keys()).is_ok()) else {
        tracing::warn!("the good document is damaged or gone: none is refused any more");
        forget(root)?;
        return Ok(Stand::Free);
    };
    let changed = if digest == refusal.config {
        let changed = put_back(root, &refusal, &good, true)?;
        let mode = root.stat(paths::NODE_CONFIG)?.map_or(0o600, |s| s.mode);
        root.write_atomic(paths::NODE_CONFIG, good.text.as_bytes(), mode)?;
        refusal.written = written(root)?;
        keep(root, &refusal)?;
        tracing::warn!(config = refusal.good, "the last good document is put back");
        changed
    } else if digest == refusal.good {
        let now = written(root)?;
        match refusal.written {
            Some(_) if refusal.written != now => {
                tracing::info!("the good document was delivered; nothing is refused any more");
                forget(root)?;
                return Ok(Stand::Free);
            }
            Some(_) => {}
            // Killed before that was kept.
            None => {
                refusal.written = now;
                keep(root, &refusal)?;
            }
        }
        put_back(root, &refusal, &good, false)?
    } else {
        return Ok(Stand::Other);
    };
    Ok(Stand::Holds(Box::new(refusal), changed))
}

/// The refusal is over; every document is tried.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn forget(root: &Root) -> Result<()> {
    root.remove(FILE)?;
    Ok(())
}

/// Puts back what differs: all of it, or only what is as the refused document
/// has it, which a boot wrote again. Says whether anything had to be.
fn put_back(root: &Root, refusal: &Refusal, good: &Good, all: bool) -> Result<bool> {
    let mut wanted = Vec::new();
    for (path, bad) in &refusal.files {
        let there = root.read_if_exists(path)?.map(|b| sha256(&b).hex());
        let delivered = there.is_some() && there.as_ref() == bad.as_ref();
        let entry = good.entry(path);
        let wrong = match entry {
            Some(entry) => (all || delivered) && document::intact(root, entry).is_err(),
            // Whoever else changed it keeps it, as with all that is removed.
            None => delivered,
        };
        if wrong {
            wanted.push(Wanted { path, bad, entry });
        }
    }
    if wanted.is_empty() {
        return Ok(false);
    }
    // Whoever may have read it at its start is to read it anew; and what the good
    // document lacks is removed in the usual way too, which tells systemd.
    applied::change(root, |applied| {
        let readers = applied.services.values_mut();
        for inputs in readers.chain(applied.pods.values_mut()) {
            note(inputs, &wanted);
        }
        for one in wanted.iter().filter(|one| one.entry.is_none()) {
            if let Some(bad) = one.bad {
                applied.files.insert(one.path.to_owned(), bad.clone());
            }
        }
    })?;
    for Wanted { path, entry, .. } in &wanted {
        let Some(entry) = entry else {
            root.remove(path)?;
            continue;
        };
        if let Some(folder) = Path::new(path).parent()
            && !root.exists(folder)?
        {
            root.create_dir(folder, 0o755)?;
        }
        root.write_atomic(path, &good.content(root, entry)?, entry.mode.bits())?;
    }
    Ok(true)
}

/// A file that is not as the good document has it.
struct Wanted<'a> {
    path: &'a str,
    /// The hex of its digest in the refused document, if that has it.
    bad: &'a Option<String>,
    /// The same file of the good document, if that has it.
    entry: Option<&'a ManifestEntry>,
}

/// Has a service's inputs say that it read what the refused document had.
fn note(inputs: &mut inputs::Inputs, wanted: &[Wanted<'_>]) {
    for Wanted { path, bad, .. } in wanted {
        if inputs.contains_key(*path) {
            match bad {
                Some(bad) => inputs.insert((*path).to_owned(), bad.clone()),
                None => inputs.remove(*path),
            };
        }
    }
}

/// When node.yaml was written.
fn written(root: &Root) -> Result<Option<u64>> {
    let stat = root.stat(paths::NODE_CONFIG)?;
    let since = stat.and_then(|stat| stat.modified.duration_since(UNIX_EPOCH).ok());
    Ok(since.and_then(|since| u64::try_from(since.as_nanos()).ok()))
}

fn read(root: &Root) -> Result<Option<Refusal>> {
    let text = root.read_if_exists(FILE)?;
    // One that is damaged refuses nothing.
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

fn keep(root: &Root, refusal: &Refusal) -> Result<()> {
    let doing = || "putting what is refused into words".to_owned();
    let text = serde_json::to_vec(refusal).context(Code::Disk, doing)?;
    root.write_atomic(FILE, &text, 0o600)?;
    Ok(())
}

#[cfg(test)]
mod tests;
