//! From text to a tree with places.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle, Span};

use crate::report::{Finding, Place, Report, Source};

/// What a document may grow to when its aliases are put in place.
const MAX_NODES: usize = 1_000_000;

/// A value and the bytes it was read from.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Nothing: empty, `~` or `null`.
    Null,
    /// Text; `plain` if it was not quoted, so that it may mean a number.
    Scalar {
        /// The text, escapes resolved.
        text: String,
        /// Whether it was written without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order in which it was written.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and where it stands.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it stands.
    pub span: Range<usize>,
}

impl Node {
    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Moves every place behind another text.
    pub fn shift(&mut self, by: usize) {
        let moved = |span: &Range<usize>| span.start + by..span.end + by;
        self.span = moved(&self.span);
        match &mut self.kind {
            Kind::Map(entries) => {
                for (key, node) in entries {
                    key.span = moved(&key.span);
                    node.shift(by);
                }
            }
            Kind::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Kind::Null | Kind::Scalar { .. } => {}
        }
    }

    /// What is under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries().iter().find(|(k, _)| k.text == key);
        entry.map(|(_, node)| node)
    }

    /// The items of the list under a key.
    pub fn list(&self, key: &str) -> &[Node] {
        self.get(key).map_or(&[], Node::items)
    }

    /// The text under a key.
    pub fn string(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::text)
    }
}

/// Parses one document; an empty one is an empty mapping.
pub fn parse(source: &Arc<Source>) -> Result<Node, Report> {
    let mut builder = Builder {
        source,
        events: Parser::new_from_str(source.text()),
        anchors: HashMap::new(),
        nodes: 0,
        report: Report::default(),
    };
    let root = builder.document()?;
    builder.report.into_result()?;
    Ok(root)
}

struct Builder<'s> {
    source: &'s Arc<Source>,
    events: Parser<'s, granit_parser::StrInput<'s>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    report: Report,
}

impl<'s> Builder<'s> {
    fn document(&mut self) -> Result<Node, Report> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event if root.is_none() => root = Some(self.node(event, span)?),
                _ => {
                    return Err(self
                        .finding(bytes(&span), "more than one document in this file")
                        .into());
                }
            }
        }
        let empty = Node {
            span: 0..0,
            kind: Kind::Map(Vec::new()),
        };
        Ok(match root {
            None
            | Some(Node {
                kind: Kind::Null, ..
            }) => empty,
            Some(node) => node,
        })
    }

    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'s>, Span), Report> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(pair)) => return Ok(pair),
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().unwrap_or(0);
                    let at = at.min(self.source.text().len());
                    let message = format!("not valid YAML: {}", error.info());
                    return Err(self.finding(at..at, message).into());
                }
                None => {
                    let end = self.source.text().len();
                    return Err(self
                        .finding(end..end, "not valid YAML: it ends early")
                        .into());
                }
            }
        }
    }

    fn node(&mut self, event: Event<'s>, span: Span) -> Result<Node, Report> {
        self.count(1, &span)?;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = match tag {
                    Some(tag) if tag.is_yaml_core_schema() && tag.suffix() == "str" => true,
                    Some(_) => {
                        self.no_tags(&span);
                        false
                    }
                    None => false,
                };
                let plain = style == ScalarStyle::Plain && !tagged;
                let kind = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Kind::Null
                } else {
                    let text = text.into_owned();
                    Kind::Scalar { text, plain }
                };
                Ok(self.anchored(anchor, bytes(&span), kind))
            }
            Event::SequenceStart(_, anchor, tag) => {
                if tag.is_some() {
                    self.no_tags(&span);
                }
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => {
                            let span = bytes(&span).start..bytes(&end).end;
                            return Ok(self.anchored(anchor, span, Kind::List(items)));
                        }
                        (event, span) => items.push(self.node(event, span)?),
                    }
                }
            }
            Event::MappingStart(_, anchor, tag) => {
                if tag.is_some() {
                    self.no_tags(&span);
                }
                let mut entries: Vec<(Key, Node)> = Vec::new();
                loop {
                    let (event, key_span) = self.next()?;
                    if matches!(event, Event::MappingEnd) {
                        let span = bytes(&span).start..bytes(&key_span).end;
                        return Ok(self.anchored(anchor, span, Kind::Map(entries)));
                    }
                    let key = self.key(event, key_span)?;
                    let (event, span) = self.next()?;
                    let value = self.node(event, span)?;
                    if entries.iter().any(|(other, _)| other.text == key.text) {
                        let message = format!("the key {:?} is given twice", key.text);
                        let finding = self.finding(key.span.clone(), message);
                        self.report.add(finding);
                    } else {
                        entries.push((key, value));
                    }
                }
            }
            Event::Alias(id) => {
                // Absent only while the anchored value itself is being read.
                let Some(mut node) = self.anchors.get(&id).cloned() else {
                    return Err(self
                        .finding(bytes(&span), "an alias within what it stands for")
                        .into());
                };
                self.count(size(&node), &span)?;
                node.span = bytes(&span);
                Ok(node)
            }
            other => Err(self
                .finding(bytes(&span), format!("unexpected {other:?}"))
                .into()),
        }
    }

    fn key(&mut self, event: Event<'s>, span: Span) -> Result<Key, Report> {
        match self.node(event, span)? {
            Node {
                span,
                kind: Kind::Scalar { text, .. },
            } => Ok(Key { text, span }),
            node => Err(self.finding(node.span, "a key has to be plain text").into()),
        }
    }

    fn anchored(&mut self, anchor: usize, span: Range<usize>, kind: Kind) -> Node {
        let node = Node { span, kind };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        node
    }

    /// Stops documents whose aliases multiply.
    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Report> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self
                .finding(
                    bytes(span),
                    format!("more than {MAX_NODES} values, aliases included"),
                )
                .into());
        }
        Ok(())
    }

    fn no_tags(&mut self, span: &Span) {
        let finding = self.finding(bytes(span), "YAML tags have no meaning here");
        self.report.add(finding);
    }

    fn finding(&self, span: Range<usize>, message: impl Into<String>) -> Finding {
        Finding::new(message).at(Place {
            source: Arc::clone(self.source),
            span,
        })
    }
}

