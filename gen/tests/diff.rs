//! `kgen diff`: what would change, and nothing secret. (P5, B9)

mod common;

use common::{CLUSTER, Folder};

/// What `kgen diff` prints, and its status; it writes nothing.
fn diff(folder: &Folder, args: &[&str]) -> (i32, String) {
    let before = folder.tree();
    let mut kgen = folder.kgen();
    let output = kgen
        .args(["diff", "-o", "out"])
        .args(args)
        .output()
        .unwrap();
    assert_eq!(folder.tree(), before, "diff wrote something");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    for line in text.lines() {
        assert!(
            !line.contains("PRIVATE KEY") && !line.contains("key-data"),
            "{line}"
        );
    }
    (output.status.code().unwrap(), text)
}

#[test]
fn nothing_differs_from_what_was_just_rendered() {
    for format in ["coreos", "cloud-init", "ignition"] {
        let folder = Folder::with(&format!("format: {format}\n{CLUSTER}"));
        folder.run(&["render", "-o", "out"]);
        assert_eq!(diff(&folder, &[]), (0, String::new()));
        // Another way to write the same is no difference.
        let path = folder.path("out/node-1/user-data");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
        assert_eq!(diff(&folder, &[]), (0, String::new()), "{format}");
    }
}

#[test]
fn a_changed_setting_is_shown_where_it_lands() {
    for format in ["coreos", "cloud-init", "ignition"] {
        let folder = Folder::with(&format!("format: {format}\n{CLUSTER}"));
        folder.run(&["render", "-o", "out"]);
        let set = ["--set", "nodes[1].labels.\"example.com/rack\"=a2"];
        let (status, text) = diff(&folder, &set);
        assert_eq!(status, 1);
        assert_eq!(
            text,
            [
                "node-1: /etc/knode/node.yaml:",
                "      - 10.244.1.0/24",
                "      labels:",
                "  -     example.com/rack: a1",
                "  +     example.com/rack: a2",
                "    hostAliases:",
                "    - ip: \"10.0.0.10\"",
                "",
            ]
            .join("\n"),
            "{format}"
        );
    }
}

#[test]
fn secrets_are_told_and_not_shown() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    folder.run(&["certs", "renew", "node-1"]);
    let (status, text) = diff(&folder, &[]);
    assert_eq!(status, 1);
    for part in [
        "node-1: /etc/kubernetes/pki/kubelet.crt: another certificate\n",
        "node-1: /etc/kubernetes/pki/kubelet.key: secret changed (241 → 241 bytes)\n",
        "node-1: /etc/kubernetes/kubelet.conf: secret changed (",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("master:"), "{text}");
    assert!(!text.contains("node.yaml"), "{text}");
    for line in folder.read("pki/nodes/node-1/kubelet.key").lines() {
        assert!(!text.contains(line));
    }
    // With other keys altogether, and a machine of another role.
    let other = Folder::with(
        &CLUSTER
            .replace("node-2, role: node", "node-2, role: master")
            .replace(
                "role: etcd, address: 10.0.0.13}",
                "role: etcd, address: 10.0.0.13}\n- {name: n, role: node}",
            ),
    );
    other.run(&["render", "-o", "out"]);
    other.write("cluster.yaml", CLUSTER);
    let (status, text) = diff(&other, &[]);
    assert_eq!(status, 1);
    for part in [
        "n: is in out, and no longer in the settings\n",
        "node-2: kubernetes-master.target: no longer enabled\n",
        "node-2: kubernetes-node.target: enabled\n",
        "node-2: /etc/kubernetes/pki/ca.key: secret removed (",
        "node-2: /etc/systemd/system/kubernetes-node.target: added (0644, ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn another_form_is_a_difference_of_its_own() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let forms = |to: &str| -> String {
        let names = ["master", "node-1", "node-2", "etcd-1"];
        names
            .iter()
            .map(|name| format!("{name}: coreos → {to}\n"))
            .collect()
    };
    let expected = (1, forms("cloud-init"));
    assert_eq!(diff(&folder, &["--format", "cloud-init"]), expected);
    assert_eq!(diff(&folder, &["--gzip"]), (1, forms("coreos in gzip")));
    let (_, text) = diff(&folder, &["--format", "ignition"]);
    assert!(text.contains("node-1: coreos → ignition\n"), "{text}");
    // knode comes with the document there.
    assert!(
        text.contains("node-1: /opt/knode/bin/knode: added (0755, "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn what_was_never_rendered_is_new() {
    let folder = Folder::with(CLUSTER);
    let (status, text) = diff(&folder, &[]);
    assert_eq!(status, 1);
    assert!(text.starts_with("master: new, "), "{text}");
    let beside = [
        "admin.conf",
        "super-admin.conf",
        "inventory.ini",
        "inventory.yaml",
    ];
    let new = beside.map(|name| format!("{name}: new\n")).concat();
    assert!(text.ends_with(&new), "{text}");
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn the_files_beside_documents_are_told_too() {
    let pool = "pools:\n- {name: workers}\n";
    let folder = Folder::with(&format!("{CLUSTER}{pool}"));
    folder.run(&["render", "-o", "out"]);
    assert_eq!(diff(&folder, &[]), (0, String::new()));
    std::fs::remove_file(folder.path("out/pools/workers-token.yaml")).unwrap();
    folder.write("out/inventory.ini", "");
    let (status, text) = diff(&folder, &[]);
    assert_eq!(status, 1);
    assert_eq!(
        text,
        "pools/workers-token.yaml: new\ninventory.ini: changed\n"
    );
    folder.run(&["render", "-o", "out"]);
    folder.write("cluster.yaml", CLUSTER);
    let (_, text) = diff(&folder, &[]);
    assert!(
        text.contains("\npools/workers-token.yaml: goes\n"),
        "{text}"
    );
}

#[test]
fn a_failure_is_no_difference() {
    let folder = Folder::with("nme: x\n");
    let (status, text) = diff(&folder, &[]);
    assert!(status == 2 && text.contains("unknown key"), "{text}");
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    for broken in [&b"\xff\xfe"[..], b"a: [hunter2", b"\x1f\x8bhunter2"] {
        std::fs::write(folder.path("out/master/user-data"), broken).unwrap();
        let (status, text) = diff(&folder, &[]);
        assert!(
            status == 2 && text.contains("out/master/user-data: is no document"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// P61: neither shown nor written.
#[test]
fn a_cluster_does_not_go_back_a_minor_version() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let older = ["--set", "kubernetesVersion=1.34.1"];
    let (status, text) = diff(&folder, &older);
    assert!(
        status == 2 && text.contains("no cluster goes back"),
        "{text}"
    );
    let before = folder.tree();
    let mut kgen = folder.kgen();
    let output = kgen.args(["render", "-o", "out"]).args(older);
    let text = String::from_utf8(output.output().unwrap().stderr).unwrap();
    assert!(text.contains("go into another folder"), "{text}");
    assert_eq!(folder.tree(), before);
}
