//! `kgen hardening`: how hard to break what would be rendered is.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::json;
use units::types::Role;

use super::terminal;
use crate::hardening::{Assessment, BENCHMARK, Judged};
use crate::workspace::{Input, Workspace};

/// So many machines are named for a rule.
const NAMED: usize = 3;

/// Prints every recommendation and the score; whether the score is at least
/// `least` percent. Nothing is written, not even keys.
pub fn run(input: Input<'_>, json: bool, least: Option<usize>) -> Result<bool> {
    let workspace = Workspace::open(input, &[("master".parse()?, Role::Master)])?;
    let knode = workspace.knode()?;
    let mut pki = workspace.pki()?;
    let mut assessment = Assessment::default();
    for machine in workspace.cluster.documents() {
        let material = pki.machine(&workspace.cluster, machine)?;
        assessment.add(&workspace.plan(machine, &knode, &material)?)?;
    }
    let text = if json {
        as_json(&assessment)?
    } else {
        table(&assessment)?
    };
    terminal::print(text.as_bytes())?;
    Ok(least.is_none_or(|least| assessment.score() >= least))
}

fn as_json(assessment: &Assessment) -> Result<String> {
    let (kept, of) = assessment.kept();
    let judged: Vec<&Judged> = assessment.judged().collect();
    let value = json!({
        "benchmark": BENCHMARK,
        "score": assessment.score(),
        "kept": kept,
        "of": of,
        "recommendations": judged,
    });
    Ok(serde_json::to_string_pretty(&value).context("writing JSON")? + "\n")
}

fn table(assessment: &Assessment) -> Result<String> {
    let mut text = String::new();
    for judged in assessment.judged() {
        let verdict = match judged {
            Judged { broken, .. } if !broken.is_empty() => "BROKEN",
            Judged {
                reason: Some(_), ..
            } => "differs",
            _ => "kept",
        };
        writeln!(text, "{verdict:<8}{:<8}{}", judged.id, judged.title)?;
        for (machine, found) in judged.broken.iter().take(NAMED) {
            writeln!(text, "{:16}{machine}: {found}", "")?;
        }
        if judged.broken.len() > NAMED {
            writeln!(text, "{:16}and on {} more", "", judged.broken.len() - NAMED)?;
        }
        if let Some(reason) = judged.reason {
            writeln!(text, "{:16}{reason}", "")?;
        }
    }
    let (kept, of) = assessment.kept();
    writeln!(
        text,
        "\n{} %: {kept} of {of} recommendations are kept ({BENCHMARK}, and kgen's own)",
        assessment.score()
    )?;
    Ok(text)
}
