//! What no benchmark asks, and kgen promises.

use units::paths;

use super::{Rule, any, master, stands, with_etcd, with_pods};
use crate::hardening::Verdict::{Broken, Kept};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "kgen-1",
        title: "every file with a key is for root alone",
        concerns: any,
        judge: |f| {
            let mut files = f.files();
            match files.find(|(_, mode, secret)| *secret && mode & 0o077 != 0) {
                None => Kept,
                Some((path, mode, _)) => Broken(format!("{path} has mode {mode:04o}")),
            }
        },
    },
    Rule {
        id: "kgen-2",
        title: "a worker has no authority's key",
        concerns: |f| !master(f) && !with_etcd(f),
        judge: |f| {
            let mut files = f.files();
            match files.find(|(path, ..)| path.starts_with(paths::PKI) && path.ends_with("ca.key"))
            {
                None => Kept,
                Some((path, ..)) => Broken(format!("{path} is in its document")),
            }
        },
    },
    Rule {
        id: "kgen-3",
        title: "pods cannot read the machine's user-data from the cloud",
        concerns: with_pods,
        judge: |f| stands(f, paths::NODE_CONFIG, "network.metadataGuard", true),
    },
    Rule {
        id: "kgen-4",
        title: "every download is pinned by its checksum",
        concerns: any,
        judge: |f| {
            let artifacts = f.at(paths::NODE_CONFIG, "artifacts").as_array();
            let mut open = artifacts
                .into_iter()
                .flatten()
                .filter(|a| a["digest"].as_str().is_none_or(str::is_empty));
            match open.next() {
                None => Kept,
                Some(artifact) => Broken(format!("{} has none", artifact["name"])),
            }
        },
    },
];
