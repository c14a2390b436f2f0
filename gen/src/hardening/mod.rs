//! How hard to break what was generated is: the plan of a machine, judged by
//! the CIS Kubernetes Benchmark 1.12, before anything runs (B14).
//!
//! What is judged is what lands on the machine, with everything that the
//! operator laid over our configuration; nothing is asked of a running cluster.

mod facts;
mod rules;

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

pub use facts::Facts;

use crate::plan::NodePlan;

/// The benchmark whose numbers are used.
pub const BENCHMARK: &str = "CIS Kubernetes Benchmark 1.12";

/// Whether a rule is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Kept,
    /// It is not, and this is what was found.
    Broken(String),
    /// It is not, for this reason of ours.
    Otherwise(&'static str),
}

/// A recommendation and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// Its number: the benchmark's, or `kgen-N` for one of ours.
    pub id: &'static str,
    /// What it asks for.
    pub title: &'static str,
    /// The machines on which it is not kept, and what was found there. Empty:
    /// it is kept everywhere.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub broken: BTreeMap<String, String>,
    /// Why we do otherwise, where we do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl Judged {
    /// Whether it is kept on every machine.
    pub fn kept(&self) -> bool {
        self.broken.is_empty() && self.reason.is_none()
    }
}

/// All recommendations that concern these machines.
#[derive(Debug, Default)]
pub struct Assessment {
    judged: BTreeMap<usize, Judged>,
}

impl Assessment {
    /// Judges one more machine.
    pub fn add(&mut self, plan: &NodePlan) -> Result<()> {
        let facts = Facts::of(plan)?;
        for (order, rule) in rules::all().enumerate() {
            if !(rule.concerns)(&facts) {
                continue;
            }
            let judged = self.judged.entry(order).or_insert_with(|| Judged {
                id: rule.id,
                title: rule.title,
                broken: BTreeMap::new(),
                reason: None,
            });
            match (rule.judge)(&facts) {
                Verdict::Kept => {}
                Verdict::Broken(found) => {
                    judged.broken.insert(plan.name.to_string(), found);
                }
                Verdict::Otherwise(reason) => judged.reason = Some(reason),
            }
        }
        Ok(())
    }

    /// The recommendations in the benchmark's order, ours last.
    pub fn judged(&self) -> impl Iterator<Item = &Judged> {
        self.judged.values()
    }

    /// How many are kept, of how many.
    pub fn kept(&self) -> (usize, usize) {
        let kept = self.judged().filter(|judged| judged.kept()).count();
        (kept, self.judged.len())
    }

    /// The share that is kept, in percent, rounded down.
    pub fn score(&self) -> usize {
        match self.kept() {
            (_, 0) => 0,
            (kept, all) => kept * 100 / all,
        }
    }
}
