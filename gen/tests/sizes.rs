//! Documents that do not get through to their machine are refused before
//! anybody uploads them. (P8, B8)

mod common;

use std::io::Read;

use common::{CLUSTER, Folder};

/// Runs kgen, which has to refuse and write nothing; what it said.
fn refused(folder: &Folder, args: &[&str]) -> String {
    let before = folder.tree();
    let output = folder.kgen().args(args).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    assert_eq!(folder.tree(), before, "{args:?} wrote something");
    told
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_string(&mut text)
        .unwrap();
    text
}

#[test]
fn what_is_too_large_is_refused_with_its_parts() {
    let folder = Folder::with(CLUSTER);
    let told = refused(&folder, &["--role", "master", "--platform", "aws"]);
    for part in [
        "user-data of master: ",
        "is more than the 16,384 that aws takes",
        "its largest parts are",
        "/etc/knode/node.yaml",
        "/etc/kubernetes/scheduler.conf",
        "with --gzip it would be ",
        "cloud-config-url=https://",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let args = ["--role", "master", "--platform", "aws", "--format"];
    let told = refused(&folder, &[&args[..], &["cloud-init"]].concat());
    assert!(told.contains("\"#include https://…\""), "{told}");
    let told = refused(&folder, &[&args[..], &["ignition"]].concat());
    assert!(told.contains("ignition.config.replace"), "{told}");
    assert!(!told.contains("gzip"), "{told}");
    // In the settings as well, and for all machines at once.
    folder.write("cluster.yaml", &format!("platform: aws\n{CLUSTER}"));
    refused(&folder, &["--role", "master"]);
    let told = refused(&folder, &["render", "-o", "out"]);
    for name in ["master", "node-1", "node-2"] {
        assert!(told.contains(&format!("user-data of {name}: ")), "{told}");
    }
    assert!(!told.contains("user-data of etcd-1"), "{told}");
    // A flag goes before the settings.
    folder.run(&["--role", "master", "--platform", "azure"]);
}

#[test]
fn a_platform_that_counts_base64_is_counted_so() {
    // Between the 49,149 raw bytes of OpenStack and the 65,535 of Azure.
    let blob: String = (0..3300)
        .map(|i: u32| format!("{:x}", i.wrapping_mul(2_654_435_761)))
        .collect();
    let folder = Folder::with(&format!("kubelet: {{config: {{a: '{blob}'}}}}\n{CLUSTER}"));
    let args = ["--role", "master"];
    let bytes = folder.user_data(&args).len();
    assert!((49_150..=65_535).contains(&bytes), "{bytes}");
    folder.run(&["--role", "master", "--platform", "azure"]);
    folder.run(&["--role", "master", "--platform", "digitalocean"]);
    let told = refused(&folder, &["--role", "master", "--platform", "openstack"]);
    let counted = (bytes.div_ceil(3) * 4).to_string();
    let (thousands, rest) = counted.split_at(counted.len() - 3);
    let counted = format!("{thousands},{rest} bytes in base64 is more than the 65,535");
    assert!(told.contains(&counted), "{told}");
    assert!(told.contains("with --gzip, or gzip: true in cluster.yaml, it is "));
    folder.run(&["--role", "master", "--platform", "openstack", "--gzip"]);
}

#[test]
fn a_compressed_document_is_the_same_document() {
    let folder = Folder::with(CLUSTER);
    for format in ["coreos", "cloud-init"] {
        let args = ["--role", "node", "--name", "node-1", "--format", format];
        let plain = folder.user_data(&args);
        let gzip = [&args[..], &["--gzip", "--platform", "aws"]].concat();
        let packed = folder.run(&gzip).stdout;
        assert!(packed.len() <= 16_384 && plain.len() > 16_384);
        assert_eq!(gunzip(&packed), plain);
        assert_eq!(folder.run(&gzip).stdout, packed, "the same bytes each time");
    }
    folder.write("cluster.yaml", &format!("gzip: true\n{CLUSTER}"));
    folder.run(&["render", "-o", "out"]);
    let packed = std::fs::read(folder.path("out/node-1/user-data")).unwrap();
    assert!(gunzip(&packed).starts_with("#cloud-config\n"));
}

#[test]
fn compression_is_refused_where_it_is_not_understood() {
    let folder = Folder::with(CLUSTER);
    let args = ["--role", "master", "--gzip"];
    let told = refused(&folder, &[&args[..], &["--format", "ignition"]].concat());
    assert!(told.contains("Ignition takes no compressed"), "{told}");
    let told = refused(
        &folder,
        &[&args[..], &["--platform", "digitalocean"]].concat(),
    );
    assert!(
        told.contains("digitalocean takes plain text only"),
        "{told}"
    );
    folder.write("cluster.yaml", &format!("platform: ec2\n{CLUSTER}"));
    let told = refused(&folder, &["--role", "master"]);
    assert!(told.contains("[cluster.yaml:1:11]"), "{told}");
    assert!(told.contains("use one of aws, azure"), "{told}");
}

#[test]
fn a_table_of_all_platforms() {
    let folder = Folder::with(CLUSTER);
    let before = folder.tree();
    let output = folder.run(&["sizes"]);
    assert_eq!(folder.tree(), before, "sizes wrote something");
    assert!(output.stderr.is_empty());
    let table = String::from_utf8(output.stdout).unwrap();
    let row = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(name));
        row.unwrap_or_else(|| panic!("{name}: {table}")).to_owned()
    };
    assert!(row("aws").contains("too large"), "{table}");
    assert!(row("aws").contains("with --gzip"), "{table}");
    assert!(
        row("openstack").contains("65,535  base64       fits"),
        "{table}"
    );
    assert!(row("vsphere").contains("gzip+base64"), "{table}");
    assert!(
        row("generic").ends_with("fits              fits              fits"),
        "{table}"
    );
    for role in ["  master", "  node", "  etcd"] {
        assert!(row(role).contains(" in gzip"), "{table}");
    }
    let table = folder.user_data(&["sizes", "--format", "ignition"]);
    assert!(!table.contains("--gzip"), "{table}");
    let table = folder.user_data(&["sizes", "--gzip"]);
    assert!(
        table.contains("digitalocean     65,536  raw          no gzip"),
        "{table}"
    );
}
