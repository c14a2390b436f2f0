//! Parts of other programs' configuration, which Kubernetes reads as YAML 1.1
//! and we as 1.2: what the two read differently has to be written so that it
//! is clear.

use serde_json::{Map, Number, Value};

use super::read::Reader;
use super::tree::{Kind, Node};

/// The value of `node` with the types of YAML's core schema; none, with a
/// finding, where it is ambiguous.
pub fn value(reader: &mut Reader, node: &Node, path: &str) -> Option<Value> {
    match &node.kind {
        Kind::Null => Some(Value::Null),
        Kind::Scalar { text, plain: false } => Some(Value::String(text.clone())),
        Kind::Scalar { text, plain: true } => match scalar(text) {
            Ok(value) => Some(value),
            Err(help) => {
                let message = format!("{path}: {text} can be read in two ways");
                reader.find(&node.span, message, Some(help.to_owned()));
                None
            }
        },
        Kind::List(items) => {
            let items: Vec<_> = items
                .iter()
                .enumerate()
                .map(|(i, item)| value(reader, item, &format!("{path}[{i}]")))
                .collect();
            items.into_iter().collect::<Option<_>>().map(Value::Array)
        }
        Kind::Map(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, item)| {
                    let value = value(reader, item, &format!("{path}.{}", key.text));
                    value.map(|value| (key.text.clone(), value))
                })
                .collect();
            entries
                .into_iter()
                .collect::<Option<Map<_, _>>>()
                .map(Value::Object)
        }
    }
}

fn scalar(text: &str) -> Result<Value, &'static str> {
    match text {
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if ["yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
    {
        return Err("write true or false, or put the word in quotes");
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(Value::String(text.to_owned()));
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("write the number in decimal without a leading 0, or put it in quotes");
    }
    let sexagesimal = digits.contains(':')
        && digits
            .split(':')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let unusual = digits.starts_with("0x")
        || digits.starts_with("0o")
        || digits.starts_with("0b")
        || (digits.contains('_') && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_'));
    if sexagesimal || unusual {
        return Err("write a plain decimal number, or put it in quotes");
    }
    let number = text.strip_prefix('+').unwrap_or(text);
    if let Ok(integer) = number.parse::<i64>() {
        return Ok(integer.into());
    }
    if number
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && let Some(float) = number.parse::<f64>().ok().and_then(Number::from_f64)
    {
        return Ok(Value::Number(float));
    }
    Ok(Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_typed_or_refused() {
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("12", 12.into()),
            ("-3", (-3).into()),
            ("0", 0.into()),
            ("0.5", serde_json::json!(0.5)),
            ("1m0s", "1m0s".into()),
            ("100Mi", "100Mi".into()),
            ("10.0.0.1", "10.0.0.1".into()),
            ("fd00::1", "fd00::1".into()),
            ("Yesterday", "Yesterday".into()),
        ] {
            assert_eq!(scalar(text), Ok(value), "{text}");
        }
        for text in ["yes", "NO", "On", "0644", "12:30:45", "0x1f", "1_000", "y"] {
            assert!(scalar(text).is_err(), "{text}");
        }
    }
}
