//! Is everything here that the user-data brought, and is this machine who it
//! says it is? (F6, F7, F24, F30)

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::name;
use crate::credentials;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::node_config::{ManifestEntry, Service};

pub struct Identity;

impl Step<Machine> for Identity {
    fn name(&self) -> &'static str {
        name::IDENTITY
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            for entry in &machine.config.manifest {
                intact(&machine.root, entry)?;
            }
            let files = machine.config.manifest.len();
            if !machine.runs(Service::Kubelet) {
                return Ok(format!("{files} files intact"));
            }
            let now = OffsetDateTime::now_utc();
            let facts = credentials::kubelet(&machine.root, &machine.config.node.name, now)?.facts;
            let days = (facts.not_after - now).whole_days();
            let name = facts.common_name;
            Ok(format!("{files} files intact, {name} for {days} days"))
        })
    }
}

/// Whether a file is as kgen wrote it.
fn intact(root: &Root, entry: &ManifestEntry) -> Result<()> {
    let altered = |how: String| Error::new(Code::ConfigAltered, format!("{} {how}", entry.path));
    let bytes = root
        .read_if_exists(&entry.path)?
        .ok_or_else(|| altered("is missing".to_owned()))?;
    let mode = root.stat(&entry.path)?.map_or(0, |stat| stat.mode);
    if mode & 0o7777 != entry.mode.bits() {
        return Err(altered(format!(
            "has mode {:04o}, not {}",
            mode & 0o7777,
            entry.mode
        )));
    }
    if sha256(&bytes) != entry.digest {
        return Err(altered(format!(
            "is not as it was generated ({} bytes)",
            bytes.len()
        )));
    }
    Ok(())
}
