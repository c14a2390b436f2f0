//! `addons.manifests`: the operator's own objects, read as the masters' agents
//! will read them, so that what is wrong is told before anything boots.

use std::collections::BTreeMap;

use serde_json::Value;

use super::extras::origin;
use crate::system::Manifest;
use crate::yaml::{Node, Reader};

/// Reads the list of files.
pub fn read(r: &mut Reader, node: &Node, path: &str) -> Vec<Manifest> {
    let read = r.list(node, path, manifest);
    let mut seen = BTreeMap::new();
    for manifest in &read {
        let Manifest { name, origin, .. } = manifest;
        if let Some(first) = seen.insert(name, &origin.path) {
            let message = format!("{}: {first} is called {name} too", origin.path);
            r.find(&origin.place.span, message, None);
        }
    }
    read
}

/// A file beside the settings.
fn manifest(r: &mut Reader, node: &Node, path: &str) -> Option<Manifest> {
    let name = r.parse_with(node, path, |text| {
        let last = text.rsplit('/').next().unwrap_or_default();
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let stem = [".yaml", ".yml", ".json"]
            .iter()
            .find_map(|ending| last.strip_suffix(ending));
        match stem {
            Some(stem) if stem.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
                if stem.bytes().all(good) {
                    Ok(stem.to_owned())
                } else {
                    Err(format!("{last:?} has other than letters, digits and -._"))
                }
            }
            _ => Err(format!(
                "{text:?} is not the name of a file beside the settings that ends in .yaml, .yml \
                 or .json"
            )),
        }
    })?;
    let bytes = r.local_file(node, path)?.value;
    let kinds = bytes
        .expose_text()
        .ok_or_else(|| "is not text".to_owned())
        .and_then(kinds);
    match kinds {
        Ok(kinds) => Some(Manifest {
            name: name.value,
            // The API keeps these from most readers; so do documents.
            is_secret: kinds.iter().any(|kind| kind == "Secret"),
            bytes,
            origin: origin(r, node, path),
        }),
        Err(what) => {
            r.find(&node.span, format!("{path}: the file {what}"), None);
            None
        }
    }
}

/// The kinds of a file's objects; errors say nothing of its text.
fn kinds(text: &str) -> Result<Vec<String>, String> {
    // As kubectl reads it: YAML 1.1, where 0644 is octal.
    let options = serde_yaml::options! { with_snippet: false, legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_yaml::from_multiple_with_options(text, options)
        .map_err(|error| format!("is not YAML: {error}"))?;
    let mut kinds = Vec::new();
    for document in &documents {
        let list = document["kind"] == "List";
        let items = document["items"].as_array().filter(|_| list);
        if list && items.is_none() {
            return Err("has a list without items".to_owned());
        }
        let objects = match items {
            Some(items) => items.iter().collect(),
            None if document.is_null() => Vec::new(),
            None => vec![document],
        };
        for object in objects {
            kinds.push(kind(object)?);
        }
    }
    if kinds.is_empty() {
        return Err("has no object".to_owned());
    }
    Ok(kinds)
}

fn kind(object: &Value) -> Result<String, String> {
    for field in ["/apiVersion", "/kind", "/metadata/name"] {
        let text = object.pointer(field).and_then(Value::as_str);
        if text.is_none_or(|text| text.is_empty() || text.contains(['?', '#', '%'])) {
            let field = field[1..].replace('/', ".");
            return Err(format!("has an object without {field}"));
        }
    }
    let labels = &object["metadata"]["labels"];
    if !labels.is_null() && !labels.is_object() {
        return Err("has an object whose labels are no mapping".to_owned());
    }
    Ok(object["kind"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_in_documents_and_lists() {
        let text = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\n\
             apiVersion: v1\nkind: List\nitems:\n\
             - {apiVersion: v1, kind: Secret, metadata: {name: b}}\n";
        assert_eq!(kinds(text).unwrap(), ["ConfigMap", "Secret"]);
    }

    #[test]
    fn what_masters_would_not_read_is_refused_without_its_text() {
        for (text, what) in [
            ("password: [unclosed", "is not YAML"),
            ("password", "without apiVersion"),
            ("", "has no object"),
            ("apiVersion: v1\nkind: List\n", "without items"),
            ("apiVersion: v1\nkind: Secret\n", "without metadata.name"),
            (
                "{apiVersion: v1, kind: A, metadata: {name: a, labels: password}}",
                "labels",
            ),
        ] {
            let error = kinds(text).unwrap_err();
            assert!(
                error.contains(what) && !error.contains("password"),
                "{error}"
            );
        }
    }
}
