//! What a machine downloads: the lock, and the choice from it.
//!
//! Every artifact is pinned by a checksum. The built-in lock knows the default
//! version; a `kgen.lock` beside cluster.yaml takes precedence entry by entry.

mod catalogue;
mod knode;
mod lock;
mod select;

pub use knode::{KnodeSource, sources as knode_sources};
pub use lock::{Entry, Lock, Origin};
pub use select::{Wanted, select};
