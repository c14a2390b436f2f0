//! Is everything here that the user-data brought, and is this machine who it
//! says it is? (F6, F7, F24, F30)

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::name;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::api::Kubeconfig;
use crate::sys::pki::{self, Facts};
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::node_config::{ManifestEntry, Service};
use units::paths;

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
            let facts = kubelet_certificate(machine)?;
            let expected = format!("system:node:{}", machine.config.node.name);
            judge(&facts, &expected, now)?;
            let days = (facts.not_after - now).whole_days();
            Ok(format!("{files} files intact, {expected} for {days} days"))
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

fn kubelet_certificate(machine: &Machine) -> Result<Facts> {
    let kubeconfig = Kubeconfig::parse(&machine.root.read_to_string(paths::KUBELET_KUBECONFIG)?)?;
    let authority = machine.root.read(paths::CA_CERT)?;
    let what = format!("the certificate in {}", paths::KUBELET_KUBECONFIG);
    pki::inspect(&what, &kubeconfig.certificate, &authority)
}

/// Is it for this node, and valid now?
fn judge(facts: &Facts, expected: &str, now: OffsetDateTime) -> Result<()> {
    if facts.common_name != expected {
        return Err(Error::new(
            Code::IdentityCert,
            format!(
                "the kubelet's certificate is for {:?}, this node is {expected:?}",
                facts.common_name
            ),
        ));
    }
    if now < facts.not_before {
        let behind = facts.not_before - now;
        return Err(Error::new(
            Code::Clock,
            format!(
                "the clock says {}, at least {} h {} min before the kubelet's certificate begins",
                now.date(),
                behind.whole_hours(),
                behind.whole_minutes() % 60
            ),
        ));
    }
    if now > facts.not_after {
        return Err(Error::new(
            Code::IdentityCert,
            format!(
                "the kubelet's certificate expired on {}",
                facts.not_after.date()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn wrong_name_wrong_clock_and_expiry_are_told_apart() {
        let facts = Facts {
            common_name: "system:node:a".to_owned(),
            not_before: datetime!(2026-01-01 12:00 UTC),
            not_after: datetime!(2027-01-01 12:00 UTC),
        };
        let judge = |name: &str, now| judge(&facts, name, now).map_err(|e| (e.code(), e.story()));
        assert_eq!(
            judge("system:node:a", datetime!(2026-06-01 0:00 UTC)),
            Ok(())
        );
        let (code, _) = judge("system:node:b", datetime!(2026-06-01 0:00 UTC)).unwrap_err();
        assert_eq!(code, Code::IdentityCert);
        let (code, story) = judge("system:node:a", datetime!(2026-01-01 8:48 UTC)).unwrap_err();
        assert_eq!(code, Code::Clock);
        assert!(story.contains("3 h 12 min"), "{story}");
        let (code, story) = judge("system:node:a", datetime!(2027-06-01 0:00 UTC)).unwrap_err();
        assert_eq!(code, Code::IdentityCert);
        assert!(story.contains("expired on 2027-01-01"), "{story}");
    }
}
