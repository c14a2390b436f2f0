//! kgen turns one cluster settings file into one user-data document per
//! machine.
//!
//! ```text
//! cluster.yaml → settings → cluster ─┬→ pki        what certificates; kept beside it
//!                                    ├→ artifacts  kgen.lock: addresses and checksums
//!                                    └→ plan       files, units and node.yaml of a machine
//! plan → dialect → user-data
//! ```
//!
//! Arrows only go down: [`settings`] knows nothing of [`cluster`], [`cluster`]
//! nothing of [`pki`], and [`dialect`] only the plan's files and units.
//! [`workspace`] puts the rooms together for [`commands`].

pub mod api;
pub mod artifacts;
pub mod azure;
pub mod budget;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod dialect;
pub mod difference;
pub mod format;
pub mod hardening;
pub mod inventory;
pub mod kubeconfig;
pub mod landing;
pub mod lint;
pub mod mirror;
pub mod openstack;
pub mod pki;
pub mod plan;
pub mod platform;
pub mod pxe;
pub mod readiness;
pub mod report;
pub mod secret;
pub mod serve;
pub mod settings;
pub mod system;
pub mod workspace;
pub mod yaml;

mod out;
mod outside;
mod ranges;
