//! `--set a.b[0].c=v`. (P2)

mod common;

use common::{CLUSTER, Document, Folder};

fn refused(folder: &Folder, sets: &[&str]) -> String {
    let before = folder.tree();
    let mut kgen = folder.kgen();
    kgen.args(["--role", "master"]);
    for set in sets {
        kgen.args(["--set", set]);
    }
    let output = kgen.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{sets:?}: {told}");
    assert_eq!(folder.tree(), before);
    assert!(!told.contains("panicked"), "{told}");
    told
}

#[test]
fn settings_are_laid_over_the_files() {
    let folder = Folder::with(CLUSTER);
    let text = folder.user_data(&[
        "--name",
        "node-1",
        "--set",
        "network.mtu=1400",
        "--set",
        "nodes[1].labels.\"example.com/rack\"=b2",
        "--set",
        "nodes[1].taints=[{key: a, value: 'yes', effect: NoSchedule}]",
        "--set",
        "kubelet.config.maxPods=42",
        "--set",
        "format=cloud-init",
        "--set",
        "name=",
    ]);
    let document = Document::parse(&text);
    assert!(!document.runcmd.is_empty());
    let node = document.text("/etc/knode/node.yaml");
    for part in [
        "mtu: 1400\n",
        "example.com/rack: b2\n",
        "name: kubernetes\n",
        "effect: NoSchedule\n",
    ] {
        assert!(node.contains(part), "{part}: {node}");
    }
    assert!(
        document
            .text("/etc/kubernetes/kubelet.yaml")
            .contains("maxPods: 42\n")
    );
    // The last one holds, and what is behind = may have a = itself.
    let args = [
        "--role",
        "master",
        "--set",
        "apiServer.extraArgs.x=1",
        "--set",
        "apiServer.extraArgs.x=a=b",
    ];
    let master = Document::parse(&folder.user_data(&args));
    let drop_in = "/etc/systemd/system/kube-apiserver.service.d/10-kgen.conf";
    assert!(master.text(drop_in).contains("--x=a=b\n"));
}

#[test]
fn it_is_the_same_as_in_the_file() {
    let folder = Folder::with(CLUSTER);
    folder.run(&[
        "render",
        "-o",
        "a",
        "--set",
        "network.mtu=1400",
        "--set",
        "nodes[4]={name: n, role: node}",
    ]);
    folder.write(
        "cluster.yaml",
        &format!("network: {{mtu: 1400}}\n{CLUSTER}- {{name: n, role: node}}\n"),
    );
    folder.run(&["render", "-o", "b"]);
    let tree = folder.tree();
    let mut same = 0;
    for (path, content) in &tree {
        if let Some(rest) = path.strip_prefix("a/") {
            assert_eq!(tree[&format!("b/{rest}")], *content, "{path}");
            same += 1;
        }
    }
    assert!(same >= 7, "{same}");
}

#[test]
fn what_is_wrong_is_told_with_the_set_that_said_it() {
    let folder = Folder::with(&format!("network: {{mtu: 1400}}\n{CLUSTER}"));
    for (set, parts) in [
        (
            "network.mtu=1",
            &[
                "[--set 'network.mtu':1:1]",
                "network.mtu: \"1\" is not a number",
                "1 │ 1",
            ][..],
        ),
        (
            "nodes[0].role=boss",
            &["[--set 'nodes[0].role':1:1]", "unknown role"],
        ),
        (
            "nodes[0].rol=node",
            &["[--set 'nodes[0].rol':1:1]", "did you mean \"role\"?"],
        ),
        (
            "nodes[0]={name: x, role: y}",
            &["[--set 'nodes[0]':1:17]", "unknown role \"y\""],
        ),
        (
            "network.mtu=[1",
            &["[--set 'network.mtu':1:1]", "not valid YAML"],
        ),
        ("network.mtu", &["there is no = in it"]),
        ("network..mtu=1", &["--set 'network..mtu': is not the path"]),
        (
            "nodes[9].arch=arm64",
            &["--set 'nodes[9].arch': nodes has 4 items only"],
        ),
        ("network.mtu.x=1", &["network.mtu is not a mapping"]),
        ("network[0]=1", &["network is not a list"]),
        ("[0]=1", &["is not the path of a setting"]),
    ] {
        let told = refused(&folder, &[set]);
        for part in parts {
            assert!(told.contains(part), "{set}: {told}");
        }
    }
    // All at once, and the file's own findings with the file's places.
    folder.write("cluster.yaml", &format!("zzz: 1\n{CLUSTER}"));
    let told = refused(&folder, &["network.mtu=1", "format=x"]);
    for part in [
        "[cluster.yaml:1:1]",
        "[--set 'network.mtu':1:1]",
        "[--set 'format':1:1]",
        "3 findings",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let told = refused(&Folder::new(), &["network.mtu=1400"]);
    assert!(
        told.contains("--set changes cluster.yaml, and there is none"),
        "{told}"
    );
}
