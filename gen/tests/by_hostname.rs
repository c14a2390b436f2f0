//! One document for all nodes, which act by their host names. (P6)

mod common;

use common::Folder;
use common::landing::Landing;
use units::types::Role;

const NODES: &str = "\
name: test
serviceAccountKey: ecdsa-p256
nodeDocuments: by-hostname
nodes:
- {name: master, role: master, address: 10.0.0.10}
- name: node-1
  role: node
  address: 10.0.0.11
  labels: {example.com/rack: a1}
- name: node-2
  role: node
  address: 10.0.0.12
  podCIDR: 10.244.9.0/24
  taints: [{key: example.com/a, effect: NoSchedule}, {key: example.com/b, effect: NoExecute}]
- name: node-3
  role: node
roles:
  node:
    labels: {example.com/zone: z}
    taints: [{key: example.com/a, effect: NoSchedule}]
";

fn landing(folder: &Folder, args: &[&str]) -> Landing {
    Landing::of(&folder.user_data(args))
}

fn refused(folder: &Folder, args: &[&str]) -> String {
    let before = folder.tree();
    let output = folder.kgen().args(args).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
    assert_eq!(folder.tree(), before, "{args:?} wrote something");
    told
}

#[test]
fn each_machine_is_by_its_name_what_its_own_document_would_make_it() {
    let folder = Folder::with(NODES);
    let each = Folder::with(&NODES.replace("by-hostname", "each"));
    let shared = landing(&folder, &["--by-hostname", "--role", "node"]);
    assert!(shared.hostname.is_empty());
    for name in ["node-1", "node-2", "node-3"] {
        let mut resolved = shared.node_config();
        resolved.resolve(&format!("{name}.example.com")).unwrap();
        let own = landing(&each, &["--name", name]).node_config();
        assert_eq!(resolved.node.addresses, own.node.addresses, "{name}");
        assert_eq!(resolved.node.pod_cidrs, own.node.pod_cidrs, "{name}");
        assert_eq!(resolved.node.labels, own.node.labels, "{name}");
        assert_eq!(resolved.node.taints, own.node.taints, "{name}");
        assert_eq!(resolved.node.name, own.node.name);
        // The next free range is each one's own.
        assert_eq!(own.node.pod_cidrs.len(), 1);
    }
    let config = shared.node_config();
    assert_eq!(config.by_hostname.len(), 3);
    assert_eq!(config.bootstrap.as_ref().unwrap().pool, "node");
    // What all have in common is said once, and the kubelet's own file knows it.
    assert_eq!(config.node.labels.len(), 1);
    assert_eq!(config.node.taints.len(), 1);
    let kubelet = shared.text("/etc/kubernetes/kubelet.yaml");
    assert!(kubelet.contains("example.com/a") && !kubelet.contains("example.com/b"));
    // A machine is no peer of its own.
    let peers = config.network.unwrap().peers;
    let peers: Vec<&str> = peers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(peers, ["master"]);
    let mut stranger = shared.node_config();
    let error = stranger.resolve("node-4").unwrap_err().to_string();
    assert!(error.contains("node-1, node-2, node-3"), "{error}");
}

#[test]
fn nobodys_secret_is_in_it_and_masters_know_its_token() {
    let folder = Folder::with(NODES);
    folder.run(&["render", "-o", "out"]);
    let shared = Landing::of(&folder.read("out/node/user-data"));
    assert!(!shared.holds("PRIVATE KEY"));
    let token = folder.read("pki/by-hostname/node.token");
    let token = token
        .lines()
        .next()
        .unwrap()
        .strip_prefix("token: ")
        .unwrap();
    assert!(
        shared
            .text("/etc/kubernetes/bootstrap-kubelet.conf")
            .contains(token)
    );
    let (id, proof) = token.split_once('.').unwrap();
    let master = Landing::of(&folder.read("out/master/user-data"));
    let object = master.text("/etc/knode/objects/bootstrap-tokens.yaml");
    assert!(object.contains(&format!("bootstrap-token-{id}")));
    assert!(master.holds(proof));
    assert_eq!(folder.read("out/pools/node-token.yaml"), object);
    // There is nothing else to send to nodes, and no key that could leak.
    let files: Vec<String> = folder.tree().into_keys().collect();
    for name in ["node-1", "node-2", "node-3"] {
        assert!(!files.iter().any(|f| f.contains(name)), "{name}");
    }
    // Masters label them by their role as before.
    let peers = master.node_config().network.unwrap().peers;
    assert_eq!(peers.iter().filter(|p| p.role == Role::Node).count(), 3);
    let before = folder.tree();
    folder.run(&["render", "-o", "out"]);
    assert_eq!(folder.tree(), before);
    assert_eq!(
        folder.read("out/node/user-data"),
        folder.user_data(&["--by-hostname"])
    );
}

#[test]
fn a_document_may_be_for_some_of_them() {
    let folder = Folder::with(NODES);
    let args = [
        "--by-hostname",
        "--role",
        "node",
        "--names",
        "node-1,node-3",
    ];
    let config = landing(&folder, &args).node_config();
    let names: Vec<&str> = config.by_hostname.keys().map(|n| n.as_str()).collect();
    assert_eq!(names, ["node-1", "node-3"]);
    assert_eq!(config.node.labels["example.com/zone"], "z");
    // One of its own is there for the asking, with keys and without a token.
    let own = landing(&folder, &["--name", "node-1"]);
    assert_eq!(own.hostname, "node-1");
    assert!(own.holds("PRIVATE KEY") && own.node_config().bootstrap.is_none());
}

#[test]
fn roles_with_keys_of_their_own_are_refused() {
    let folder = Folder::with(NODES);
    for (args, parts) in [
        (
            &["--by-hostname", "--role", "master"][..],
            &["private keys of all others", "--name NAME"][..],
        ),
        (
            &["--by-hostname", "--role", "etcd"],
            &["private keys of all others"],
        ),
        (
            &["--by-hostname", "--names", "node-1,node-9,master"],
            &[
                "no machine is called node-9",
                "master has the role master, not node",
            ],
        ),
        (&["--names", "node-1"], &["--by-hostname"]),
        (
            &["--role", "node"],
            &["--name one of node-1, node-2, node-3, or --by-hostname"],
        ),
    ] {
        let told = refused(&folder, args);
        for part in parts {
            assert!(told.contains(part), "{args:?}: {told}");
        }
    }
    let each = Folder::with(&NODES.replace("nodeDocuments: by-hostname\n", ""));
    let told = refused(&each, &["--by-hostname", "--role", "node"]);
    assert!(told.contains("write nodeDocuments: by-hostname"), "{told}");
    let none = Folder::with("nodeDocuments: by-hostname\nnodes: [{name: m, role: master}]\n");
    let told = refused(&none, &["--by-hostname"]);
    assert!(told.contains("no machine has the role node"), "{told}");
}
