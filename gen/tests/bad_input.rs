//! Bad input: each a clear error with its position, exit status 2, and nothing
//! written, not even pki/.

mod common;

use std::fs;

use common::{CLUSTER, Folder};

/// Runs kgen, which has to refuse; what it said.
fn refused(folder: &Folder, args: &[&str]) -> String {
    let before = folder.tree();
    let output = folder.kgen().args(args).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    assert_eq!(folder.tree(), before, "{args:?} wrote something");
    told
}

#[test]
fn settings_are_refused_with_their_place() {
    let nodes = "nodes: [{name: m, role: master}]\n";
    let cases: &[(&str, &[&str])] = &[
        // Structure.
        (
            "nods: []\n",
            &[
                "[cluster.yaml:1:1]",
                "nods: unknown key",
                "did you mean \"nodes\"?",
            ],
        ),
        ("a: [\n", &["[cluster.yaml:", "not valid YAML"]),
        (
            "nodes: 3\n",
            &[
                "[cluster.yaml:1:8]",
                "nodes: expected a list, found one value",
            ],
        ),
        ("- a\n", &["[cluster.yaml:1:1]", "expected a mapping"]),
        ("name: a\nname: b\n", &["[cluster.yaml:2:1]", "given twice"]),
        (
            "nodes:\n- role: master\n",
            &["[cluster.yaml:2:3]", "nodes[0].name: missing"],
        ),
        (
            "nodes: [{name: m, role: master, podCIDR: 10.244.0.0/24, podCIDRs: []}]\n",
            &["either podCIDR or podCIDRs"],
        ),
        // Values.
        (
            "nodes:\n- name: m\n  role: boss\n",
            &[
                "[cluster.yaml:3:9]",
                "unknown role \"boss\": use master (control-plane)",
            ],
        ),
        (
            "format: docker\n",
            &["[cluster.yaml:1:9]", "unknown format \"docker\""],
        ),
        (
            "nodes: [{name: My_Node, role: master}]\n",
            &[
                "[cluster.yaml:1:16]",
                "nodes[0].name: node name \"My_Node\" is not a DNS label",
            ],
        ),
        (
            "kubernetesVersion: 1.33.0\n",
            &["[cluster.yaml:1:20]", "too old"],
        ),
        ("kubernetesVersion: 1.36\n", &["write it in full"]),
        (
            "endpoint: http://a\n",
            &["[cluster.yaml:1:11]", "https only"],
        ),
        (
            "network: {podCIDR: 10.244.3.0/16}\n",
            &["[cluster.yaml:1:20]", "write 10.244.0.0/16"],
        ),
        (
            "network: {mtu: 100}\n",
            &["[cluster.yaml:1:16]", "not a number from 1280 to 65535"],
        ),
        (
            "network: {mode: bridge}\n",
            &["[cluster.yaml:1:17]", "unknown mode"],
        ),
        (
            "network: {metadataGuard: maybe}\n",
            &["[cluster.yaml:1:26]", "neither true nor false"],
        ),
        (
            "runtime: {source: docker}\n",
            &["[cluster.yaml:1:19]", "artifact or distribution"],
        ),
        (
            "kubelet: {config: {failSwapOn: no}}\n",
            &["[cluster.yaml:1:32]", "read in two ways"],
        ),
        (
            "kubelet: {confg: {}}\n",
            &["kubelet.confg: unknown key", "did you mean \"config\"?"],
        ),
        (
            "apiServer: {extraArgs: {'a b': x}}\n",
            &["[cluster.yaml:1:25]", "not the name of a flag"],
        ),
        (
            "apiServer: {certSANs: [A_B]}\n",
            &["[cluster.yaml:1:24]", "neither an address nor"],
        ),
        (
            "nodes: [{name: m, role: master, labels: {node-role.kubernetes.io/x: ''}}]\n",
            &[
                "[cluster.yaml:1:42]",
                "a reserved label",
                "masters set this label",
            ],
        ),
        (
            "nodes: [{name: m, role: master, taints: [{key: a, effect: Never}]}]\n",
            &["[cluster.yaml:1:59]", "unknown effect"],
        ),
        (
            "nodes: [{name: m, role: master, arch: mips}]\n",
            &["unknown architecture"],
        ),
        (
            "nodes: [{name: m, role: master, address: 127.0.0.1}]\n",
            &["other machines reach"],
        ),
        // The settings as a whole.
        (
            "nodes: []\n",
            &["[cluster.yaml:1:8]", "no machine has the role master"],
        ),
        (
            "nodes:\n- {name: m, role: master}\n- {name: m, role: node}\n",
            &[
                "[cluster.yaml:3:10]",
                "nodes[1].name: m is the name of nodes[0].name too",
            ],
        ),
        (
            "nodes:\n- {name: m, role: master}\n- {name: n, role: master}\n",
            &[
                "[cluster.yaml:3:19]",
                "etcd needs an odd number",
                "use 1 or 3",
            ],
        ),
        (
            "nodes:\n- {name: m, role: master}\n- {name: a, role: etcd}\n- {name: b, role: etcd}\n",
            &["[cluster.yaml:4:19]", "2 machines with the role etcd"],
        ),
        (
            "network: {podCIDR: 10.0.0.0/8, serviceCIDR: 10.96.0.0/16}\n",
            &[
                "[cluster.yaml:1:45]",
                "services 10.96.0.0/16 and pods 10.0.0.0/8 overlap",
            ],
        ),
        (
            "network: {podCIDRs: [10.0.0.0/16, 10.1.0.0/16]}\n",
            &[
                "[cluster.yaml:1:35]",
                "a second range of the same address family",
            ],
        ),
        (
            "network: {podCIDR: 'fd00::/48'}\n",
            &["no service range of the family"],
        ),
        (
            "network: {serviceCIDR: 172.0.0.0/11}\n",
            &["too large for the API server"],
        ),
        (
            "network: {nodeMask: 12}\n",
            &["[cluster.yaml:1:21]", "/12 does not fit into 10.244.0.0/16"],
        ),
        (
            "network: {podCIDR: 10.244.0.0/24, nodeMask: 25}\nnodes:\n- {name: m, role: master}\n\
             - {name: a, role: node}\n- {name: b, role: node}\n",
            &[
                "[cluster.yaml:1:20]",
                "has 2 ranges of /25, and 3 machines need one",
            ],
        ),
        (
            "nodes:\n- {name: m, role: master, address: 10.0.0.1}\n\
             - {name: n, role: node, address: 10.0.0.1}\n",
            &["[cluster.yaml:3:34]", "10.0.0.1 is nodes[0].address too"],
        ),
        (
            "nodes: [{name: m, role: master, address: 'fd00::1'}]\n",
            &[
                "[cluster.yaml:1:42]",
                "no address of the family of services (10.96.0.0/16)",
            ],
        ),
        (
            "nodes: [{name: m, role: master, address: 10.244.0.1}]\n",
            &["[cluster.yaml:1:42]", "within the range of pods"],
        ),
        (
            "nodes: [{name: m, role: master, address: 10.96.0.9}]\n",
            &["within the range of services"],
        ),
        (
            "nodes: [{name: m, role: master, podCIDR: 10.1.0.0/24}]\n",
            &["[cluster.yaml:1:42]", "not within the range of pods"],
        ),
        (
            "nodes:\n- {name: m, role: master, podCIDR: 10.244.0.0/23}\n\
             - {name: n, role: node, podCIDR: 10.244.1.0/24}\n",
            &["[cluster.yaml:3:34]", "overlaps with nodes[0].podCIDR"],
        ),
        (
            "nodes:\n- {name: m, role: master}\n- {name: e, role: etcd, podCIDR: 10.244.0.0/24}\n",
            &["a machine with the role etcd has no pods"],
        ),
    ];
    for (settings, expected) in cases {
        let settings = if settings.contains("nod") || settings.starts_with(['-', 'a']) {
            (*settings).to_owned()
        } else {
            format!("{settings}{nodes}")
        };
        let folder = Folder::with(&settings);
        let told = refused(&folder, &["--role", "master"]);
        for part in *expected {
            assert!(told.contains(part), "{settings}\nlacks {part:?}:\n{told}");
        }
    }
}