fn bytes(span: &Span) -> Range<usize> {
    let start = span.start.byte_offset().unwrap_or(0);
    start..span.end.byte_offset().unwrap_or(start).max(start)
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Null | Kind::Scalar { .. } => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => {
            1 + entries
                .iter()
                .map(|(_, node)| 1 + size(node))
                .sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails_with(text: &str) -> String {
        parse(&Source::new("f", text)).unwrap_err().to_string()
    }

    #[test]
    fn errors_have_places() {
        assert!(fails_with("a: 1\na: 2\n").starts_with("f:2:1: the key \"a\" is given twice"));
        assert!(fails_with("a: [1\nb: 2\n").starts_with("f:"));
        assert!(fails_with("a: !x 1\n").contains("tags"));
        assert!(fails_with("--- a\n--- b\n").contains("more than one document"));
        assert!(fails_with("a: *b\n").starts_with("f:1:4"));
        assert!(fails_with("? [1]\n: 2\n").contains("plain text"));
    }

    #[test]
    fn aliases_cannot_multiply_for_ever() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..9 {
            let item = format!("*a{},", i - 1).repeat(10);
            text.push_str(&format!("a{i}: &a{i} [{item}]\n"));
        }
        assert!(fails_with(&text).contains("values, aliases included"));
    }

    #[test]
    fn scalars_keep_their_text() {
        let node = parse(&Source::new("f", "a: 0644\nb: \"no\"\nc: ~\n")).unwrap();
        let Kind::Map(entries) = node.kind else {
            panic!("not a map")
        };
        assert!(matches!(&entries[0].1.kind, Kind::Scalar { text, plain: true } if text == "0644"));
        assert!(matches!(&entries[1].1.kind, Kind::Scalar { text, plain: false } if text == "no"));
        assert!(matches!(entries[2].1.kind, Kind::Null));
        assert_eq!(entries[1].1.span, 11..15);
    }

    #[test]
    fn nothing_is_an_empty_mapping() {
        for text in ["", "# only a comment\n", "---\n", "~\n"] {
            let node = parse(&Source::new("f", text)).unwrap();
            assert!(
                matches!(node.kind, Kind::Map(entries) if entries.is_empty()),
                "{text:?}"
            );
        }
    }
}
