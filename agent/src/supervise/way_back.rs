//! The way back: a program of another artifact that does not become healthy,
//! though the one before it was, gives way to that one (B12).
//!
//! Which artifact was good is kept over reboots; a program counts as good once
//! it has been healthy for a minute.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::root::Root;
use crate::sys::store::{Store, artifact_of};
use units::node_config::Service;
use units::paths;

/// How long a new program has to become healthy.
const WINDOW: Duration = Duration::from_secs(3 * 60);
/// How long one is healthy before it counts as good.
pub const PROVEN: Duration = Duration::from_secs(60);

/// How long a program that is not known to be good has not been healthy.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    linked: String,
    since: Option<Duration>,
}

impl Trial {
    /// Whether the program of artifact `linked` has had all its time, and
    /// `good` is to come back. `well`: it is healthy at `now`.
    pub fn is_lost(&mut self, linked: &str, good: Option<&str>, well: bool, now: Duration) -> bool {
        if well || good.is_none_or(|good| good == linked) {
            self.since = None;
            return false;
        }
        if self.linked != linked {
            self.linked = linked.to_owned();
            self.since = None;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_sub(since) >= WINDOW
    }

    /// Others were in the way: it has all its time again.
    pub fn pardon(&mut self) {
        self.since = None;
    }
}

/// A service whose programs may go back; those of the control plane may not:
/// what a newer one wrote into etcd, an older one need not understand.
pub fn link(service: Service) -> Option<PathBuf> {
    matches!(
        service,
        Service::Containerd | Service::Kubelet | Service::KubeProxy
    )
    .then(|| Path::new(paths::KUBERNETES_BIN).join(service.to_string()))
}

/// The artifact of the program that a process runs.
pub fn runs(root: &Root, pid: u32) -> Option<String> {
    let exe = root.read_link(format!("/proc/{pid}/exe")).ok()??;
    artifact_of(&exe)
}

/// Whether a service runs what was before, since what node.yaml names was
/// tried: the artifact that was.
pub fn refused(root: &Root, service: Service) -> Option<String> {
    let store = Store::new(root.clone());
    let linked = store.linked_to(&link(service)?).ok()??;
    let refused = store.refused().ok()?;
    let mut pairs = refused.into_iter();
    pairs.find_map(|(bad, good)| (good == linked).then_some(bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_new_program_has_its_time_and_no_more() {
        let mut trial = Trial::default();
        let mut lost = |linked, good, well, now| trial.is_lost(linked, good, well, SECOND * now);
        assert!(!lost("a", None, false, 0), "nothing to go back to");
        assert!(!lost("a", None, false, 1000));
        assert!(!lost("a", Some("a"), false, 2000), "it was good before");
        assert!(!lost("b", Some("a"), false, 3000), "its time begins");
        assert!(
            !lost("b", Some("a"), true, 3100),
            "and again, once it is well"
        );
        assert!(!lost("b", Some("a"), false, 3200));
        assert!(!lost("b", Some("a"), false, 3379));
        assert!(lost("b", Some("a"), false, 3380));
        assert!(!lost("c", Some("a"), false, 3381), "another has its own");
    }

    /// What a newer one wrote into etcd, an older one need not understand.
    #[test]
    fn the_control_plane_does_not_go_back() {
        assert!(link(Service::Kubelet).is_some());
        assert_eq!(link(Service::Etcd), None);
        assert_eq!(link(Service::KubeApiserver), None);
    }
}
