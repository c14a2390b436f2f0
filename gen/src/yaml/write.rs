//! A tree written as YAML again: what was plain stays plain, so that it means
//! to every reader what it meant before; everything else is quoted as JSON
//! does, which YAML 1.2 (7.3.1) takes. Aliases are written out; comments go.

use super::tree::{Kind, Node};

/// Writes a mapping or a list.
pub fn write(node: &Node) -> String {
    let mut text = String::new();
    match &node.kind {
        Kind::Map(entries) if !entries.is_empty() => block(node, 0, &mut text),
        Kind::List(items) if !items.is_empty() => block(node, 0, &mut text),
        _ => {
            text.push_str(&inline(node));
            text.push('\n');
        }
    }
    text
}

fn block(node: &Node, depth: usize, text: &mut String) {
    let pad = " ".repeat(depth);
    match &node.kind {
        Kind::Map(entries) => {
            for (i, (key, value)) in entries.iter().enumerate() {
                // The first stands behind its item's dash.
                if i > 0 || !text.ends_with("- ") {
                    text.push_str(&pad);
                }
                text.push_str(&format!("{}:", key_of(&key.text)));
                behind(value, depth, text);
            }
        }
        Kind::List(items) => {
            for item in items {
                text.push_str(&format!("{pad}-"));
                match &item.kind {
                    Kind::Map(entries) if !entries.is_empty() => {
                        text.push(' ');
                        block(item, depth + 2, text);
                    }
                    Kind::List(items) if !items.is_empty() => {
                        text.push('\n');
                        block(item, depth + 2, text);
                    }
                    _ => {
                        text.push_str(&format!(" {}\n", inline(item)));
                    }
                }
            }
        }
        Kind::Null | Kind::Scalar { .. } => {}
    }
}

/// The value of a key.
fn behind(value: &Node, depth: usize, text: &mut String) {
    match &value.kind {
        Kind::Map(entries) if !entries.is_empty() => {
            text.push('\n');
            block(value, depth + 2, text);
        }
        Kind::List(items) if !items.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        _ => {
            text.push_str(&format!(" {}\n", inline(value)));
        }
    }
}

fn inline(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Map(_) => "{}".to_owned(),
        Kind::List(_) => "[]".to_owned(),
        // A plain scalar over several lines was folded into one; what may
        // stand in it may stand in one line.
        Kind::Scalar { text, plain: true } if !text.contains('\n') => text.clone(),
        Kind::Scalar { text, .. } => quoted(text),
    }
}

fn key_of(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.bytes().all(plain) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;
    use crate::yaml::parse;

    /// What serde reads from a text, with the types that it sees.
    fn meaning(text: &str) -> serde_json::Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_written_means_what_was_read() {
        for text in [
            "a: 1\nb: 'yes'\nc: yes\nd: \"1\"\n",
            "a:\n- b: 1\n  c:\n  - d\n  - - e\n    - f\n- {}\n- []\n",
            "{\"a\": [1, {\"b\": null}], \"c d\": \"e\\n\\t\\u00e9\"}",
            "a: |\n  two\n  lines\nb: >-\n  one\n  line\nc: plain\n  over lines\n",
            "a: &x {b: 1}\nc: *x\n",
            "'on': 1\n'1': 2\n? yes\n: 3\n",
            "a: # comment\n  b: 'it''s'\n",
            "- a\n- b: c\n  d: e\n",
            "[]",
        ] {
            let node = parse(&Source::new("t", text)).unwrap();
            let written = write(&node);
            assert_eq!(meaning(&written), meaning(text), "{text}\n{written}");
            let again = write(&parse(&Source::new("t", written.as_str())).unwrap());
            assert_eq!(again, written);
        }
    }
}
