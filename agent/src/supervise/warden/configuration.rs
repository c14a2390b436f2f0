//! The way back of a whole document: one with which a service does not become
//! healthy, though it was with the one before it, gives way to that one (B12).
//! Which may is decided in [`crate::changes::way_back`]; whoever follows
//! node.yaml puts it back.

use super::Warden;
use super::repair::at;
use crate::changes::{applied, good, inputs, refusal, way_back};
use crate::error::Result;
use crate::machine::Machine;
use crate::run;
use crate::status::{Report, State};
use crate::supervise::crash::Crashes;
use crate::supervise::order;
use crate::supervise::way_back::{PROVEN, link};
use crate::sys::store::{Store, sha256};
use units::node_config::Service;
use units::paths;

/// The steps without which nothing is held against a document: its programs are
/// there, and the machine is who it should be.
const NEEDED: [&str; 2] = ["identity", "fetch"];

impl Warden {
    /// A document that has had its time gives way to the last good one.
    pub(super) async fn consider_document(&mut self, well: bool) {
        if !way_back::SERVICES.contains(&self.service) {
            return;
        }
        // One that answers for some seconds between two crashes is not well.
        let looping = self.crashes.looping(self.now());
        // What runs, on a machine that is Ready, may be asked the wrong question.
        let runs = self.runs() && self.machine.status.read(|report| report.ready);
        let weighed = if well && !looping {
            self.prove_document()
        } else {
            self.well_since = None;
            if runs && !looping {
                return self.document.pardon();
            }
            self.weigh_document().await
        };
        if let Err(error) = weighed
            && !self.stays
        {
            self.stays = true;
            tracing::warn!(
                service = %self.service, code = %error.code(),
                "whether the document before this one is to come back: {}", error.story()
            );
        }
    }

    /// Keeps that the service is good with this document, once it has been
    /// healthy with it for a while: what happens to it later is not the
    /// document's fault.
    fn prove_document(&mut self) -> Result<()> {
        self.document.pardon();
        let (service, machine) = (self.service, &self.machine);
        if self.suits || !is_tried(machine, service)? {
            return Ok(());
        }
        let now = self.now();
        let since = *self.well_since.get_or_insert(now);
        if now.saturating_sub(since) < PROVEN {
            return Ok(());
        }
        if let Some(applied) = self.applied() {
            good::prove(&self.machine.root, service, &applied)?;
            self.suits = true;
        }
        Ok(())
    }

    /// The SHA-256 of the node.yaml that is applied.
    fn applied(&self) -> Option<String> {
        self.machine.status.read(|report| report.config.clone())
    }

    async fn weigh_document(&mut self) -> Result<()> {
        let (service, machine) = (self.service, self.machine.clone());
        let root = &machine.root;
        let applied = self.applied();
        if self.suits || good::proven(root)?.get(&service) == applied.as_ref() {
            return Ok(());
        }
        let good = good::read(root)?.filter(|good| good.config.services.contains(&service));
        let (Some(good), Some(applied)) = (good, applied) else {
            return Ok(());
        };
        // A comment is no other document.
        let same = good.config == machine.config;
        let needed = order::blame(service, &self.board.all(), None).is_some();
        if same || needed || !machine.status.read(is_prepared) || !is_tried(&machine, service)? {
            self.document.pardon();
            return Ok(());
        }
        let now = self.now();
        if !self
            .document
            .is_lost(&applied, Some(&good.digest), false, now)
        {
            return Ok(());
        }
        let obstacle = way_back::obstacle(&good.config, &machine.config);
        if obstacle.is_some() && self.stays {
            return Ok(());
        }
        if self.blame().await.is_some() {
            self.document.pardon();
            return Ok(());
        }
        if let Some(why) = obstacle {
            self.stays = true;
            tracing::warn!(
                %service, "{service} is not healthy with this document, which stays: {why}"
            );
            return Ok(());
        }
        let text = root.read_to_string(paths::NODE_CONFIG)?;
        if run::understand(root, &text, paths::NODE_CONFIG)?.1 != machine.config {
            // Another one is on its way.
            self.document.pardon();
            return Ok(());
        }
        let digest = sha256(text.as_bytes()).hex();
        let bad = (digest.as_str(), &machine.config);
        let refusal = refusal::refuse(root, service, &good, bad)?;
        let error = refusal.told();
        let saved = self.save(error.story(), None).await;
        tracing::error!(
            %service, code = %error.code(), "{}: {}{}",
            error.code(), error.story(), at(saved.as_ref())
        );
        self.document.pardon();
        self.crashes = Crashes::default();
        machine.refused.notify_one();
        Ok(())
    }
}

/// Whether everything is there to run a service with this document.
fn is_prepared(report: &Report) -> bool {
    NEEDED.iter().all(|needed| {
        let mut steps = report.steps.iter();
        steps.any(|step| step.name == *needed && step.state == State::Done)
    })
}

/// Whether the service was started with this document, by a program that was
/// good: a new one has a way back of its own, which comes first.
fn is_tried(machine: &Machine, service: Service) -> Result<bool> {
    let root = &machine.root;
    let now = inputs::of(service, &machine.config.manifest, root)?;
    let store = Store::new(root.clone());
    let linked = match link(service) {
        Some(link) => store.linked_to(&link)?,
        None => None,
    };
    let proven = store.proven().remove(&service.to_string());
    let known = applied::read(root)?.services.remove(&service);
    Ok(known == Some(now) && (linked.is_none() || linked == proven))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;
    use crate::sys::root::Root;
    use units::NodeConfig;

    #[test]
    fn what_was_not_tried_is_not_held_against_a_document() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let sample = include_str!("../../../../units/testdata/node-v1.yaml");
        let config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        let status = Status::new(root.clone(), NEEDED);
        let name = "node-1".parse().unwrap();
        let machine = Machine::new(config, name, root.clone(), status.clone());
        let tried = || is_tried(&machine, Service::Kubelet).unwrap();
        assert!(!tried(), "it was never started");
        let now = inputs::of(Service::Kubelet, &machine.config.manifest, &root).unwrap();
        let keep = |inputs: inputs::Inputs| {
            applied::change(&root, |applied| {
                applied.services.insert(Service::Kubelet, inputs);
            })
            .unwrap();
        };
        keep([("/x".to_owned(), "ab".to_owned())].into());
        assert!(!tried(), "it was started with another");
        keep(now);
        assert!(tried());
        root.create_dir(paths::KUBERNETES_BIN, 0o755).unwrap();
        let link = link(Service::Kubelet).unwrap();
        let (old, new) = ("a".repeat(64), "b".repeat(64));
        root.symlink_atomic(format!("{}/{new}/kubelet", paths::STORE), link)
            .unwrap();
        let store = Store::new(root.clone());
        store.prove("kubelet", &old).unwrap();
        assert!(!tried(), "its program is new");
        store.prove("kubelet", &new).unwrap();
        assert!(tried());

        assert!(!status.read(is_prepared));
        status.done("identity", "");
        assert!(!status.read(is_prepared), "nothing is fetched");
        status.done("fetch", "");
        assert!(status.read(is_prepared));
    }
}
