//! The lock's text with entries put in and taken out: what the operator wrote
//! around them stays as it is, comments too.

use std::ops::Range;
use std::sync::Arc;

use super::lock::{Entry, Lock, Origin, packing_of};
use crate::report::{Report, Source};
use crate::yaml::{self, Kind};

/// How a lock begins that was not there.
const HEADER: &str = "\
# What machines download, pinned by checksums: kgen lock writes what is
# published, and keeps what else is here.
version: 1
artifacts:
";

/// A new text for the lock.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text.
    pub text: String,
    /// Whether comments were lost, since the list was not written item by item.
    pub lost_comments: bool,
}

/// The lock's text (none: there is no lock yet) without the entries in
/// `gone` and with those of `new` behind the others.
///
/// # Errors
///
/// What is wrong with the text as it is.
pub fn edit(old: Option<&Arc<Source>>, gone: &[&Entry], new: &[Entry]) -> Result<Edited, Report> {
    let Some(source) = old.filter(|source| !source.text().trim().is_empty()) else {
        return Ok(Edited {
            text: HEADER.to_owned() + &written(new),
            lost_comments: false,
        });
    };
    let mut wanted: Vec<Entry> = Lock::load(source)?
        .entries()
        .iter()
        .filter(|e| e.origin == Origin::User && !gone.contains(e))
        .cloned()
        .collect();
    wanted.extend(new.iter().cloned());
    if let Some(text) = in_place(source, gone, new)?
        && holds(&text, &wanted)
    {
        return Ok(Edited {
            text,
            lost_comments: false,
        });
    }
    Ok(Edited {
        text: HEADER.to_owned() + &written(&wanted),
        lost_comments: source.text().contains('#'),
    })
}

/// Whether a text is a lock of exactly these entries.
fn holds(text: &str, wanted: &[Entry]) -> bool {
    let Ok(lock) = Lock::load(&Source::new("the new lock", text)) else {
        return false;
    };
    let user = lock.entries().iter().filter(|e| e.origin == Origin::User);
    user.map(plain).eq(wanted.iter().map(plain))
}

fn plain(entry: &Entry) -> Entry {
    Entry {
        origin: Origin::User,
        ..entry.clone()
    }
}

/// The text with items taken out and put in line by line; none where it is
/// not a list of one item a line or more.
fn in_place(
    source: &Arc<Source>,
    gone: &[&Entry],
    new: &[Entry],
) -> Result<Option<String>, Report> {
    let root = yaml::parse(source)?;
    let Some(list) = root.get("artifacts").map(|node| &node.kind) else {
        return Ok(None);
    };
    let Kind::List(items) = list else {
        return Ok(None);
    };
    let text = source.text();
    let mut lines = Vec::new();
    for item in items {
        let Some(range) = item_lines(text, item.span.start) else {
            return Ok(None);
        };
        lines.push(range);
    }
    let Some(last) = lines.last().cloned() else {
        return Ok(None);
    };
    let indent = indent_of(&text[last.start..]);
    let entries = Lock::load(source)?;
    let user = entries
        .entries()
        .iter()
        .filter(|e| e.origin == Origin::User);
    let mut edited = String::new();
    let mut at = 0;
    for (entry, range) in user.zip(&lines) {
        if gone.contains(&entry) {
            edited.push_str(&text[at..range.start]);
            at = range.end;
        }
    }
    edited.push_str(&text[at.min(last.end)..last.end]);
    if !edited.is_empty() && !edited.ends_with('\n') {
        edited.push('\n');
    }
    let pad = " ".repeat(indent);
    for line in written(new).lines() {
        edited.push_str(&format!("{pad}{line}\n"));
    }
    edited.push_str(&text[at.max(last.end)..]);
    Ok(Some(edited))
}

