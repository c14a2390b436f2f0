//! The operator's configuration laid over ours, and both written as YAML.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

/// Lays `over` over `under` as RFC 7396 (JSON Merge Patch) does: mappings key
/// by key, everything else as a whole, and `null` takes a key away.
pub fn lay(under: &mut Value, over: &Value) {
    match (under, over) {
        (_, Value::Null) => {}
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    under.remove(key);
                } else {
                    lay(under.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (under, Value::Object(over)) => {
            let mut empty = Value::Object(serde_json::Map::new());
            lay(&mut empty, &Value::Object(over.clone()));
            *under = empty;
        }
        (under, over) => *under = over.clone(),
    }
}

/// YAML that readers of YAML 1.1 and 1.2 read alike.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    let options = serde_yaml::ser_options! { folded_wrap_chars: 1_000_000 };
    serde_yaml::to_string_with_options(value, options).context("writing YAML")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn overlays_follow_rfc_7396() {
        for (under, over, result) in [
            (
                json!({"a": 1}),
                json!({"a": 2, "b": 3}),
                json!({"a": 2, "b": 3}),
            ),
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": null}}),
                json!({"a": {"c": 2}}),
            ),
            (json!({"a": [1]}), json!({"a": [2]}), json!({"a": [2]})),
            (
                json!({"a": 1}),
                json!({"a": {"b": null, "c": 1}}),
                json!({"a": {"c": 1}}),
            ),
            (json!({"a": 1}), Value::Null, json!({"a": 1})),
        ] {
            let mut laid = under;
            lay(&mut laid, &over);
            assert_eq!(laid, result);
        }
    }
}
