//! Machines by role, as Ansible reads them. (P52)

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{CLUSTER, Folder, skip};
use serde_json::{Value, json};

/// One machine without an address, one with two, and all roles.
const MACHINES: &str = "\
network: {podCIDRs: [10.244.0.0/16, 'fd00:1::/48'], serviceCIDRs: [10.96.0.0/16, 'fd00:2::/112']}
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: off, role: node, addresses: [10.0.0.11, 'fd00::b'], arch: arm64}
- {name: '012', role: node}
- {name: etcd-1, role: etcd, address: 10.0.0.13}
";

fn printed(folder: &Folder, form: &str) -> String {
    folder.user_data(&["inventory", "--format", form])
}

#[test]
fn the_json_is_what_a_dynamic_inventory_prints() {
    let folder = Folder::with(MACHINES);
    let before = folder.tree();
    let json: Value = serde_json::from_str(&printed(&folder, "json")).unwrap();
    assert_eq!(json["etcd"], json!({"hosts": ["etcd-1"]}));
    assert_eq!(json["masters"], json!({"hosts": ["master"]}));
    assert_eq!(json["nodes"], json!({"hosts": ["off", "012"]}));
    assert_eq!(json["control_plane"], json!({"children": ["masters"]}));
    assert_eq!(
        json["_meta"]["hostvars"]["off"],
        json!({
            "ansible_host": "10.0.0.11",
            "node_addresses": ["10.0.0.11", "fd00::b"],
            "node_arch": "arm64",
            "node_role": "node",
            "pod_cidrs": ["10.244.1.0/24", "fd00:1:0:1::/64"],
        })
    );
    // Reached by its name.
    let unknown = &json["_meta"]["hostvars"]["012"];
    assert!(unknown.get("ansible_host").is_none(), "{unknown}");
    // Nothing is made for it.
    assert_eq!(folder.tree(), before);
    // Masters with etcd are in both groups.
    let folder = Folder::with("nodes: [{name: m, role: master}]\n");
    let json: Value = serde_json::from_str(&printed(&folder, "json")).unwrap();
    assert_eq!(json["etcd"], json["masters"]);
    assert_eq!(json["nodes"], json!({"hosts": []}));
}

/// Groups → members, and members → variables, of an INI inventory.
type Ini = (
    BTreeMap<String, Vec<String>>,
    BTreeMap<String, BTreeMap<String, Value>>,
);

fn ini(text: &str) -> Ini {
    let (mut groups, mut hosts) = (BTreeMap::new(), BTreeMap::new());
    let mut group = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[') {
            group = name.strip_suffix(']').unwrap().to_owned();
            groups.insert(group.clone(), Vec::new());
        } else if let Some(members) = groups.get_mut(&group) {
            members.push(line.to_owned());
        } else {
            let mut words = line.split(' ');
            let name = words.next().unwrap().to_owned();
            let variables = words.map(|word| {
                let (name, value) = word.split_once('=').unwrap();
                let list = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\''));
                let value = list.map_or(json!(value), |v| serde_json::from_str(v).unwrap());
                (name.to_owned(), value)
            });
            hosts.insert(name, variables.collect());
        }
    }
    (groups, hosts)
}

#[test]
fn all_three_say_the_same() {
    let folder = Folder::with(MACHINES);
    let json: Value = serde_json::from_str(&printed(&folder, "json")).unwrap();
    let yaml: Value = serde_yaml::from_str(&printed(&folder, "yaml")).unwrap();
    let (groups, hosts) = ini(&printed(&folder, "ini"));
    assert_eq!(yaml["all"]["hosts"], json["_meta"]["hostvars"]);
    assert_eq!(json!(hosts), json["_meta"]["hostvars"]);
    for group in ["etcd", "masters", "nodes"] {
        let members = yaml["all"]["children"][group]["hosts"].as_object().unwrap();
        let members: Vec<&String> = members.keys().collect();
        let mut listed: Vec<String> = serde_json::from_value(json[group]["hosts"].clone()).unwrap();
        assert_eq!(groups[group], listed);
        listed.sort();
        assert_eq!(members, listed.iter().collect::<Vec<_>>(), "{group}");
    }
    assert_eq!(groups["control_plane:children"], ["masters"]);
}

#[test]
fn render_writes_both_static_ones() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    for form in ["yaml", "ini"] {
        let file = format!("out/inventory.{form}");
        assert_eq!(folder.read(&file), printed(&folder, form));
    }
    let output = folder
        .kgen()
        .args(["inventory", "--format", "toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// Ansible itself reads all three.
#[test]
fn ansible_reads_them() {
    let folder = Folder::with(MACHINES);
    folder.write("inventory.yaml", &printed(&folder, "yaml"));
    folder.write("inventory.ini", &printed(&folder, "ini"));
    let script = format!("#!/bin/sh\ncat <<'END'\n{}END\n", printed(&folder, "json"));
    folder.write("inventory.sh", &script);
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path("inventory.sh"), mode).unwrap();
    let expected: Value = serde_json::from_str(&printed(&folder, "json")).unwrap();
    for file in ["inventory.yaml", "inventory.ini", "inventory.sh"] {
        let mut command = Command::new("ansible-inventory");
        command
            .args(["--list", "-i", file])
            .current_dir(folder.path(""));
        command.env("ANSIBLE_LOCALHOST_WARNING", "False");
        let Ok(output) = command.output() else {
            return skip("ansible_reads_them", "there is no ansible-inventory");
        };
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !told.contains("WARN"),
            "{file}: {told}"
        );
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            list["_meta"]["hostvars"], expected["_meta"]["hostvars"],
            "{file}"
        );
        for group in ["etcd", "masters", "nodes"] {
            let members = |list: &Value| -> Vec<String> {
                let mut all: Vec<String> =
                    serde_json::from_value(list[group]["hosts"].clone()).unwrap();
                all.sort();
                all
            };
            assert_eq!(members(&list), members(&expected), "{file} {group}");
        }
        assert_eq!(
            list["control_plane"]["children"],
            json!(["masters"]),
            "{file}"
        );
    }
}
