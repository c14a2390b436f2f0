//! Our own nftables table, `inet knode`: masquerading, and the guard before the metadata service.
//!
//! The kernel is spoken to directly; no `nft` binary is needed. The table is replaced whole in one
//! transaction, so no packet ever sees half of it, and no other table is touched.
//! [`Nft::observe`] tells what is there, so that a table that somebody flushed or edited is
//! noticed and put back, and an untouched one keeps its counters.
//!
//! Every rule carries a comment with what it does and a digest of its expressions: an operator can
//! read it in `nft list table inet knode`, and [`Nft::observe`] tells ours from others' by it.

mod expressions;
mod rules;
mod socket;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;

use super::Changed;
use super::netlink::LinkName;

pub use watch::{Watch, watch};

/// The name of our table, in the family `inet`.
pub const TABLE: &str = "knode";

/// The metadata services' address on nearly every cloud.
pub const METADATA_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// The address by which AWS offers its metadata service over IPv6.
pub const METADATA_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));

/// What went wrong. The kernel's reason is the source, its number [`Error::errno`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused, or the socket broke.
    #[error("{action}")]
    Kernel {
        /// What was being done.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel's answer could not be read.
    #[error("{action}: the kernel's answer is malformed")]
    Malformed {
        /// What was being done.
        action: &'static str,
    },
    /// The kernel did not answer.
    #[error("{action}: the kernel does not answer")]
    NoAnswer {
        /// What was being done.
        action: &'static str,
    },
}

impl Error {
    /// The kernel's error number, where it was the kernel that refused. `EOPNOTSUPP` and `ENOENT`
    /// from [`Nft::replace`] mean that this kernel lacks nf_tables or its nat module.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Kernel { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// What our table is for. IPv4 and IPv6 networks may be mixed; order and repetitions do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The pod networks of this node.
    pub pod_networks: Vec<IpNet>,
    /// Whether traffic of pods leaves with the node's address.
    pub masquerade: bool,
    /// Destinations that see the pod's own address: pod and service networks of the cluster.
    /// Some 250 at most: one transaction has to fit the socket's buffer (else `EMSGSIZE`).
    pub no_masquerade: Vec<IpNet>,
    /// The pods' bridge: what leaves by it stays on this node and is not masqueraded.
    pub bridge: Option<LinkName>,
    /// Addresses of metadata services that pods must not reach: [`METADATA_V4`], [`METADATA_V6`].
    pub metadata_guard: Vec<IpAddr>,
}

impl Ruleset {
    /// What [`Nft::observe`] returns when the table holds exactly these rules.
    #[must_use]
    pub fn expected(&self) -> Table {
        rules::state(&rules::chains(self))
    }
}

/// What is in our table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The kernel's flags: 0 for a table that works; 1 says that it is switched off (`dormant`).
    pub flags: u32,
    /// The chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A chain of our table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it; `None` for a chain that is only jumped to.
    pub hook: Option<Hook>,
    /// The comments of its rules, in order; [`FOREIGN_RULE`] for one without.
    pub rules: Vec<String>,
}

/// Stands for a rule in our table that is not ours.
pub const FOREIGN_RULE: &str = "(not ours)";

/// Where a chain is hooked into the kernel's packet path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: String,
    /// The kernel's number of the hook: 2 forward, 4 postrouting.
    pub number: u32,
    /// Lower comes first: 0 filter, 100 source NAT.
    pub priority: i32,
    /// What happens to a packet that no rule decides on: 0 drop, 1 accept.
    pub policy: u32,
}

/// Access to our table in the network namespace of the calling thread.
///
/// Holds nothing: every call opens a socket of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nft;

impl Nft {
    /// What is in our table; `None` when there is no such table.
    ///
    /// # Errors
    /// When the kernel refuses to tell. A kernel without nf_tables refuses with `EOPNOTSUPP` or
    /// `EPROTONOSUPPORT`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn observe(&self) -> Result<Option<Table>> {
        wire::observe().await
    }

    /// Replaces our table by one that holds exactly these rules, in one transaction: it holds
    /// either the old rules or the new ones. Counters start at zero.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn replace(&self, ruleset: &Ruleset) -> Result<()> {
        wire::replace(&rules::chains(ruleset)).await
    }

    /// Observes, and replaces the table if it does not hold exactly these rules.
    ///
    /// # Errors
    /// As [`Nft::observe`] and [`Nft::replace`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn ensure(&self, ruleset: &Ruleset) -> Result<Changed> {
        if self.observe().await?.as_ref() == Some(&ruleset.expected()) {
            return Ok(Changed::No);
        }
        self.replace(ruleset).await?;
        Ok(Changed::Yes)
    }

    /// Our table is not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn remove(&self) -> Result<Changed> {
        if self.observe().await?.is_none() {
            return Ok(Changed::No);
        }
        wire::remove().await?;
        Ok(Changed::Yes)
    }
}
