//! Changes while running: a new node.yaml is applied, what depends on the
//! change restarts and nothing else, and what is no longer in it is removed.
//!
//! node.yaml is what makes a document's files count: its manifest names them
//! all, so [`follow`] takes a new one once every file is as it says. What was
//! applied is kept ([`applied`]), each service with what it read at its start
//! ([`inputs`], pure); a service that would read something else now is started
//! anew. [`removals`] says, purely, what is to go.
//!
//! A document with which the machine is healthy ([`proof`]) is kept ([`good`]);
//! where the next one makes kubelet, containerd or kube-proxy fail, it comes
//! back ([`way_back`], pure), and the other is remembered ([`refusal`]).

pub mod applied;
pub mod follow;
pub mod good;
pub mod inputs;
pub mod proof;
pub mod refusal;
pub mod removals;
pub mod way_back;
