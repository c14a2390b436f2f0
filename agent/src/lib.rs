//! knode: the agent that makes a machine a healthy Kubernetes node.
//!
//! `knode run` reads NodeConfig ([`units::NodeConfig`]), turns it into a graph
//! of [`steps`] and drives each until the machine is as it should be. Effects
//! sit behind [`sys`]; everything else is decided from data.

pub mod check;
pub mod cli;
pub mod credentials;
pub mod error;
pub mod graph;
pub mod machine;
pub mod retry;
pub mod run;
pub mod status;
pub mod steps;
pub mod sys;
pub mod timeline;
pub mod wait;
