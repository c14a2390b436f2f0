//! Texts that findings point into.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A text that findings point into: a file, and what else was typed for it.
pub struct Source {
    parts: Vec<Part>,
    text: String,
    hidden: Mutex<Vec<Range<usize>>>,
}

/// A part of a source with a name of its own, and where it begins.
#[derive(Debug)]
struct Part {
    name: String,
    start: usize,
}

impl fmt::Debug for Source {
    /// Without the text, in which there may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.name())
    }
}

impl Source {
    /// A source called `name` in messages.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            parts: vec![Part {
                name: name.into(),
                start: 0,
            }],
            text: text.into(),
            hidden: Mutex::default(),
        })
    }

    /// A source with other texts, by name, behind its own.
    pub fn joined(first: &Self, others: &[Arc<Self>]) -> Arc<Self> {
        let mut joined = Self {
            parts: Vec::new(),
            text: String::new(),
            hidden: Mutex::default(),
        };
        for source in std::iter::once(first).chain(others.iter().map(Arc::as_ref)) {
            joined.parts.push(Part {
                name: source.name().to_owned(),
                start: joined.text.len(),
            });
            joined.text.push_str(&source.text);
            // No two parts share a place, not even at their ends.
            joined.text.push('\n');
        }
        Arc::new(joined)
    }

    /// Keeps bytes out of what is shown: a secret was typed there.
    pub fn hide(&self, span: Range<usize>) {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        hidden.push(span);
    }

    /// A part of the text as it may be shown: of what is hidden, asterisks.
    pub fn shown(&self, range: Range<usize>) -> String {
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown = String::with_capacity(range.len());
        for (at, c) in self.text[range.clone()].char_indices() {
            let at = range.start + at;
            if c != '\n' && hidden.iter().any(|span| span.contains(&at)) {
                // As long as it was, so that places stay.
                shown.extend(std::iter::repeat_n('*', c.len_utf8()));
            } else {
                shown.push(c);
            }
        }
        shown
    }

    /// Where the part of a number begins.
    pub fn start(&self, part: usize) -> usize {
        self.parts.get(part).map_or(self.text.len(), |p| p.start)
    }

    /// The name in messages, a path as the operator typed it.
    pub fn name(&self) -> &str {
        self.parts.first().map_or("", |part| &part.name)
    }

    /// The text itself, of all parts.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The part around an offset: its name, and its bytes.
    pub fn part(&self, offset: usize) -> (&str, Range<usize>) {
        let after = self.parts.partition_point(|part| part.start <= offset);
        let own = &self.parts[after.max(1) - 1];
        let end = match self.parts.get(after) {
            Some(next) => next.start - 1,
            None if self.parts.len() > 1 => self.text.len() - 1,
            None => self.text.len(),
        };
        (&own.name, own.start..end)
    }

    /// Line and column of a byte offset within its part, both counted from 1,
    /// columns in characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let (_, part) = self.part(offset);
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[part.start..end];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        (line, before[start..].chars().count() + 1)
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
    fn each_part_is_counted_by_itself() {
        let first = Source::new("f", "a: 1\nb: 2");
        let others = [Source::new("x", "3"), Source::new("y", "é4")];
        let joined = Source::joined(&first, &others);
        assert_eq!(joined.name(), "f");
        assert_eq!(joined.line_column(5), (2, 1));
        assert_eq!(joined.part(9), ("f", 0..9));
        for (part, name, text) in [(1, "x", "3"), (2, "y", "é4")] {
            let start = joined.start(part);
            let (named, range) = joined.part(start);
            assert_eq!((named, &joined.text()[range]), (name, text));
            assert_eq!(joined.line_column(start), (1, 1));
        }
        assert_eq!(joined.line_column(joined.start(2) + 2), (1, 2));
    }
}