#[test]
fn everything_is_told_at_once() {
    let folder = Folder::with(
        "kubernetesVersion: 1.20.0\nnetwrk: {}\nformat: x\n\
         nodes:\n- {name: M, role: master}\n- {name: n, role: nod}\n",
    );
    folder.write(
        "kgen.lock",
        "version: 1\nartifacts:\n- {name: etcd, version: 3.6.0, arch: amd64, url: 'http://m/e', sha256: 12}\n",
    );
    let told = refused(&folder, &["--role", "master"]);
    let places = [
        "yaml:1:20]",
        "yaml:2:1]",
        "yaml:3:9]",
        "yaml:5:10]",
        "yaml:6:19]",
        "lock:3:",
    ];
    let found: Vec<usize> = places
        .iter()
        .map(|place| {
            told.find(place)
                .unwrap_or_else(|| panic!("lacks {place}:\n{told}"))
        })
        .collect();
    assert!(found.is_sorted(), "{told}");
    assert!(
        told.contains("malformed sha256 checksum: it has 2 digits"),
        "{told}"
    );
}

#[test]
fn flags_are_refused() {
    let folder = Folder::with(CLUSTER);
    for (args, why) in [
        (&["--role", "boss"][..], "unknown role \"boss\""),
        (
            &["--role", "master", "--format", "toml"],
            "unknown format \"toml\"",
        ),
        (&["--role", "node", "--name", "A.b"], "is not a DNS label"),
        (
            &["--role", "node", "--name", "node-3"],
            "did you mean node-",
        ),
        (
            &["--role", "master", "--name", "node-1"],
            "node-1 has the role node",
        ),
        (&["--role", "node"], "--name one of node-1, node-2"),
        (
            &["--role", "master", "-f", "missing.yaml"],
            "missing.yaml: there is no such file",
        ),
        (&["--rol", "master"], "--role"),
        (&["init"], "cluster.yaml: is there already"),
        (&[], "First steps"),
    ] {
        let told = refused(&folder, args);
        assert!(told.contains(why), "{args:?} lacks {why:?}:\n{told}");
    }
}

