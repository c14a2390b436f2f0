//! Effects: everything that touches the machine goes through one of these modules.
//!
//! Each sits on one crate, offers a narrow typed interface, and is tested against the real thing.
//! Steps import these modules and never the crates beneath. Every change to the machine is
//! idempotent and says whether it changed anything ([`Changed`]), so that a step can be killed
//! anywhere and simply run again.

pub mod api;
pub mod bus;
pub mod clock;
pub mod console;
pub mod cri;
pub mod etcd;
pub mod folder;
pub mod http;
pub mod kept;
pub mod kubeconfig;
pub mod listen;
pub mod listeners;
pub mod lock;
pub mod mounts;
pub mod netlink;
pub mod nft;
pub mod offer;
pub mod pki;
pub mod program;
mod pulse;
pub mod resolve;
pub mod root;
pub mod store;
pub mod version;

/// Whether an idempotent action had anything to do.
///
/// A caller uses it to decide what depends on the change: a service is restarted only when its
/// configuration file came back as [`Changed::Yes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    /// The machine already was as asked for; nothing was touched.
    No,
    /// The machine was changed.
    Yes,
}

impl Changed {
    /// `true` when something was changed.
    #[must_use]
    pub fn is_changed(self) -> bool {
        self == Changed::Yes
    }

    /// The outcome of two actions together: [`Changed::Yes`] when either changed anything.
    pub fn or(self, other: Changed) -> Changed {
        self.max(other)
    }
}

#[cfg(test)]
mod tests {
    use super::Changed::{No, Yes};

    #[test]
    fn two_outcomes_add_up() {
        assert_eq!(No.or(No), No);
        assert_eq!(No.or(Yes), Yes);
        assert_eq!(Yes.or(No), Yes);
        assert!(Yes.is_changed() && !No.is_changed());
    }
}
