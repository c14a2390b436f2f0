//! The contract between kgen and knode: what lands on a node.
//!
//! - [`NodeConfig`] is the schema of `/etc/knode/node.yaml`.
//! - [`paths`] says where everything is.
//! - [`embedded`] holds the static unit files and configuration files, kept in
//!   `files/`, a tree that mirrors the node's root.
//! - [`types`] are the small value types both sides share.
//!
//! No I/O, no async, no cryptography: kgen writes what is said here, knode
//! reads it, and neither knows the other.

pub mod embedded;
pub mod node_config;
pub mod paths;
pub mod types;

pub use node_config::NodeConfig;