#[test]
fn the_builtin_cluster_has_its_bounds() {
    let folder = Folder::new();
    for (args, why) in [
        (&["--role", "etcd"][..], "no ring of its own"),
        (&["--name", "a"], "--role is missing"),
        (&["--role", "node", "--name", "master"], "is called master"),
    ] {
        let told = refused(&folder, args);
        assert!(told.contains(why), "{args:?} lacks {why:?}:\n{told}");
        assert!(told.contains("kgen init"), "{told}");
    }
}

/// A build of the whole workspace puts a knode beside kgen; this kgen is alone.
#[test]
fn a_knode_that_nobody_names_is_asked_for() {
    let alone = Folder::empty();
    let kgen = alone.path("kgen");
    fs::copy(assert_cmd::cargo::cargo_bin("kgen"), &kgen).unwrap();
    let before = alone.tree();
    let output = std::process::Command::new(&kgen)
        .current_dir(kgen.parent().unwrap())
        .args(["--role", "master"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(output.stdout.is_empty());
    assert_eq!(alone.tree(), before);
    assert!(told.contains("no lock names knode for"), "{told}");
}

#[test]
fn what_no_lock_names_is_asked_for() {
    let folder = Folder::with(&format!("kubernetesVersion: 1.35.2\n{CLUSTER}"));
    let told = refused(&folder, &["--role", "master"]);
    assert!(
        told.contains("no lock names kube-apiserver or kubernetes-server 1.35.2 for amd64"),
        "{told}"
    );
    assert!(told.contains("add it to kgen.lock"), "{told}");
}

#[test]
fn a_pki_that_does_not_fit_together_is_refused() {
    let good = Folder::with(CLUSTER);
    good.run(&["--role", "master"]);
    let pki = good.path("pki");
    let other = Folder::with(CLUSTER);
    other.run(&["--role", "master"]);

    // Each: what is done to the folder, and what has to be said about it.
    type Damage = fn(&Folder, &Folder);
    let copy: fn(&Folder, &Folder, &str) = |from, to, file| {
        fs::copy(from.path(file), to.path(file)).unwrap();
    };
    let cases: &[(Damage, &[&str])] = &[
        (
            |folder, other| {
                fs::copy(other.path("pki/ca.key"), folder.path("pki/ca.key"))
                    .map(drop)
                    .unwrap()
            },
            &["pki/ca.key does not belong to pki/ca.crt"],
        ),
        (
            |folder, other| {
                let file = "pki/nodes/master/apiserver.key";
                fs::copy(other.path(file), folder.path(file))
                    .map(drop)
                    .unwrap();
            },
            &["pki/nodes/master/apiserver.key does not belong to pki/nodes/master/apiserver.crt"],
        ),
        (
            |folder, other| {
                fs::copy(other.path("pki/sa.pub"), folder.path("pki/sa.pub"))
                    .map(drop)
                    .unwrap()
            },
            &["pki/sa.key does not belong to pki/sa.pub"],
        ),
        (
            |folder, _| fs::remove_file(folder.path("pki/ca.crt")).unwrap(),
            &["pki/ca.crt: is missing", "pki/ca.key"],
        ),
        (
            |folder, _| fs::remove_file(folder.path("pki/etcd/ca.key")).unwrap(),
            &["pki/etcd/ca.key: is missing"],
        ),
        (
            |folder, _| folder.write("pki/ca.crt", "nonsense"),
            &["pki/ca.crt: there is no certificate in it"],
        ),
        (
            |folder, _| {
                folder.write(
                    "pki/sa.key",
                    "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                )
            },
            &["pki/sa.key: the private key in it is malformed"],
        ),
        (
            |folder, _| folder.write("pki/encryption.key", "short\n"),
            &["pki/encryption.key: is not 32 bytes in base64"],
        ),
        (
            |folder, _| {
                for end in ["crt", "key"] {
                    let leaf = folder.path(&format!("pki/nodes/master/apiserver.{end}"));
                    fs::copy(leaf, folder.path(&format!("pki/front-proxy-ca.{end}"))).unwrap();
                }
            },
            &["pki/front-proxy-ca.crt: is not the certificate of an authority"],
        ),
    ];
    for (damage, expected) in cases {
        let folder = Folder::with(CLUSTER);
        copy_tree(&pki, &folder.path("pki"));
        damage(&folder, &other);
        let told = refused(&folder, &["--role", "master"]);
        for part in *expected {
            assert!(told.contains(part), "lacks {part:?}:\n{told}");
        }
        assert!(!told.contains("BEGIN"), "{told}");
    }
    // Several at once.
    let folder = Folder::with(CLUSTER);
    copy_tree(&pki, &folder.path("pki"));
    copy(&other, &folder, "pki/sa.pub");
    copy(&other, &folder, "pki/nodes/master/scheduler.key");
    let told = refused(&folder, &["--role", "master"]);
    assert!(told.contains("2 findings"), "{told}");
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}
