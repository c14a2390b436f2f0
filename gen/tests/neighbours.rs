//! Machines that offer each other what they downloaded (F20).

mod common;

use common::{CLUSTER, Document, Folder};
use units::NodeConfig;

fn config(folder: &Folder, name: &str) -> NodeConfig {
    let document = Document::parse(&folder.user_data(&["--name", name]));
    serde_yaml::from_str(&document.text("/etc/knode/node.yaml")).unwrap()
}

/// Who is asked: those behind it in the settings, then those before it, and
/// nobody without pods or without an address.
#[test]
fn each_machine_asks_those_behind_it() {
    let folder = Folder::with(&format!("artifacts: {{neighbours: true}}\n{CLUSTER}"));
    let asked = |name: &str| config(&folder, name).neighbours.unwrap();
    let master = asked("master");
    assert_eq!(master.port, 7444);
    let addresses = |name: &str| -> Vec<String> {
        let all = asked(name).addresses;
        all.iter().map(ToString::to_string).collect()
    };
    assert_eq!(addresses("master"), ["10.0.0.11", "10.0.0.12"]);
    assert_eq!(addresses("node-1"), ["10.0.0.12", "10.0.0.10"]);
    assert_eq!(addresses("node-2"), ["10.0.0.10", "10.0.0.11"]);
    assert_eq!(config(&folder, "etcd-1").neighbours, None);
}

#[test]
fn the_questions_are_few_and_spread_in_a_large_cluster() {
    let mut text = "artifacts: {neighbours: true, neighboursPort: 1234}\n\
                    nodes:\n- {name: m, role: master, address: 10.0.0.1}\n"
        .to_owned();
    for n in 2..=40 {
        text.push_str(&format!(
            "- {{name: n-{n}, role: node, address: 10.0.0.{n}}}\n"
        ));
    }
    let folder = Folder::with(&text);
    let asked = config(&folder, "n-38").neighbours.unwrap();
    assert_eq!(asked.port, 1234);
    let last: Vec<String> = asked.addresses.iter().map(ToString::to_string).collect();
    let expected = [39, 40, 1, 2, 3, 4].map(|n| format!("10.0.0.{n}"));
    assert_eq!(last, expected);
}

#[test]
fn without_being_asked_for_there_are_none() {
    for settings in ["", "artifacts: {neighbours: false, neighboursPort: 1}\n"] {
        let folder = Folder::with(&format!("{settings}{CLUSTER}"));
        assert_eq!(config(&folder, "node-1").neighbours, None);
    }
    for wrong in ["neighbours: 1", "neighboursPort: 0"] {
        let folder = Folder::with(&format!("artifacts: {{{wrong}}}\n{CLUSTER}"));
        let output = folder.kgen().args(["--name", "node-1"]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("artifacts.neighbours"), "{told}");
    }
}

/// A port has one owner; the clash is shown at what was typed.
#[test]
fn the_port_is_nobody_elses() {
    for (typed, named) in [
        ("10250", "the kubelet"),
        ("6443", "the API server"),
        ("2379", "etcd"),
        ("30123", "service-node-port-range"),
    ] {
        let settings = format!("artifacts: {{neighbours: true, neighboursPort: {typed}}}\n");
        let folder = Folder::with(&format!("{settings}{CLUSTER}"));
        let output = folder.kgen().args(["--name", "node-1"]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{typed}");
        assert!(told.contains(named) && told.contains(typed), "{told}");
    }
    let kubelet = "artifacts: {neighbours: true}\nkubelet: {config: {healthzPort: 7444}}\n";
    let folder = Folder::with(&format!("{kubelet}{CLUSTER}"));
    let output = folder.kgen().args(["--name", "node-1"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("kubelet.config.healthzPort"), "{told}");
}