/// The lines of a list's item whose content begins at `start`: from its dash
/// to the last line that belongs to it.
fn item_lines(text: &str, start: usize) -> Option<Range<usize>> {
    let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let before = &text[begin..start];
    if before.trim() != "-" {
        return None;
    }
    let indent = indent_of(before);
    let mut end = begin;
    let mut at = begin;
    for (i, line) in text[begin..].split_inclusive('\n').enumerate() {
        let content = line.trim();
        let belongs = i == 0 || content.is_empty() || indent_of(line) > indent;
        if !belongs {
            break;
        }
        at += line.len();
        // Blank lines and comments behind an item are the next one's.
        if !content.is_empty() && !content.starts_with('#') {
            end = at;
        }
    }
    Some(begin..end)
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Entries as items of a list.
fn written(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let Entry {
            name,
            version,
            arch,
            ..
        } = entry;
        text.push_str(&format!(
            "- name: {name}\n  version: {version}\n  arch: {arch}\n  urls:\n"
        ));
        for url in &entry.urls {
            // Quoted: an address may have what YAML reads as something else.
            text.push_str(&format!(
                "  - \"{}\"\n",
                url.replace('\\', "\\\\").replace('"', "\\\"")
            ));
        }
        text.push_str(&format!(
            "  {}: {}\n",
            entry.digest.algorithm(),
            entry.digest.hex()
        ));
        if let Some(size) = entry.size {
            text.push_str(&format!("  size: {size}\n"));
        }
        if entry.packing != packing_of(&entry.urls) {
            text.push_str(&format!("  packing: {}\n", entry.packing.as_str()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
# Ours.
version: 1
artifacts:
  # Built here, do not touch.
  - {name: knode, version: 0.1.0, arch: amd64, url: 'http://m/knode',
     sha256: 0000000000000000000000000000000000000000000000000000000000000000}

  # The store.
  - name: etcd   # pinned
    version: 3.5.9
    arch: amd64
    url: http://m/etcd.tgz
    sha256: 1111111111111111111111111111111111111111111111111111111111111111
  # The end.
";

    fn entries(text: &str) -> Vec<Entry> {
        let lock = Lock::load(&Source::new("kgen.lock", text)).unwrap();
        let user = lock.entries().iter().filter(|e| e.origin == Origin::User);
        user.cloned().collect()
    }

    fn new() -> Vec<Entry> {
        entries(&format!(
            "version: 1\nartifacts:\n- {{name: etcd, version: 3.6.14, arch: amd64, \
             urls: ['http://m/etcd.tgz'], sha256: {}, size: 7}}\n",
            "22".repeat(32)
        ))
    }

    #[test]
    fn what_is_around_an_entry_stays() {
        let source = Source::new("kgen.lock", OLD);
        let old = entries(OLD);
        let edited = edit(Some(&source), &[&old[1]], &new()).unwrap();
        assert!(!edited.lost_comments);
        let (before, _) = OLD.split_once("  - name: etcd").unwrap();
        let new = "  - name: etcd\n    version: 3.6.14\n    arch: amd64\n    urls:\n    \
                   - \"http://m/etcd.tgz\"\n    sha256: ";
        assert_eq!(
            edited.text,
            format!(
                "{before}{new}{}\n    size: 7\n  # The end.\n",
                "22".repeat(32)
            )
        );
        // Nothing to do is nothing done.
        assert_eq!(edit(Some(&source), &[], &[]).unwrap().text, OLD);
        let edited = edit(Some(&source), &[&old[0], &old[1]], &[]).unwrap();
        assert_eq!(entries(&edited.text).len(), 0, "{}", edited.text);
    }

    #[test]
    fn a_list_in_one_line_is_written_anew_and_said_to_be() {
        let old = format!(
            "# Gone.\nversion: 1\nartifacts: [{{name: knode, version: 1, arch: arm64, \
             url: 'http://m/k', packing: gz, sha256: {}}}]\n",
            "00".repeat(32)
        );
        let source = Source::new("kgen.lock", old.as_str());
        let edited = edit(Some(&source), &[], &new()).unwrap();
        assert!(edited.lost_comments);
        let both = entries(&edited.text);
        assert_eq!(both[0], entries(&old)[0]);
        assert_eq!(both[1], new()[0]);
        let none = edit(None, &[], &new()).unwrap();
        assert_eq!(entries(&none.text), new());
    }
}
