//! What a machine downloads: the lock, and the choice from it.
//!
//! Every artifact is pinned by a checksum. The built-in lock knows the default
//! version; a `kgen.lock` beside cluster.yaml takes precedence entry by entry.

mod catalogue;
mod checksum;
mod edit;
mod knode;
mod lock;
mod release;
mod select;
mod sources;

pub use checksum::{Algorithm, find as find_checksum};
pub use edit::{Edited, edit};
pub use knode::{KnodeSource, sources as knode_sources};
pub use lock::{Entry, Lock, Origin, packing_of};
pub use release::{Published, Sums, is_known, needed, published};
pub use select::{Wanted, select};
