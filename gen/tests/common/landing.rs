//! What a document of any language brings onto a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Document;

/// Files, the host name, and what starts with the machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Landing {
    pub hostname: String,
    /// Path → permission bits and bytes.
    pub files: BTreeMap<String, (u32, Vec<u8>)>,
    pub enabled: BTreeSet<String>,
    /// Path → owner, where it is not root's.
    pub owners: BTreeMap<String, String>,
    /// Account → keys; the image's own account is `""`.
    pub keys: BTreeMap<String, Vec<String>>,
}

impl Landing {
    /// Reads a document of any language.
    pub fn of(text: &str) -> Self {
        if text.starts_with('{') {
            Self::of_ignition(text)
        } else {
            Self::of_cloud_config(text)
        }
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> String {
        let file = self.files.get(path);
        let (_, bytes) = file.unwrap_or_else(|| panic!("{path} is missing"));
        String::from_utf8(bytes.clone()).unwrap()
    }

    /// What the machine is.
    pub fn node_config(&self) -> units::NodeConfig {
        serde_yaml::from_str(&self.text("/etc/knode/node.yaml")).unwrap()
    }

    /// Whether any file has this text in it, in base64 as well.
    pub fn holds(&self, text: &str) -> bool {
        let packed = STANDARD.encode(text);
        self.files.values().any(|(_, bytes)| {
            let bytes = String::from_utf8_lossy(bytes);
            bytes.contains(text) || bytes.contains(&packed)
        })
    }
}

impl Landing {
    /// Reads a document of either cloud-config.
    pub fn of_cloud_config(text: &str) -> Self {
        let document = Document::parse(text);
        let owners = document.write_files.iter();
        let owners = owners
            .filter(|f| f.owner != "root:root")
            .map(|f| (f.path.clone(), f.owner.clone()))
            .collect();
        let mut keys = BTreeMap::new();
        if !document.ssh_authorized_keys.is_empty() {
            keys.insert(String::new(), document.ssh_authorized_keys.clone());
        }
        for user in document.users.iter().filter(|u| u.is_object()) {
            let own = list(&user["ssh_authorized_keys"]);
            keys.insert(string(&user["name"]), own.iter().map(string).collect());
        }
        let bits = |mode: &str| u32::from_str_radix(mode, 8).unwrap();
        let mut enabled: BTreeSet<String> = document
            .coreos
            .units
            .iter()
            .filter(|unit| unit.enable)
            .map(|unit| unit.name.clone())
            .collect();
        for command in &document.runcmd {
            if command[..2] == ["systemctl", "enable"] {
                enabled.extend(
                    command
                        .iter()
                        .skip(2)
                        .filter(|w| !w.starts_with('-'))
                        .cloned(),
                );
            }
        }
        Self {
            hostname: document.hostname.clone(),
            files: document
                .files()
                .into_iter()
                .map(|(path, (mode, bytes))| (path, (bits(&mode), bytes)))
                .collect(),
            enabled,
            owners,
            keys,
        }
    }

    /// Reads an Ignition document, but what it fetches.
    pub fn of_ignition(text: &str) -> Self {
        let document: Value = serde_json::from_str(text).unwrap();
        assert_eq!(document["ignition"]["version"], "3.3.0");
        let mut files = BTreeMap::new();
        let mut add = |path: String, mode: u32, bytes: Vec<u8>| {
            let again = files.insert(path.clone(), (mode, bytes));
            assert!(again.is_none(), "{path} twice");
        };
        for file in list(&document["storage"]["files"]) {
            assert_eq!(file["overwrite"], true);
            if let Some(bytes) = data(&file["contents"]) {
                let mode = u32::try_from(file["mode"].as_u64().unwrap()).unwrap();
                add(string(&file["path"]), mode, bytes);
            }
        }
        let mut owners = BTreeMap::new();
        for file in list(&document["storage"]["files"]) {
            let part = |owner: &Value| match owner["id"].as_u64() {
                Some(id) => id.to_string(),
                None => string(&owner["name"]),
            };
            if file["user"].is_object() {
                let owner = format!("{}:{}", part(&file["user"]), part(&file["group"]));
                owners.insert(string(&file["path"]), owner);
            }
        }
        let mut keys = BTreeMap::new();
        for user in list(&document["passwd"]["users"]) {
            let name = string(&user["name"]);
            let name = if name == "core" { String::new() } else { name };
            let own = list(&user["sshAuthorizedKeys"]);
            keys.insert(name, own.iter().map(string).collect());
        }
        let mut enabled = BTreeSet::new();
        for unit in list(&document["systemd"]["units"]) {
            let name = string(&unit["name"]);
            let path = format!("/etc/systemd/system/{name}");
            if let Some(text) = unit["contents"].as_str() {
                add(path.clone(), 0o644, text.as_bytes().to_vec());
            }
            for drop_in in list(&unit["dropins"]) {
                let path = format!("{path}.d/{}", string(&drop_in["name"]));
                add(path, 0o644, string(&drop_in["contents"]).into_bytes());
            }
            if unit["enabled"] == true {
                enabled.insert(name);
            }
        }
        let (_, hostname) = files.remove("/etc/hostname").unwrap_or_default();
        Self {
            hostname: String::from_utf8(hostname).unwrap().trim_end().to_owned(),
            files,
            enabled,
            owners,
            keys,
        }
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The bytes of a data URL; none of another.
fn data(contents: &Value) -> Option<Vec<u8>> {
    let (header, body) = contents["source"]
        .as_str()?
        .strip_prefix("data:")?
        .split_once(',')?;
    let bytes = match header {
        "" => unescape(body),
        ";base64" => STANDARD.decode(body).unwrap(),
        other => panic!("{other}"),
    };
    Some(match contents["compression"].as_str() {
        None => bytes,
        Some("gzip") => {
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..])
                .read_to_end(&mut unpacked)
                .unwrap();
            unpacked
        }
        Some(other) => panic!("{other}"),
    })
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(&rest[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    bytes
}
