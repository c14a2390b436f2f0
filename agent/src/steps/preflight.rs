//! Is the machine fit to be a node? What is certain to break is named before
//! it does (F14, F15); the rest is told, and may mend itself (P56).

use futures_util::future::BoxFuture;

use super::name;
use crate::check::{self, Finding, Verdict};
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;

pub struct Preflight;

impl Step<Machine> for Preflight {
    fn name(&self) -> &'static str {
        name::PREFLIGHT
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let facts = check::observe(&machine.root, Some(&machine.config), false).await;
            let findings = check::judge(&facts, Some(&machine.config));
            match findings.iter().find_map(Finding::error) {
                Some(error) => Err(error),
                None => Ok(summary(&findings)),
            }
        })
    }
}

/// How much was looked at, and what is not as it should be.
fn summary(findings: &[Finding]) -> String {
    let mut told = format!("{} checks", findings.len());
    for finding in findings.iter().filter(|f| f.verdict > Verdict::Ok) {
        if let Some(code) = finding.code {
            told.push_str(&format!("; {code}: {}: {}", finding.subject, finding.found));
        }
    }
    told
}
