//! What is wrong with what was typed, all of it at once, each with its place.
//!
//! A finding names the file, the position, what is wrong and what would be
//! right. Only the edge of the program prints: everything else adds findings
//! and goes on looking for more.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity};

/// A text that findings point into.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// A source called `name` in messages.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            text: text.into(),
        })
    }

    /// The name in messages, a path as the operator typed it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte offset, both counted from 1, columns in
    /// characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        (line, before[start..].chars().count() + 1)
    }
}

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
}

impl Finding {
    /// A finding without a position in a text.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: None,
            help: None,
        }
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
            format!("{}:{line}:{column}", place.source.name())
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

    /// Adds what another report found.
    pub fn extend(&mut self, other: Report) {
        self.findings.extend(other.findings);
    }

    /// The findings, in the order in which they were found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
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
        match self.findings.len() {
            1 => text.push_str("1 finding; nothing was written\n"),
            n => text.push_str(&format!("{n} findings; nothing was written\n")),
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
    label: Option<LabeledSpan>,
    source: Option<NamedSource<String>>,
}

impl Diagnostic {
    fn of(finding: &Finding) -> Self {
        let source = finding
            .place
            .as_ref()
            .map(|place| NamedSource::new(place.source.name(), place.source.text().to_owned()));
        let label = finding.place.as_ref().map(|place| {
            let length = first_line(&place.source.text()[place.span.clone()]).len();
            LabeledSpan::new_with_span(None, (place.span.start, length))
        });
        Self {
            message: finding.message.clone(),
            help: finding.help.clone(),
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
        Some(Severity::Error)
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
    fn positions_count_characters_from_one() {
        let source = Source::new("f.yaml", "a: é\nkey: wert\n");
        assert_eq!(source.line_column(0), (1, 1));
        assert_eq!(source.line_column(3), (1, 4));
        assert_eq!(source.line_column(6), (2, 1));
        assert_eq!(source.line_column(11), (2, 6));
        assert_eq!(source.line_column(999), (3, 1));
    }

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
