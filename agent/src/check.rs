//! `knode check`: is this machine fit to be a node (P56, B5, F15)?
//!
//! [`observe`] looks, [`judge`] compares what was seen with what is wanted,
//! and knows nothing but that. The step `preflight` does the same at boot,
//! without the network, which may not be there yet.

mod judge;
mod network;
mod observe;
pub mod phase;
mod ports;

use serde::Serialize;

use crate::error::{Code, Error};

pub use judge::judge;
pub use network::{clock_ahead, look_outside};
pub use observe::{Facts, containerd, observe, wanted_ports};
pub use ports::holder;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// May be meant so, or mend itself.
    Warning,
    /// In the way of a healthy node.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What should be.
    pub wanted: String,
    /// The stable code; see docs/errors.md. Absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub code: Option<Code>,
    /// What to do about it. Absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<&'static str>,
    /// Whether going on is certain to break.
    pub blocks: bool,
}

fn as_text<S: serde::Serializer>(code: &Option<Code>, to: S) -> Result<S::Ok, S::Error> {
    code.map(Code::as_str).serialize(to)
}

impl Finding {
    /// All is well.
    fn ok(subject: &str, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            verdict: Verdict::Ok,
            found: found.into(),
            wanted: wanted.into(),
            code: None,
            cure: None,
            blocks: false,
        }
    }

    fn but(mut self, verdict: Verdict, code: Code) -> Self {
        self.verdict = verdict;
        self.code = Some(code);
        self.cure = Some(code.cure());
        self
    }

    /// It may be meant so, or mend itself.
    fn warning(self, code: Code) -> Self {
        self.but(Verdict::Warning, code)
    }

    /// It is in the way.
    fn failure(self, code: Code) -> Self {
        self.but(Verdict::Failure, code)
    }

    /// It is in the way, and going on is certain to break.
    fn blocking(self, code: Code) -> Self {
        let mut finding = self.failure(code);
        finding.blocks = true;
        finding
    }

    /// The finding as a failure, if it is one that blocks.
    pub fn error(&self) -> Option<Error> {
        let code = self.code.filter(|_| self.blocks)?;
        Some(Error::new(
            code,
            format!(
                "{}: found {}, wanted {}",
                self.subject, self.found, self.wanted
            ),
        ))
    }
}

/// The worst of all verdicts.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Ok)
}

/// Findings as a table for people.
pub fn table(findings: &[Finding]) -> String {
    let widest = |text: fn(&Finding) -> &str| {
        let lengths = findings.iter().map(|f| text(f).chars().count());
        lengths.max().unwrap_or(0).min(44)
    };
    let (subject, found) = (widest(|f| &f.subject), widest(|f| &f.found));
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "WARNS",
            Verdict::Failure => "FAILS",
        };
        // A long story has its line for itself.
        let (wanted, below) = match finding.found.chars().count() > found {
            true => ("", format!("wanted: {}. ", finding.wanted)),
            false => (finding.wanted.as_str(), String::new()),
        };
        let line = format!(
            "{verdict:5}  {:subject$}  {:found$}  {wanted}",
            finding.subject, finding.found
        );
        text.push_str(line.trim_end());
        text.push('\n');
        if let (Some(code), Some(cure)) = (finding.code, finding.cure) {
            text.push_str(&format!("       {:subject$}  {below}{code}: {cure}\n", ""));
        }
    }
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let (warnings, failures) = (count(Verdict::Warning), count(Verdict::Failure));
    text.push_str(&format!(
        "\n{} checks: {failures} fail, {warnings} warn\n",
        findings.len()
    ));
    text
}

#[cfg(test)]
mod tests;
