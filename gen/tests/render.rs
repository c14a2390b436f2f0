//! `kgen render` and `kgen init`.

mod common;

use common::{CLUSTER, Folder};

#[test]
fn everything_for_everybody() {
    let folder = Folder::with(CLUSTER);
    let told = String::from_utf8(folder.run(&["render", "-o", "out"]).stderr).unwrap();
    let files: Vec<String> = folder
        .tree()
        .into_keys()
        .filter(|f| f.starts_with("out/") && !f.ends_with('/'))
        .collect();
    assert_eq!(
        files,
        [
            "out/admin.conf",
            "out/etcd-1/user-data",
            "out/inventory.ini",
            "out/inventory.yaml",
            "out/master/user-data",
            "out/node-1/user-data",
            "out/node-2/user-data",
            "out/super-admin.conf",
        ]
    );
    for file in &files {
        assert!(told.contains(&format!("kgen: wrote {file}\n")), "{told}");
    }
    assert_eq!(
        folder.read("out/node-1/user-data"),
        folder.user_data(&["--name", "node-1"])
    );
    assert_eq!(
        folder.read("out/admin.conf"),
        folder.user_data(&["kubeconfig"])
    );
}

#[test]
fn only_what_changed_is_written() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let modified = |file: &str| {
        std::fs::metadata(folder.path(file))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = ["out/node-1/user-data", "out/etcd-1/user-data"].map(modified);
    folder.write("cluster.yaml", &CLUSTER.replace("rack: a1", "rack: a2"));
    let told = String::from_utf8(folder.run(&["render", "-o", "out"]).stderr).unwrap();
    assert_eq!(
        told,
        "kgen: changed out/node-1/user-data\nkgen: 7 files as they were\n"
    );
    let after = ["out/node-1/user-data", "out/etcd-1/user-data"].map(modified);
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_with_its_path() {
    let folder = Folder::with(CLUSTER);
    folder.write("out", "a file");
    let output = folder
        .kgen()
        .args(["render", "-o", "out"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("making the folder out: "), "{told}");
}

#[test]
fn what_init_writes_is_valid() {
    let folder = Folder::new();
    folder.run(&["init"]);
    folder.run(&["--role", "master"]);
    folder.run(&["--role", "node", "--name", "node-2"]);
}
