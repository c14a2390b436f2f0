//! From the tree to typed values, collecting findings on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use super::json;
use super::suggest::nearest;
use super::tree::{Kind, Node};
use crate::outside::Outside;
use crate::report::{Finding, Place, Report, Source};

/// A value, where it stands, and the path of keys that leads to it.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// The bytes it was read from.
    pub span: Range<usize>,
    /// `nodes[1].name`.
    pub path: String,
}

/// Reads values of one source and collects what is wrong with them.
#[derive(Debug)]
pub struct Reader {
    source: Arc<Source>,
    report: Report,
    outside: Option<Outside>,
    asked: Asked,
}

/// The keys that mappings were asked for, by the path of the mapping, with
/// `[]` for any item of a list.
pub type Asked = BTreeMap<String, BTreeSet<&'static str>>;

impl Reader {
    /// A reader that has found nothing yet.
    pub fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            report: Report::default(),
            outside: None,
            asked: Asked::new(),
        }
    }

    /// The same for a source that may refer to what is outside of it.
    pub fn referring(mut self, outside: Option<Outside>) -> Self {
        self.outside = outside;
        self
    }

    /// Where to look for what is referred to, if anywhere.
    pub(super) fn outside(&self) -> Option<&Outside> {
        self.outside.as_ref()
    }

    /// The keys that were asked for so far.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// A place that findings of later stages point to.
    pub fn place(&self, span: &Range<usize>) -> Place {
        Place {
            source: Arc::clone(&self.source),
            span: span.clone(),
        }
    }

    /// Keeps the text of `span` out of everything that is shown.
    pub fn hide(&mut self, span: &Range<usize>) {
        self.source.hide(span.clone());
    }

    /// What was found.
    pub fn into_report(self) -> Report {
        self.report
    }

    /// Adds a finding about `span`.
    pub fn find(&mut self, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        let mut finding = Finding::new(message).at(self.place(span));
        finding.help = help;
        self.report.add(finding);
    }

    /// A mapping.
    pub fn object<'n>(&mut self, node: &'n Node, path: &str) -> Option<Object<'n>> {
        match &node.kind {
            Kind::Map(entries) => Some(Object {
                span: node.span.clone(),
                path: path.to_owned(),
                entries,
                known: Vec::new(),
            }),
            _ => {
                self.wrong_kind(node, path, "a mapping of keys to values");
                None
            }
        }
    }

    /// Text, as it was typed.
    pub fn text(&mut self, node: &Node, path: &str) -> Option<At<String>> {
        match &node.kind {
            Kind::Scalar { text, .. } => Some(At {
                value: text.clone(),
                span: node.span.clone(),
                path: path.to_owned(),
            }),
            _ => {
                self.wrong_kind(node, path, "one value");
                None
            }
        }
    }

    /// Text that `parse` understands; its error becomes the finding.
    pub fn parse_with<T, E: Display>(
        &mut self,
        node: &Node,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        let text = self.text(node, path)?;
        match parse(&text.value) {
            Ok(value) => Some(At {
                value,
                span: text.span,
                path: text.path,
            }),
            Err(error) => {
                self.find(&node.span, format!("{path}: {error}"), None);
                None
            }
        }
    }

    /// Text that the type itself understands.
    pub fn parse<T>(&mut self, node: &Node, path: &str) -> Option<At<T>>
    where
        T: FromStr<Err: Display>,
    {
        self.parse_with(node, path, str::parse)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node, path: &str) -> Option<At<bool>> {
        self.parse_with(node, path, |text| match text {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
    }

    /// A list, each item read by `item`.
    pub fn list<T>(
        &mut self,
        node: &Node,
        path: &str,
        mut item: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Vec<T> {
        match &node.kind {
            Kind::List(items) => items
                .iter()
                .enumerate()
                .filter_map(|(i, node)| item(self, node, &format!("{path}[{i}]")))
                .collect(),
            _ => {
                self.wrong_kind(node, path, "a list");
                Vec::new()
            }
        }
    }

    /// A part of some other program's configuration, kept as it is.
    pub fn fragment(&mut self, node: &Node, path: &str) -> Option<serde_json::Value> {
        if !matches!(node.kind, Kind::Map(_)) {
            self.wrong_kind(node, path, "a mapping of keys to values");
            return None;
        }
        json::value(self, node, path)
    }

    pub(super) fn wrong_kind(&mut self, node: &Node, path: &str, expected: &str) {
        let found = match &node.kind {
            Kind::Null => "nothing",
            Kind::Scalar { .. } => "one value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        };
        let message = if path.is_empty() {
            format!("expected {expected}, found {found}")
        } else {
            format!("{path}: expected {expected}, found {found}")
        };
        self.find(&node.span, message, None);
    }
}

/// A mapping whose keys are asked for one by one; what was never asked for is
/// unknown.
#[derive(Debug)]
pub struct Object<'n> {
    /// Where the mapping stands.
    pub span: Range<usize>,
    /// The path that leads to it.
    pub path: String,
    entries: &'n [(super::tree::Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> Object<'n> {
    /// The value of a key and its path; a key with nothing behind it is as good
    /// as absent.
    pub fn get(&mut self, key: &'static str) -> Option<(&'n Node, String)> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let (_, node) = self.entries.iter().find(|(k, _)| k.text == key)?;
        let absent = matches!(node.kind, Kind::Null);
        (!absent).then(|| (node, self.path_of(key)))
    }

    /// The value of a key, read by `read`.
    pub fn read<T>(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
        read: impl FnOnce(&mut Reader, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        let (node, path) = self.get(key)?;
        read(reader, node, &path)
    }

    /// The same for a key that has to be there.
    pub fn required<T>(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
        read: impl FnOnce(&mut Reader, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some((node, path)) => read(reader, node, &path),
            None => {
                let path = self.path_of(key);
                let span = self.span.clone();
                reader.find(&span, format!("{path}: missing"), None);
                None
            }
        }
    }

    /// A list that may be given as one value under its singular name.
    pub fn one_or_many<T>(
        &mut self,
        reader: &mut Reader,
        one: &'static str,
        many: &'static str,
        mut item: impl FnMut(&mut Reader, &Node, &str) -> Option<T>,
    ) -> Vec<T> {
        let single = self.get(one);
        let list = self.get(many);
        match (single, list) {
            (Some((node, path)), None) => item(reader, node, &path).into_iter().collect(),
            (None, Some((node, path))) => reader.list(node, &path, item),
            (None, None) => Vec::new(),
            (Some((_, path)), Some((node, _))) => {
                let message = format!("{path}: give either {one} or {many}, not both");
                reader.find(&node.span, message, None);
                Vec::new()
            }
        }
    }

    /// Every entry, for mappings whose keys are the user's own.
    pub fn entries(&mut self) -> impl Iterator<Item = (&'n super::tree::Key, &'n Node)> + use<'n> {
        self.entries.iter().map(|(key, node)| (key, node))
    }

    /// Every key that was not asked for becomes a finding.
    pub fn finish(self, reader: &mut Reader) {
        let asked = reader.asked.entry(any_item(&self.path)).or_default();
        asked.extend(self.known.iter().copied());
        for (key, _) in self.entries {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let help = match nearest(&key.text, self.known.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("known keys here: {}", self.known.join(", ")),
            };
            let path = self.path_of(&key.text);
            reader.find(&key.span, format!("{path}: unknown key"), Some(help));
        }
    }

    /// The path of one of its keys.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// A path with every index left out: `nodes[].labels`.
fn any_item(path: &str) -> String {
    let mut parts = path.split('[');
    let mut any = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        any.push('[');
        any.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    any
}
