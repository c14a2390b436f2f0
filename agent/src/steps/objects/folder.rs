//! The folder of objects that a master applies: files of YAML, each with one
//! or several documents.

use std::ffi::OsString;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Code, Error, Result};
use crate::sys::root::{Kind, Root};
use units::paths;

/// What is in the folder.
#[derive(Debug, Default)]
pub struct Folder {
    /// Objects in the order in which they are applied, each with its file.
    pub objects: Vec<(String, Value)>,
    /// Files that could not be read, and why; nothing of their text.
    pub unreadable: Vec<Error>,
}

/// What changes when the folder does.
pub type Stamp = Vec<(OsString, SystemTime, u64)>;

/// A stamp of the folder; empty where there is none.
pub fn stamp(root: &Root) -> Stamp {
    let Ok(entries) = root.list(paths::OBJECTS_DIR) else {
        return Stamp::new();
    };
    let stat = |name: OsString| {
        let path = std::path::Path::new(paths::OBJECTS_DIR).join(&name);
        let stat = root.stat(path).ok().flatten()?;
        Some((name, stat.modified, stat.len))
    };
    entries.into_iter().filter_map(|e| stat(e.name)).collect()
}

/// Reads the folder; one that is not there is empty. Tokens that are no longer
/// good are left out.
///
/// # Errors
///
/// [`Code::Disk`]: the folder itself cannot be listed.
pub fn read(root: &Root, now: OffsetDateTime) -> Result<Folder> {
    let mut folder = Folder::default();
    if !root.exists(paths::OBJECTS_DIR)? {
        return Ok(folder);
    }
    for entry in root.list(paths::OBJECTS_DIR)? {
        let name = entry.name.to_string_lossy().into_owned();
        let wanted = [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e));
        if entry.kind == Kind::Dir || name.starts_with('.') || !wanted {
            continue;
        }
        let path = format!("{}/{name}", paths::OBJECTS_DIR);
        let parsed = root
            .read_to_string(&path)
            .map_err(Error::from)
            .and_then(|text| parse(&text, &path));
        match parsed {
            Ok(objects) => {
                let good = objects.into_iter().filter(|o| !expired_token(o, now));
                folder.objects.extend(good.map(|o| (path.clone(), o)));
            }
            Err(error) => folder.unreadable.push(error),
        }
    }
    // What others live in comes first; files keep their order otherwise.
    folder
        .objects
        .sort_by_key(|(_, object)| match object["kind"].as_str() {
            Some("Namespace") => 0,
            Some("CustomResourceDefinition") => 1,
            _ => 2,
        });
    Ok(folder)
}

/// The objects of a file; lists are opened.
fn parse(text: &str, path: &str) -> Result<Vec<Value>> {
    let wrong = |what: String| Error::new(Code::ConfigInvalid, format!("{path} {what}"));
    // As kubectl reads it: YAML 1.1, where 0644 is octal.
    let options = serde_yaml::options! { with_snippet: false, legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_yaml::from_multiple_with_options(text, options)
        .map_err(|error| wrong(format!("is not YAML: {error}")))?;
    let mut objects = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
                match list.remove("items") {
                    Some(Value::Array(items)) => objects.extend(items),
                    _ => return Err(wrong("has a list without items".to_owned())),
                }
            }
            object => objects.push(object),
        }
    }
    for object in &objects {
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            let text = object.pointer(field).and_then(Value::as_str);
            if text.is_none_or(|text| text.is_empty() || text.contains(['?', '#', '%'])) {
                return Err(wrong(format!(
                    "has an object without {}",
                    field[1..].replace('/', ".")
                )));
            }
        }
        let labels = &object["metadata"]["labels"];
        if !labels.is_null() && !labels.is_object() {
            return Err(wrong(
                "has an object whose labels are no mapping".to_owned(),
            ));
        }
    }
    Ok(objects)
}

