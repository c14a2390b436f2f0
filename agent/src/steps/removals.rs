//! What an earlier node.yaml brought and this one does not goes: services are
//! stopped, files and links removed.

use std::path::Path;

use futures_util::future::BoxFuture;

use super::{Lasting, name, services};
use crate::changes::removals::{self, is_ours, links, plan};
use crate::changes::{applied, inputs};
use crate::error::{Code, Context as _, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::bus::{self, Bus};
use crate::sys::root::Root;
use crate::sys::store::{Store, sha256};

pub struct Removals {
    lasting: Lasting,
}

impl Removals {
    /// `lasting` holds what an earlier node.yaml had.
    pub fn new(lasting: Lasting) -> Self {
        Self { lasting }
    }
}

impl Step<Machine> for Removals {
    fn name(&self) -> &'static str {
        name::REMOVALS
    }

    /// A document that was cut says of much that it is not there: first it is
    /// known to be whole.
    fn after(&self) -> &[&'static str] {
        &[name::IDENTITY]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let (root, config) = (&machine.root, &machine.config);
            let mut told = Vec::new();
            if config.balancer.is_none() && self.lasting.balancer.end(machine) {
                told.push("the balancer".to_owned());
            }
            let plan = plan(&applied::read(root)?, config);
            if plan != removals::Removals::default() {
                told.extend(remove(root, &plan).await?);
            }
            applied::change(root, |applied| {
                let entries = config.manifest.iter();
                applied.files = entries.map(|e| (e.path.clone(), e.digest.hex())).collect();
                applied.links = links(config);
                let runs = |service: &_, _: &mut _| config.services.contains(service);
                applied.services.retain(runs);
                let in_pod = |service: &_, _: &mut _| config.static_pods.contains(service);
                applied.pods.retain(in_pod);
            })?;
            Ok(match told.as_slice() {
                [] => "nothing to remove".to_owned(),
                told => {
                    let told = format!("removed {}", told.join(", "));
                    tracing::info!(step = name::REMOVALS, "{told}");
                    told
                }
            })
        })
    }
}

/// Stops first, so that nothing runs without its files.
async fn remove(root: &Root, plan: &removals::Removals) -> Result<Vec<String>> {
    let mut told = Vec::new();
    let units: Vec<&str> = plan
        .services
        .iter()
        .map(|service| service.unit())
        .chain(plan.units.iter().map(String::as_str))
        .collect();
    let for_systemd = plan.files.iter().any(|(p, _)| inputs::is_for_systemd(p));
    if !units.is_empty() || for_systemd {
        let bus = services::connect().await?;
        for unit in units {
            if stop(&bus, unit).await? {
                told.push(unit.to_owned());
            }
        }
        for (path, digest) in &plan.files {
            told.extend(remove_file(root, path, digest)?);
        }
        if for_systemd {
            let doing = || "reloading systemd".to_owned();
            bus.daemon_reload().await.context(Code::Bus, doing)?;
        }
    } else {
        for (path, digest) in &plan.files {
            told.extend(remove_file(root, path, digest)?);
        }
    }
    let store = Store::new(root.clone());
    for link in &plan.links {
        // One that leads elsewhere is not ours.
        if store.linked_to(Path::new(link))?.is_some() {
            root.remove(link)?;
            told.push(link.clone());
        }
    }
    Ok(told)
}

/// Stops a unit and starts it no more at boot; says whether it ran.
pub(crate) async fn stop(bus: &Bus, unit: &str) -> Result<bool> {
    let stopping = || format!("stopping {unit}");
    let state = bus.unit(unit).await.context(Code::Bus, stopping)?;
    let ran = !matches!(state.active.as_str(), "inactive" | "failed");
    match bus.stop(unit).await {
        Ok(()) | Err(bus::Error::NoSuchUnit(_)) => {}
        Err(error @ bus::Error::JobFailed { .. }) => {
            return Err(error).context(Code::UnitFailed, stopping);
        }
        Err(error) => return Err(error).context(Code::Bus, stopping),
    }
    if matches!(state.unit_file.as_str(), "enabled" | "enabled-runtime") {
        let disabling = || format!("disabling {unit}");
        bus.disable(unit).await.context(Code::Bus, disabling)?;
    }
    Ok(ran)
}

/// Removes a file of the document; what somebody else made of one of theirs is
/// left.
pub(crate) fn remove_file(root: &Root, path: &str, digest: &str) -> Result<Option<String>> {
    let Some(bytes) = root.read_if_exists(path)? else {
        return Ok(None);
    };
    if !is_ours(path) && sha256(&bytes).hex() != digest {
        tracing::warn!(
            step = name::REMOVALS,
            "{path} is no longer of the document, but somebody changed it: it is left"
        );
        return Ok(None);
    }
    root.remove(path)?;
    Ok(Some(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;
    use units::NodeConfig;

    #[tokio::test]
    async fn files_and_links_go_and_what_others_changed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let sample = include_str!("../../../units/testdata/node-v1.yaml");
        let mut config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        config.services.clear();
        let write = |path: &str, text: &str| {
            let parent = Path::new(path).parent().unwrap();
            root.create_dir(parent, 0o755).unwrap();
            root.write_atomic(path, text.as_bytes(), 0o644).unwrap();
        };
        let ours = "/etc/kubernetes/manifests/kube-scheduler.yaml";
        write(ours, "renewed");
        write("/etc/motd", "as it was");
        write("/etc/issue", "another");
        root.create_dir("/opt/kubernetes/bin", 0o755).unwrap();
        let link = "/opt/kubernetes/bin/kubectl";
        root.symlink_atomic("/opt/knode/store/ab/kubectl", link)
            .unwrap();
        let theirs = "/opt/kubernetes/bin/mine";
        root.symlink_atomic("/usr/bin/mine", theirs).unwrap();
        applied::change(&root, |applied| {
            for path in [ours, "/etc/motd", "/etc/issue", "/etc/gone"] {
                let digest = sha256(b"as it was").hex();
                applied.files.insert(path.to_owned(), digest);
            }
            applied.links = [link, theirs].map(str::to_owned).into();
        })
        .unwrap();
        let name = config.node.name.clone().unwrap();
        let status = Status::new(root.clone(), [name::REMOVALS]);
        let machine = Machine::new(config, name, root.clone(), status);
        let step = Removals::new(Lasting::default());
        let told = step.converge(&machine).await.unwrap();
        assert_eq!(told, format!("removed {ours}, /etc/motd, {link}"));
        assert!(!root.exists(ours).unwrap() && root.exists("/etc/issue").unwrap());
        assert!(root.read_link(link).unwrap().is_none());
        assert!(root.read_link(theirs).unwrap().is_some());
        let told = step.converge(&machine).await.unwrap();
        assert_eq!(told, "nothing to remove");
        let known = applied::read(&root).unwrap();
        assert_eq!(known.files.len(), machine.config.manifest.len());
        assert_eq!(known.links, links(&machine.config));
    }
}
