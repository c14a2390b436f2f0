//! YAML as it was typed: every value with its place, so that everything that
//! is wrong can be told at once and where.
//!
//! serde stops at the first error and guesses types of plain scalars. Settings
//! and lock files are read here instead, from the event stream of the parser
//! beneath serde-saphyr: [`tree`] keeps scalars as their text, and [`read`]
//! turns the tree into typed values, collecting findings on the way.

mod given;
mod json;
mod read;
mod suggest;
mod tree;
mod write;

pub use given::Given;
pub use read::{Asked, At, Object, Reader};
pub use suggest::nearest;
pub use tree::{Key, Kind, Node, parse};
pub use write::write;
