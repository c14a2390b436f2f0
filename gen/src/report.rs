//! What is wrong with what was typed, all of it at once, each with its place.
//!
//! A finding names the file, the position, what is wrong and what would be
//! right. Only the edge of the program prints: everything else adds findings
//! and goes on looking for more.

mod source;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use source::Source;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity};

/// A place in a source.
#[derive(Debug, Clone)]
pub struct Place {
    /// The text.
    pub source: Arc<Source>,
    /// The bytes meant.
    pub span: Range<usize>,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What is wrong, with the path of the key: `nodes[1].name: …`.
    pub message: String,
    /// Where, if it is in a text at all.
    pub place: Option<Place>,
    /// What would be right.
    pub help: Option<String>,
    /// Whether it could still be meant.
    pub warning: bool,
}

impl Finding {
    /// A finding without a position in a text.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: None,
            help: None,
            warning: false,
        }
    }

    /// The same as something that could still be meant.
    pub fn warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// Says where.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Says what would be right.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `FILE:LINE:COLUMN`, where there is one.
    pub fn position(&self) -> Option<String> {
        self.place.as_ref().map(|place| {
            let (line, column) = place.source.line_column(place.span.start);
            let (name, _) = place.source.part(place.span.start);
            format!("{name}:{line}:{column}")
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position() {
            Some(position) => write!(f, "{position}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Everything that is wrong; empty when nothing is.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding; one that was told before is not told again.
    pub fn add(&mut self, finding: Finding) {
        let known =
            |f: &Finding| f.message == finding.message && f.position() == finding.position();
        if !self.findings.iter().any(known) {
            self.findings.push(finding);
        }
    }

    /// Adds what another report found, and this one did not.
    pub fn extend(&mut self, other: Report) {
        for finding in other.findings {
            self.add(finding);
        }
    }

    /// The findings, in the order in which they were found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many findings are errors, and how many are warnings.
    pub fn counts(&self) -> (usize, usize) {
        let warnings = self.findings.iter().filter(|f| f.warning).count();
        (self.findings.len() - warnings, warnings)
    }

    /// The same with every warning an error.
    pub fn strict(mut self) -> Self {
        for finding in &mut self.findings {
            finding.warning = false;
        }
        self
    }

    /// `Err` with everything that was found, if an error was; the warnings
    /// otherwise.
    pub fn or_warnings(mut self) -> Result<Report, Report> {
        self.findings.sort_by(|a, b| key(a).cmp(&key(b)));
        if self.counts().0 > 0 {
            return Err(self);
        }
        Ok(self)
    }

    /// `Err` with everything that was found, if anything was.
    pub fn into_result(mut self) -> Result<(), Report> {
        if self.findings.is_empty() {
            return Ok(());
        }
        self.findings.sort_by(|a, b| key(a).cmp(&key(b)));
        Err(self)
    }

    /// The report for people: each finding with the lines it is about.
    pub fn render(&self, colour: bool) -> String {
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(if colour { 100 } else { 10_000 })
            .with_context_lines(1)
            .without_syntax_highlighting()
            .without_cause_chain();
        let mut text = String::new();
        for finding in &self.findings {
            // Writing into a String cannot fail.
            if handler
                .render_report(&mut text, &Diagnostic::of(finding))
                .is_err()
            {
                text.push_str(&finding.to_string());
            }
            text.push('\n');
        }
        if self.counts().0 > 0 {
            let n = self.findings.len();
            let findings = if n == 1 { "finding" } else { "findings" };
            text.push_str(&format!("{n} {findings}; nothing was written\n"));
        }
        text
    }
}

/// Findings are told file by file, from top to bottom; those without a place
/// come last.
fn key(finding: &Finding) -> (bool, Option<&str>, usize) {
    match &finding.place {
        Some(place) => (false, Some(place.source.name()), place.span.start),
        None => (true, None, 0),
    }
}

impl From<Finding> for Report {
    fn from(finding: Finding) -> Self {
        Self {
            findings: vec![finding],
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// A finding as miette prints it.
#[derive(Debug)]
struct Diagnostic {
    message: String,
    help: Option<String>,
    severity: Severity,
    label: Option<LabeledSpan>,
    source: Option<NamedSource<String>>,
}

impl Diagnostic {
    fn of(finding: &Finding) -> Self {
        let part = |place: &Place| {
            let (name, range) = place.source.part(place.span.start);
            (name.to_owned(), range)
        };
        let source = finding.place.as_ref().map(|place| {
            let (name, range) = part(place);
            NamedSource::new(name, place.source.shown(range))
        });
        let label = finding.place.as_ref().map(|place| {
            let (_, range) = part(place);
            let end = place.span.end.min(range.end).max(place.span.start);
            let length = first_line(&place.source.text()[place.span.start..end]).len();
            LabeledSpan::new_with_span(None, (place.span.start - range.start, length))
        });
        Self {
            message: finding.message.clone(),
            help: finding.help.clone(),
            severity: if finding.warning {
                Severity::Warning
            } else {
                Severity::Error
            },
            label,
            source,
        }
    }
}

/// A span that runs over several lines is shown by its first.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("").trim_end()
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|s| s as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label
            .clone()
            .map(|label| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = _>>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_the_line_and_sorts_by_place() {
        let source = Source::new("f.yaml", "one: 1\ntwo: 2\n");
        let place = |span: Range<usize>| Place {
            source: Arc::clone(&source),
            span,
        };
        let mut report = Report::default();
        report.add(Finding::new("no place"));
        report.add(Finding::new("second").at(place(7..10)).help("do this"));
        report.add(Finding::new("first").at(place(0..3)));
        let report = report.into_result().unwrap_err();
        let messages: Vec<_> = report.findings().iter().map(|f| &f.message).collect();
        assert_eq!(messages, ["first", "second", "no place"]);
        let text = report.render(false);
        assert!(text.contains("second\n   ╭─[f.yaml:2:1]"), "{text}");
        assert!(text.contains("two: 2"), "{text}");
        assert!(text.contains("do this"), "{text}");
        assert!(text.contains("3 findings"), "{text}");
    }
}
