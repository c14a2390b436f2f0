//! What a static pod sees of its machine: the files that its own flags and
//! configuration name, and nothing besides.

use std::collections::BTreeMap;

use ::units::paths;
use serde_json::{Value, json};

use crate::cluster::Args;

/// Where programs look for the authorities that a machine trusts.
const CERTIFICATES: &str = "/etc/ssl/certs";
/// Flags with paths that are none of a file.
const NO_FILES: [&str; 2] = ["authorization-always-allow-paths", "etcd-prefix"];

/// A path of the machine in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The path on the machine.
    host: String,
    /// The path in the pod.
    path: String,
    /// What has to be there. Source: Kubernetes API, HostPathVolumeSource.
    kind: &'static str,
    writable: bool,
}

/// What is mounted at a path: its kind and whether it is written to.
type Found = BTreeMap<String, (&'static str, bool)>;

/// What flags name.
pub fn of_flags(flags: &Args) -> Vec<Mount> {
    let mut found = Found::new();
    let named = flags
        .iter()
        .filter(|(k, _)| !NO_FILES.contains(&k.as_str()));
    for (flag, value) in named {
        for path in value.split(',').filter(|path| path.starts_with('/')) {
            match flag.as_str() {
                "audit-log-path" => {
                    // It is rotated, so the folder is written to.
                    if let Some((folder, _)) = path.rsplit_once('/').filter(|(f, _)| !f.is_empty())
                    {
                        found.insert(folder.to_owned(), ("DirectoryOrCreate", true));
                    }
                }
                "flex-volume-plugin-dir" => {
                    found.insert(path.to_owned(), ("DirectoryOrCreate", false));
                }
                "cert-dir" => {
                    found.insert(path.to_owned(), ("DirectoryOrCreate", true));
                }
                _ => read(&mut found, path, paths::PKI),
            }
        }
    }
    list(found)
}

/// What etcd's configuration names.
pub fn of_etcd(config: &Value) -> Vec<Mount> {
    let mut found = Found::new();
    let mut named = vec![paths::ETCD_CONFIG];
    strings(config, &mut named);
    let written = ["data-dir", "wal-dir"].map(|key| config[key].as_str().unwrap_or_default());
    for path in named.into_iter().filter(|path| path.starts_with('/')) {
        if !written.contains(&path) {
            read(&mut found, path, &format!("{}/etcd", paths::PKI));
        } else if path == paths::ETCD_DATA {
            // knode makes it, for root alone.
            found.insert(path.to_owned(), ("Directory", true));
        } else {
            found.insert(path.to_owned(), ("DirectoryOrCreate", true));
        }
    }
    list(found)
}

/// The authorities that the machine trusts.
pub fn trusted() -> Mount {
    Mount {
        host: paths::TRUSTED.to_owned(),
        path: CERTIFICATES.to_owned(),
        kind: "Directory",
        writable: false,
    }
}

/// A file to read; certificates by their folder, as they are renewed.
fn read(found: &mut Found, path: &str, pki: &str) {
    let below = |folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|p| p.starts_with('/'))
    };
    if below(pki) {
        found.insert(pki.to_owned(), ("Directory", false));
    } else if below(paths::KUBERNETES) {
        found.insert(path.to_owned(), ("File", false));
    } else {
        // The operator's own: who knows what it is.
        found.insert(path.to_owned(), ("", false));
    }
}

fn strings<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(map) => map.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

fn list(found: Found) -> Vec<Mount> {
    let mounts = found.into_iter().map(|(path, (kind, writable))| Mount {
        host: path.clone(),
        path,
        kind,
        writable,
    });
    mounts.collect()
}

/// The pod's volumes, and the container's mounts of them.
pub fn both(mounts: &[Mount]) -> (Vec<Value>, Vec<Value>) {
    let named = mounts.iter().enumerate();
    named
        .map(|(number, mount)| {
            let name = name(number, &mount.host);
            let mut host = json!({"path": mount.host});
            if !mount.kind.is_empty() {
                host["type"] = json!(mount.kind);
            }
            let volume = json!({"name": name, "hostPath": host});
            let seen = json!({"name": name, "mountPath": mount.path, "readOnly": !mount.writable});
            (volume, seen)
        })
        .unzip()
}

/// A DNS label that tells the path: `0-etc-kubernetes-pki`.
fn name(number: usize, path: &str) -> String {
    let word = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let told: String = path.chars().map(word).take(50).collect();
    format!("{number}{}", told.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_names_is_mounted_as_well() {
        let flags: Args = [
            ("oidc-ca-file", "/srv/oidc/ca.crt"),
            ("audit-log-path", "/srv/audit/log"),
            ("etcd-prefix", "/registry"),
            ("client-ca-file", "/etc/kubernetes/pki/ca.crt"),
            (
                "service-account-key-file",
                "/etc/kubernetes/pki/sa.pub,/srv/old.pub",
            ),
            ("feature-gates", "A=true"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let mounts = of_flags(&flags);
        let told = mounts.iter().map(|m| (m.path.as_str(), m.kind, m.writable));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("/etc/kubernetes/pki", "Directory", false),
                ("/srv/audit", "DirectoryOrCreate", true),
                ("/srv/oidc/ca.crt", "", false),
                ("/srv/old.pub", "", false),
            ]
        );
        let (volumes, seen) = both(&mounts);
        assert_eq!(volumes[0]["name"], "0-etc-kubernetes-pki");
        assert_eq!(volumes[2]["hostPath"], json!({"path": "/srv/oidc/ca.crt"}));
        assert_eq!(seen[1]["readOnly"], false);
    }

    #[test]
    fn etcds_data_are_written_where_its_configuration_says() {
        let config = json!({"data-dir": "/srv/etcd", "peer-transport-security":
            {"key-file": "/etc/kubernetes/pki/etcd/peer.key", "client-cert-auth": true}});
        let told: Vec<_> = of_etcd(&config)
            .into_iter()
            .map(|m| (m.path, m.kind))
            .collect();
        let wanted = [
            ("/etc/kubernetes/etcd.yaml", "File"),
            ("/etc/kubernetes/pki/etcd", "Directory"),
            ("/srv/etcd", "DirectoryOrCreate"),
        ];
        assert_eq!(told, wanted.map(|(path, kind)| (path.to_owned(), kind)));
    }
}
