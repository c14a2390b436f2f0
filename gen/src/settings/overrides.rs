//! `--set a.b[0].c=v`: settings typed on the command line, laid over the file.

use std::sync::Arc;

use crate::report::{Finding, Report, Source};
use crate::yaml::{self, Key, Kind, Node};

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step<'t> {
    Key(&'t str),
    Index(usize),
}

/// A tree with `sets` laid over it, and the source that its places are in.
pub fn lay(
    source: &Arc<Source>,
    mut root: Node,
    sets: &[String],
) -> Result<(Arc<Source>, Node), Report> {
    let mut report = Report::default();
    let mut values = Vec::new();
    for set in sets {
        match read(set) {
            Ok(read) => values.push(read),
            Err(wrong) => report.extend(wrong),
        }
    }
    let texts: Vec<_> = values.iter().map(|v| Arc::clone(&v.source)).collect();
    let joined = Source::joined(source, &texts);
    for (i, value) in values.into_iter().enumerate() {
        let mut node = value.node;
        node.shift(joined.start(i + 1));
        if let Err(why) = put(&mut root, &value.steps, node, "") {
            report.add(Finding::new(format!("{}: {why}", value.source.name())));
        }
    }
    report.into_result()?;
    Ok((joined, root))
}

struct Set<'t> {
    source: Arc<Source>,
    steps: Vec<Step<'t>>,
    node: Node,
}

fn read(set: &str) -> Result<Set<'_>, Report> {
    let Some((path, value)) = set.split_once('=') else {
        let finding = Finding::new(format!("--set '{set}': there is no = in it"));
        return Err(finding.help("write it as in network.mtu=1450").into());
    };
    let Some(steps) = steps(path) else {
        let finding = Finding::new(format!("--set '{path}': is not the path of a setting"));
        return Err(finding
            .help("write it as in nodes[0].labels.rack=a1")
            .into());
    };
    let source = Source::new(format!("--set '{path}'"), value);
    // A value is what would stand behind the key; nothing takes the key away.
    let node = if value.trim().is_empty() {
        Node {
            span: 0..0,
            kind: Kind::Null,
        }
    } else {
        yaml::parse(&source)?
    };
    Ok(Set {
        source,
        steps,
        node,
    })
}

/// The steps of `a.b[0].c`; a key with dots stands in quotes.
fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    let mut rest = path;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (key, after) = quoted.split_once('"')?;
            steps.push(Step::Key(key));
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Key(&rest[..end]));
            rest = &rest[end..];
        }
        while let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = inner.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = after;
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => break,
            None => return None,
        }
    }
    let named = |step: &Step<'_>| !matches!(step, Step::Key(""));
    steps.iter().all(named).then_some(steps)
}

fn put(node: &mut Node, steps: &[Step<'_>], value: Node, path: &str) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *node = value;
        return Ok(());
    };
    let empty = || Node {
        span: value.span.clone(),
        kind: Kind::Null,
    };
    let here = if path.is_empty() {
        "cluster.yaml"
    } else {
        path
    };
    match (step, &mut node.kind) {
        (Step::Key(key), Kind::Null) => {
            node.kind = Kind::Map(vec![(key_of(key, &value), empty())]);
        }
        (Step::Key(key), Kind::Map(entries)) => {
            if !entries.iter().any(|(k, _)| k.text == *key) {
                entries.push((key_of(key, &value), empty()));
            }
        }
        (Step::Key(_), _) => return Err(format!("{here} is not a mapping of keys to values")),
        (Step::Index(0), Kind::Null) => node.kind = Kind::List(vec![empty()]),
        (Step::Index(i), Kind::List(items)) => {
            if *i > items.len() {
                return Err(format!("{here} has {} items only", items.len()));
            }
            if *i == items.len() {
                items.push(empty());
            }
        }
        (Step::Index(_), _) => return Err(format!("{here} is not a list")),
    }
    match (step, &mut node.kind) {
        (Step::Key(key), Kind::Map(entries)) => {
            let path = match path {
                "" => (*key).to_owned(),
                path => format!("{path}.{key}"),
            };
            match entries.iter_mut().find(|(k, _)| k.text == *key) {
                Some((_, below)) => put(below, rest, value, &path),
                None => Ok(()),
            }
        }
        (Step::Index(i), Kind::List(items)) => match items.get_mut(*i) {
            Some(below) => put(below, rest, value, &format!("{path}[{i}]")),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn key_of(key: &str, value: &Node) -> Key {
    Key {
        text: key.to_owned(),
        span: value.span.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        use Step::{Index, Key};
        for (path, expected) in [
            ("a", vec![Key("a")]),
            ("a.b[0].c", vec![Key("a"), Key("b"), Index(0), Key("c")]),
            ("a[1][2]", vec![Key("a"), Index(1), Index(2)]),
            ("a.\"b.c/d\".e", vec![Key("a"), Key("b.c/d"), Key("e")]),
            ("\"a\"", vec![Key("a")]),
        ] {
            assert_eq!(steps(path), Some(expected), "{path}");
        }
        for path in [
            "", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "[0]", "a]b[0]c", "\"a", "a[0]b",
        ] {
            assert_eq!(steps(path), None, "{path}");
        }
    }
}
