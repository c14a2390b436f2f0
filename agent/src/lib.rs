//! knode: the agent that makes a machine a healthy Kubernetes node.
//!
//! `knode run` reads NodeConfig ([`units::NodeConfig`]), turns it into a graph
//! of [`steps`] and drives each until the machine is as it should be. Effects
//! sit behind [`sys`]; everything else is decided from data.

pub mod balancer;
pub mod changes;
pub mod check;
pub mod cli;
pub mod credentials;
pub mod document;
pub mod error;
pub mod etcd;
pub mod fetch;
pub mod graph;
pub mod machine;
pub mod metrics;
pub mod node_condition;
pub mod renewals;
pub mod report;
pub mod reset;
pub mod retry;
pub mod run;
pub mod scrub;
pub mod signing;
pub mod status;
pub mod steps;
pub mod supervise;
pub mod sys;
pub mod timeline;
pub mod upgrade;
pub mod wait;
