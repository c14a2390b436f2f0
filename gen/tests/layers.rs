//! Settings of the cluster, of roles, and of machines and pools, laid over one
//! another. (P33)

mod common;

use common::Folder;
use common::landing::Landing;
use serde_json::{Value, json};
use units::node_config::Registration;

const LAYERS: &str = "\
serviceAccountKey: ecdsa-p256
kubelet: {config: {maxPods: 100, podPidsLimit: 1000, evictionHard: {memory.available: 1Mi, a: b}}}
runtime: {config: {plugins: {io.containerd.cri.v1.runtime: {max_container_log_line_size: 16384}}}}
roles:
  master:
    labels: {example.com/of: master}
    taints: []
    kubelet: {config: {maxPods: 20}}
  node:
    labels: {example.com/of: node, example.com/role: node}
    taints: [{key: example.com/role, effect: NoSchedule}]
    kubelet: {config: {maxPods: 50, evictionHard: {a: null}}}
    registration: kubelet
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: plain, role: node}
- name: own
  role: node
  labels: {example.com/of: own}
  taints: []
  kubelet: {config: {maxPods: 60, evictionHard: {c: d}}}
  registration: agent
  providerID: example:///region/own
pools:
- name: pool
  labels: {example.com/of: pool}
  kubelet: {config: {maxPods: 70}}
";

fn machine(folder: &Folder, args: &[&str]) -> (units::NodeConfig, Value) {
    let landing = Landing::of(&folder.user_data(args));
    let kubelet = landing.text("/etc/kubernetes/kubelet.yaml");
    (
        landing.node_config(),
        serde_yaml::from_str(&kubelet).unwrap(),
    )
}

#[test]
fn the_cluster_is_below_roles_and_roles_below_machines_and_pools() {
    let folder = Folder::with(LAYERS);
    let memory = json!("1Mi");
    for (args, pods, eviction, of, taints, registration) in [
        (
            ["--name", "master"],
            20,
            json!({"memory.available": memory, "a": "b"}),
            "master",
            0,
            Registration::Agent,
        ),
        (
            ["--name", "plain"],
            50,
            json!({"memory.available": memory}),
            "node",
            1,
            Registration::Kubelet,
        ),
        (
            ["--name", "own"],
            60,
            json!({"memory.available": memory, "c": "d"}),
            "own",
            0,
            Registration::Agent,
        ),
        (
            ["--pool", "pool"],
            70,
            json!({"memory.available": memory}),
            "pool",
            1,
            Registration::Kubelet,
        ),
    ] {
        let (config, kubelet) = machine(&folder, &args);
        assert_eq!(kubelet["maxPods"], pods, "{args:?}");
        assert_eq!(kubelet["podPidsLimit"], 1000, "{args:?}");
        assert_eq!(kubelet["evictionHard"], eviction, "{args:?}");
        assert_eq!(config.node.labels["example.com/of"], of);
        assert_eq!(
            config.node.labels.contains_key("example.com/role"),
            of != "master"
        );
        assert_eq!(config.node.taints.len(), taints, "{args:?}");
        assert_eq!(kubelet.get("registerWithTaints").is_some(), taints > 0);
        assert_eq!(config.node.registration, registration, "{args:?}");
        let id = (of == "own").then(|| "example:///region/own".to_owned());
        assert_eq!(
            kubelet.get("providerID"),
            id.clone().map(Value::from).as_ref()
        );
        assert_eq!(config.node.provider_id, id);
        let runtime = config.runtime.unwrap().config;
        assert_eq!(
            runtime["plugins"]["io.containerd.cri.v1.runtime"]["max_container_log_line_size"],
            16384
        );
    }
}

/// P36: there is one way to run the control plane, and saying so is no error.
#[test]
fn the_control_plane_runs_under_systemd() {
    let same = "serviceAccountKey: ecdsa-p256\nnodes: [{name: m, role: master}]\n";
    let folder = Folder::with(same);
    let without = folder.user_data(&["--role", "master"]);
    folder.write("cluster.yaml", &format!("controlPlane: systemd\n{same}"));
    assert_eq!(folder.user_data(&["--role", "master"]), without);
}

#[test]
fn every_key_is_documented() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let folder = Folder::with(
        "roles: {zzzzzzzz: 1, node: {zzzzzzzz: 1}}\npools: [{name: p, zzzzzzzz: 1}]\n\
         nodes: [{name: m, role: master, kubelet: {zzzzzzzz: 1}}]\n",
    );
    let output = folder.kgen().arg("validate").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let lists: Vec<&str> = told
        .lines()
        .filter_map(|line| line.trim().strip_prefix("help: known keys here: "))
        .collect();
    assert_eq!(lists.len(), 4, "{told}");
    for key in lists.iter().flat_map(|list| list.split(", ")) {
        let named = [format!("`{key}`"), format!("`roles.{key}`")];
        assert!(
            named.iter().any(|name| text.contains(name)),
            "docs/settings.md lacks {key}"
        );
    }
}