/// Whether the object is a bootstrap token that is good no longer.
/// Source: Kubernetes documentation, "Authenticating with Bootstrap Tokens".
fn expired_token(object: &Value, now: OffsetDateTime) -> bool {
    if object["type"] != "bootstrap.kubernetes.io/token" {
        return false;
    }
    let plain = object["stringData"]["expiration"].as_str();
    let expires = plain.map(str::to_owned).or_else(|| {
        let packed = BASE64.decode(object["data"]["expiration"].as_str()?).ok()?;
        String::from_utf8(packed).ok()
    });
    expires
        .and_then(|expires| OffsetDateTime::parse(&expires, &Rfc3339).ok())
        .is_some_and(|expires| now >= expires)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const TOKEN: &str = "apiVersion: v1\nkind: Secret\ntype: bootstrap.kubernetes.io/token\n\
        metadata: {name: bootstrap-token-abcdef, namespace: kube-system}\n\
        stringData: {token-id: abcdef, expiration: '2026-12-01T00:00:00Z'}\n";

    fn folder(files: &[(&str, &str)], now: OffsetDateTime) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert!(read(&root, now).unwrap().objects.is_empty());
        assert!(stamp(&root).is_empty());
        root.create_dir(paths::OBJECTS_DIR, 0o700).unwrap();
        let empty = stamp(&root);
        for (name, text) in files {
            let path = format!("{}/{name}", paths::OBJECTS_DIR);
            root.write_atomic(path, text.as_bytes(), 0o600).unwrap();
        }
        assert_ne!(stamp(&root), empty);
        read(&root, now).unwrap()
    }

    /// P43: several documents, lists, and modes as kubectl reads them.
    #[test]
    fn files_are_read_as_kubectl_reads_them() {
        let text = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n\
             spec: {defaultMode: 0644, on: yes, plain: '0644'}\n---\n---\n\
             apiVersion: v1\nkind: List\nitems:\n\
             - {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n";
        let found = folder(
            &[("a.yaml", text), ("b.txt", "no"), (".c.yaml", "no")],
            datetime!(2026-06-01 0:00 UTC),
        );
        assert!(found.unreadable.is_empty(), "{:?}", found.unreadable);
        let kinds: Vec<&str> = found
            .objects
            .iter()
            .filter_map(|(_, o)| o["kind"].as_str())
            .collect();
        assert_eq!(kinds, ["Namespace", "ConfigMap"]);
        let spec = &found.objects[1].1["spec"];
        assert_eq!(spec["defaultMode"], 0o644);
        assert_eq!(spec["plain"], "0644");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_its_text_is_not() {
        for bad in [
            "password: [unclosed",
            "apiVersion: v1\nkind: Secret\npassword: x\n",
            "password",
            "kind: List\napiVersion: v1\n",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a, labels: password}\n",
        ] {
            let found = folder(
                &[("a.yaml", TOKEN), ("bad.yaml", bad)],
                datetime!(2026-06-01 0:00 UTC),
            );
            assert_eq!(found.objects.len(), 1);
            let story = found.unreadable[0].story();
            assert!(story.contains("bad.yaml"), "{story}");
            assert!(!story.contains("password"), "{story}");
        }
    }

    /// P15: a token is not applied again when it has expired.
    #[test]
    fn expired_tokens_are_left_out() {
        let count = |now| folder(&[("t.yaml", TOKEN)], now).objects.len();
        assert_eq!(count(datetime!(2026-11-30 23:59:59 UTC)), 1);
        assert_eq!(count(datetime!(2026-12-01 0:00 UTC)), 0);
        let packed = TOKEN.replace("stringData", "data").replace(
            "'2026-12-01T00:00:00Z'",
            &BASE64.encode("2026-12-01T00:00:00Z"),
        );
        let found = folder(&[("t.yaml", &packed)], datetime!(2027-01-01 0:00 UTC));
        assert!(found.objects.is_empty());
    }
}
