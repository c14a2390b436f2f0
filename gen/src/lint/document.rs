//! Any rendered document, ours or another's: what its reader would
//! misunderstand, with the place, and never with the text around it, which
//! may hold keys.

use std::ops::Range;
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::{cloud_config, ignition};
use crate::format::Format;
use crate::report::{Finding, Report, Source};
use crate::yaml::{self, Node};

/// So much is told of one document.
const MOST: usize = 200;

/// Collects findings about a document.
pub struct Findings {
    source: Arc<Source>,
    found: Vec<(usize, Finding)>,
}

impl Findings {
    /// Nothing found yet.
    pub fn new(source: &Arc<Source>) -> Self {
        Self {
            source: Arc::clone(source),
            found: Vec::new(),
        }
    }

    /// Something that its reader would not do as meant.
    pub fn error(&mut self, at: &Range<usize>, message: impl AsRef<str>, help: &str) {
        self.add(at, message.as_ref(), help, false);
    }

    /// Something that is rarely meant.
    pub fn warning(&mut self, at: &Range<usize>, message: impl AsRef<str>, help: &str) {
        self.add(at, message.as_ref(), help, true);
    }

    fn add(&mut self, at: &Range<usize>, message: &str, help: &str, warning: bool) {
        if self.found.len() == MOST {
            return;
        }
        let (line, column) = self.source.line_column(at.start);
        let name = self.source.name();
        let mut finding = Finding::new(format!("{name}:{line}:{column}: {message}"));
        if !help.is_empty() {
            finding = finding.help(help);
        }
        finding.warning = warning;
        self.found.push((at.start, finding));
    }

    /// How much was found.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    fn into_report(mut self) -> Report {
        self.found.sort_by_key(|(at, _)| *at);
        let mut report = Report::default();
        for (_, finding) in self.found {
            report.add(finding);
        }
        report
    }
}

/// The language of a document, by what it looks like.
pub fn language(text: &str) -> Format {
    if text.trim_start().starts_with('{') {
        return Format::Ignition;
    }
    // A mapping's key at the beginning of a line.
    if text.lines().any(|line| line.starts_with("coreos:")) {
        return Format::Coreos;
    }
    Format::CloudInit
}

/// Everything in a document that is not as its reader wants it, errors and
/// warnings.
pub fn document(source: &Arc<Source>, format: Format) -> Report {
    let mut findings = Findings::new(source);
    match format {
        Format::Coreos | Format::CloudInit => {
            cloud_config::text(&mut findings, source.text(), format);
            if let Some(root) = parse(&mut findings, source) {
                cloud_config::tree(&mut findings, &root, format);
            }
        }
        Format::Ignition => {
            if let Err(error) = serde_json::from_str::<IgnoredAny>(source.text()) {
                let at = offset(source.text(), error.line(), error.column());
                findings.error(&(at..at), format!("not valid JSON: {error}"), "");
            } else if let Some(root) = parse(&mut findings, source) {
                ignition::tree(&mut findings, &root);
            }
        }
    }
    findings.into_report()
}

fn parse(findings: &mut Findings, source: &Arc<Source>) -> Option<Node> {
    match yaml::parse(source) {
        Ok(root) => Some(root),
        Err(report) => {
            for finding in report.findings() {
                let at = finding.place.as_ref().map_or(0..0, |p| p.span.clone());
                findings.error(&at, &finding.message, "");
            }
            None
        }
    }
}

fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (before + column.saturating_sub(1)).min(text.len())
}
