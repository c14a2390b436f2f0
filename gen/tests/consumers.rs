//! The documents through the YAML reader that cloud-init has, and the
//! documentation through this program.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::{CLUSTER, Document, Folder};

/// Prints what PyYAML makes of standard input, as JSON.
const READ: &str = "import json, sys, yaml; d = list(yaml.safe_load_all(sys.stdin)); \
    json.dump(d[0] if len(d) == 1 else d, sys.stdout)";

fn pyyaml(text: &str) -> serde_json::Value {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Debian's python3 with PyYAML, which this test needs (Debian: python3-yaml)");
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "PyYAML (Debian: python3-yaml) refuses:\n{text}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Words that YAML 1.1 takes for something else.
const TRAPS: &str = "\
nodes:
- {name: 'off', role: master, address: 10.0.0.10, labels: {a: 'no', b: '012', c: '1_0', d: '12', \
e: 'null', f: '1e3', 'y': 'n', g: '0x1f', h: ''}}
- {name: '1234', role: node, address: 10.0.0.11, taints: [{key: a, value: 'yes', effect: NoExecute}]}
kubelet: {config: {a: 'yes', b: '0644', c: '12:30:45', d: ' x', e: \"a\\nb\", f: '~', g: '- a', h: 'a: b', \
i: \"\\ttab\\n\", j: '#x', k: 1.5, l: '=', m: \"é\\u0007\", n: '0o14', o: '2026-11-20', p: '<<'}}
";

#[test]
fn pyyaml_reads_what_was_meant() {
    for settings in [CLUSTER, TRAPS] {
        let folder = Folder::with(settings);
        for format in ["coreos", "cloud-init"] {
            let text = folder.user_data(&["--role", "master", "--format", format]);
            let document = Document::parse(&text);
            let read = pyyaml(&text);
            assert_eq!(read["hostname"], document.hostname.as_str());
            let files = read["write_files"].as_array().unwrap();
            assert_eq!(files.len(), document.write_files.len());
            for (read, file) in files.iter().zip(&document.write_files) {
                assert_eq!(read["path"], file.path.as_str());
                assert_eq!(read["content"], file.content.as_str(), "{}", file.path);
                assert_eq!(read["permissions"], file.permissions.as_str());
                assert_eq!(read["encoding"].as_str(), file.encoding.as_deref());
            }
        }
    }
}

#[test]
fn pyyaml_and_ours_read_the_inner_files_alike() {
    let folder = Folder::with(TRAPS);
    let document = Document::parse(&folder.user_data(&["--role", "master"]));
    let kubelet = pyyaml(&document.text("/etc/kubernetes/kubelet.yaml"));
    for (key, value) in [
        ("a", "yes"),
        ("b", "0644"),
        ("c", "12:30:45"),
        ("d", " x"),
        ("e", "a\nb"),
        ("f", "~"),
        ("g", "- a"),
        ("h", "a: b"),
        ("i", "\ttab\n"),
        ("j", "#x"),
        ("l", "="),
        ("m", "é\u{7}"),
        ("n", "0o14"),
        ("o", "2026-11-20"),
        ("p", "<<"),
    ] {
        assert_eq!(kubelet[key], value, "{key}");
    }
    assert_eq!(kubelet["k"], 1.5);
    let text = document.text("/etc/knode/node.yaml");
    let ours: units::NodeConfig = serde_yaml::from_str(&text).unwrap();
    let theirs = pyyaml(&text);
    assert_eq!(theirs, serde_json::to_value(&ours).unwrap());
    assert_eq!(theirs["node"]["name"], "off");
    assert_eq!(theirs["node"]["labels"]["b"], "012");
    for (path, (_, bytes)) in document.files() {
        if path.ends_with(".yaml")
            || (path.starts_with("/etc/kubernetes/") && path.ends_with(".conf"))
        {
            let read = pyyaml(std::str::from_utf8(&bytes).unwrap());
            let objects = read
                .as_array()
                .map_or(vec![&read], |all| all.iter().collect());
            assert!(objects.iter().all(|object| object.is_object()), "{path}");
            assert_eq!(objects.len() > 1, path.ends_with("/coredns.yaml"), "{path}");
        }
    }
}

#[test]
fn the_documented_settings_are_valid() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let mut examples = 0;
    for block in text.split("```yaml\n").skip(1) {
        let (example, _) = block.split_once("```").unwrap();
        let folder = Folder::with(example);
        common::beside(&folder);
        if example.starts_with("version: 1\n") {
            folder.write("kgen.lock", example);
            folder.write("cluster.yaml", CLUSTER);
        }
        folder.run(&["render", "-o", "out"]);
        examples += 1;
    }
    assert!(examples >= 2, "{examples}");
}

#[test]
fn every_key_is_documented() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let folder = Folder::with(
        "zzzzzzzz: 1\nnetwork: {zzzzzzzz: 1}\nruntime: {zzzzzzzz: 1}\nkubelet: {zzzzzzzz: 1}\n\
         apiServer: {zzzzzzzz: 1}\nscheduler: {zzzzzzzz: 1}\n\
         nodes: [{name: m, role: master, zzzzzzzz: 1}]\n",
    );
    let output = folder.kgen().args(["--role", "master"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let lists: Vec<&str> = told
        .lines()
        .filter_map(|line| line.trim().strip_prefix("help: known keys here: "))
        .collect();
    assert_eq!(lists.len(), 7, "{told}");
    let schema: serde_json::Value = serde_json::from_str(kgen::settings::SCHEMA).unwrap();
    let mut keys = Vec::new();
    properties(&schema, &mut keys);
    assert!(keys.len() > 100, "{keys:?}");
    let listed = lists.iter().flat_map(|list| list.split(", "));
    for key in listed.chain(keys.iter().map(String::as_str)) {
        assert!(
            text.contains(&format!("`{key}`")),
            "docs/settings.md lacks {key}"
        );
    }
}

/// Every key in a JSON schema.
fn properties(schema: &serde_json::Value, keys: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        keys.extend(properties.keys().cloned());
    }
    let inner = schema.as_object().into_iter().flat_map(|o| o.values());
    let items = schema.as_array().into_iter().flatten();
    for below in inner.chain(items) {
        properties(below, keys);
    }
}
