//! TOML from a mapping: as much of it as a configuration file needs.
//!
//! Source: TOML v1.0.0.

use serde_json::{Map, Value};

/// A document. Keys with `null` are left out: TOML has no such value.
pub fn document(root: &Map<String, Value>) -> String {
    let mut text = String::new();
    table(&mut text, "", root);
    text
}

/// The table's values, then the tables in it, each with its own header.
fn table(text: &mut String, path: &str, fields: &Map<String, Value>) {
    let is_table = |value: &Value| value.is_object();
    for (name, value) in fields.iter().filter(|(_, value)| !is_table(value)) {
        if !value.is_null() {
            text.push_str(&format!("{} = {}\n", key(name), inline(value)));
        }
    }
    for (name, value) in fields {
        let Value::Object(inner) = value else {
            continue;
        };
        let path = match path {
            "" => key(name),
            path => format!("{path}.{}", key(name)),
        };
        // Those that only hold other tables need no header, empty ones do.
        if inner.is_empty() || !inner.values().all(is_table) {
            text.push_str(&format!("\n[{path}]\n"));
        }
        table(text, &path, inner);
    }
}

/// A value on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(values) => {
            let values: Vec<String> = values
                .iter()
                .filter(|value| !value.is_null())
                .map(inline)
                .collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| format!("{} = {}", key(name), inline(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
        // JSON's numbers and truth values are TOML's.
        other => other.to_string(),
    }
}

fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.bytes().all(bare) {
        return name.to_owned();
    }
    string(name)
}

/// A basic string: JSON's escapes, and DEL, which TOML wants escaped as well.
fn string(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn tables_come_after_values_and_odd_keys_are_quoted() {
        let config = json!({
            "version": 3,
            "gone": null,
            "debug": {"level": "info"},
            "plugins": {"io.containerd.cri.v1.runtime": {
                "empty": {},
                "enable_cdi": true,
                "list": [1, "two", {"three": 3.5}],
            }},
        });
        let text = document(config.as_object().unwrap());
        assert_eq!(
            text,
            "version = 3\n\
             \n[debug]\nlevel = \"info\"\n\
             \n[plugins.\"io.containerd.cri.v1.runtime\"]\n\
             enable_cdi = true\n\
             list = [1, \"two\", { three = 3.5 }]\n\
             \n[plugins.\"io.containerd.cri.v1.runtime\".empty]\n"
        );
    }

    /// Anything that a mapping can hold, but `null`.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn another_reader_reads_what_was_written(
            fields in prop::collection::btree_map(any::<String>(), value(), 0..4)
        ) {
            let fields: Map<String, Value> = fields.into_iter().collect();
            let text = document(&fields);
            let read: Value = toml::from_str(&text).expect(&text);
            prop_assert_eq!(read, Value::Object(fields));
        }
    }
}
