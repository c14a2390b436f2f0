//! Whatever the operator brings, all three languages bring it alike, and as it
//! was planned. (B1)

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Folder, PUBLIC_KEY};
use kgen::format::Format;
use kgen::landing::Landing;
use kgen::lint;
use kgen::report::Source;
use kgen::workspace::{self, Input, Workspace};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Text that some reader could take for something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,60}",
        "([ -~\t]{0,20}\n){0,6}",
        "[\\x00-\\x7f]{0,40}",
        proptest::sample::select(vec![
            "$private_ipv4\n".to_owned(),
            "{{ x }} %h %% $HOME\r\n".to_owned(),
            "---\n- a: yes\n...\n".to_owned(),
            "#cloud-config\nMIME-Version: 1.0\n".to_owned(),
            " indented\n\n\n".to_owned(),
            "y".repeat(3000),
        ]),
    ]
}

fn file() -> impl Strategy<Value = Value> {
    let mode = proptest::sample::select(vec!["0644", "0600", "0755", "0400", "4755", "700"]);
    let owner = proptest::option::of(proptest::sample::select(vec![
        "0", "1000:7", "root", "root:50",
    ]));
    ("[a-z]{1,3}", text(), proptest::option::of(mode), owner).prop_map(
        |(name, text, mode, owner)| {
            // What begins like a reference is written as text.
            let text = if text.starts_with('@') {
                format!("@{text}")
            } else {
                text
            };
            let text = if text.starts_with("env:") {
                format!(" {text}")
            } else {
                text
            };
            let mut file = json!({"path": format!("/etc/x/{name}"), "content": text});
            if let Some(mode) = mode {
                file["mode"] = mode.into();
            }
            if let Some(owner) = owner {
                file["owner"] = owner.into();
            }
            file
        },
    )
}

fn unit() -> impl Strategy<Value = Value> {
    let kind = proptest::sample::select(vec!["service", "timer", "path"]);
    let line = "(Description|X-Note)=[ -$&-~]{0,40}";
    ("[a-z]{1,3}", kind, line, any::<bool>(), any::<bool>()).prop_map(
        |(name, kind, line, enable, start)| {
            json!({
                "name": format!("{name}.{kind}"),
                "content": format!("[Unit]\n{}\n[Install]\nWantedBy=multi-user.target", line.trim_end_matches('\\')),
                "enable": enable,
                "start": start,
                "dropIns": [{"name": "20-x.conf", "content": format!("[Unit]\n{line}x")}],
            })
        },
    )
}

/// Items of different names.
fn named(items: Vec<Value>, key: &str) -> Vec<Value> {
    let by_name: BTreeMap<String, Value> = items
        .into_iter()
        .map(|item| (item[key].as_str().unwrap().to_owned(), item))
        .collect();
    by_name.into_values().collect()
}

fn settings() -> impl Strategy<Value = Value> {
    let files = || proptest::collection::vec(file(), 0..4);
    let units = proptest::collection::vec(unit(), 0..3);
    let hook = proptest::option::of("#!/bin/sh\n[ -~\n]{0,40}");
    let user = proptest::option::of(Just("ops"));
    (files(), files(), units, hook, user, any::<[bool; 4]>()).prop_map(
        |(all, own, units, hook, user, with)| {
            let mut settings = json!({
                "files": named(all, "path"),
                "units": named(units, "name"),
                "nodes": [
                    {"name": "m", "role": "master", "address": "10.0.0.1"},
                    {"name": "n", "role": "node", "files": named(own, "path")},
                ],
            });
            if let Some(hook) = hook {
                settings["hooks"] = json!({"beforeKnode": hook, "afterReady": hook});
            }
            if let Some(user) = user {
                settings["ssh"] = json!({"user": user, "authorizedKeys": [PUBLIC_KEY]});
            }
            let [proxy, ntp, registries, keys] = with;
            if proxy {
                settings["proxy"] = json!({"http": "http://u:p%25$x@p:1", "noProxy": ["a"]});
            }
            if ntp {
                settings["ntp"] = json!({"servers": ["a", "fd00::1"]});
            }
            if registries {
                let login = json!({"username": "é \"", "password": "\\$private_ipv4"});
                settings["registries"] = json!([
                    {"host": "a:1", "login": login,
                     "mirrors": [{"url": "https://m", "login": login}, {"url": "http://[fd00::1]:5000/x"}]},
                ]);
            }
            if keys && settings["ssh"].is_null() {
                settings["ssh"] = json!({"authorizedKeys": [PUBLIC_KEY]});
            }
            settings
        },
    )
}

fn open(path: &Path) -> Workspace {
    let input = Input {
        file: Some(path),
        set: &[],
    };
    Workspace::open(input, &[]).unwrap()
}

/// JSON is YAML, but for the characters that YAML wants to be escaped.
fn yaml(settings: &Value) -> String {
    let mut yaml = String::new();
    for c in settings.to_string().chars() {
        match c {
            ' '..='~' => yaml.push(c),
            c => yaml.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    yaml
}

fn planned(folder: &Folder, settings: &Value) {
    folder.write("cluster.yaml", &yaml(settings));
    let workspace = open(&folder.path("cluster.yaml"));
    let knode = workspace.knode().unwrap();
    let mut pki = workspace.pki().unwrap();
    for machine in &workspace.cluster.machines {
        let material = pki.machine(&workspace.cluster, machine).unwrap();
        let plan = workspace.plan(machine, &knode, &material).unwrap();
        let files: BTreeMap<String, (u32, Vec<u8>)> = plan
            .files
            .iter()
            .map(|f| (f.path.clone(), (f.mode.bits(), f.content.bytes().to_vec())))
            .collect();
        let mut landings = Vec::new();
        for format in Format::ALL {
            let document = workspace::document(&plan, format).unwrap();
            let source = Source::new("document", document.as_str());
            let report = lint::document(&source, format);
            assert_eq!(report.counts().0, 0, "{format}: {report}");
            let (_, mut landing) = Landing::read(&source).unwrap();
            if let Some(remote) = &plan.remote {
                landing.files.remove(remote.path);
            }
            for (path, file) in &files {
                assert_eq!(landing.files.get(path), Some(file), "{format}: {path}");
            }
            assert_eq!(landing.files.len(), files.len(), "{format}");
            landings.push(landing);
        }
        assert_eq!(landings[0], landings[1]);
        assert_eq!(landings[0], landings[2]);
        assert_eq!(
            landings[0].keys.is_empty(),
            plan.ssh.authorized_keys.is_empty()
        );
        assert_eq!(landings[0].enabled.len(), plan.enabled.len() + 1);
    }
    pki.commit().unwrap();
}

#[test]
fn all_languages_bring_what_was_planned() {
    // One cluster's keys serve all cases.
    let folder = Folder::new();
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(settings in settings())| {
        planned(&folder, &settings);
    });
}
