//! `kgen certs`, and what openssl says to it. (P17)

mod common;

use std::collections::BTreeMap;

use common::openssl::{certs, openssl, text};
use common::{CLUSTER, Folder};
use kgen::cluster::Cluster;
use kgen::pki::Pki;
use kgen::report::Source;
use kgen::settings;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

/// Everything of a cluster, made so many days ago.
fn aged(days: i64) -> Folder {
    let folder = Folder::with(CLUSTER);
    let checked = settings::load(&Source::new("cluster.yaml", CLUSTER)).unwrap();
    let cluster = Cluster::new(&checked);
    let when = OffsetDateTime::now_utc() - Duration::days(days);
    let mut pki = Pki::open(&folder.path(""), when).unwrap();
    for machine in &cluster.machines {
        pki.machine(&cluster, machine).unwrap();
    }
    pki.operator(false).unwrap();
    pki.commit().unwrap();
    folder
}

#[test]
fn the_list_says_what_openssl_says() {
    let folder = aged(100);
    let before = folder.tree();
    let output = certs(&folder, &["list", "--json"]);
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(folder.tree(), before);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = json["certificates"].as_array().unwrap();
    let files: Vec<&str> = all.iter().map(|c| c["file"].as_str().unwrap()).collect();
    let there = before.keys().filter(|f| f.ends_with(".crt")).count();
    assert_eq!(files.len(), there);
    assert_eq!(
        files[..3],
        ["pki/ca.crt", "pki/etcd/ca.crt", "pki/front-proxy-ca.crt"]
    );
    for listed in all {
        let file = listed["file"].as_str().unwrap();
        let days = listed["daysLeft"].as_i64().unwrap();
        assert_eq!(
            days,
            if listed["authority"] == true {
                3549
            } else {
                264
            },
            "{file}"
        );
        // It holds for as many days, and not for one more.
        for (more, holds) in [(0, true), (1, false)] {
            let seconds = ((days + more) * 86_400).to_string();
            let args = ["x509", "-in", file, "-noout", "-checkend", &seconds];
            assert_eq!(openssl(&folder, &args).0, holds, "{file}");
        }
        let args = [
            "x509",
            "-in",
            file,
            "-noout",
            "-issuer",
            "-ext",
            "subjectAltName",
        ];
        let (_, told) = openssl(&folder, &args);
        for name in listed["names"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            // openssl writes IPv6 addresses in its own way.
            assert!(told.contains(name) || name.contains(':'), "{name}: {told}");
        }
        let issuer = listed["issuer"].as_str().unwrap().replace('=', " = ");
        assert!(told.contains(&issuer), "{issuer}: {told}");
    }
    let table = String::from_utf8(certs(&folder, &["list"]).stdout).unwrap();
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!(rows.len(), files.len() + 1);
    assert!(
        rows["nodes/master/apiserver"].contains("   264  CN=kubernetes"),
        "{table}"
    );
    assert!(
        rows["nodes/node-1/kubelet"].ends_with("  node-1, 10.0.0.11"),
        "{table}"
    );
    assert!(rows["nodes/master/apiserver"].contains(" more"), "{table}");
}

#[test]
fn nothing_is_listed_where_there_is_nothing() {
    let folder = Folder::empty();
    let output = certs(&folder, &["list", "--json"]);
    assert_eq!(text(&output), "{\n  \"certificates\": []\n}\n");
    assert_eq!(certs(&folder, &["check"]).status.code(), Some(0));
    let output = certs(&folder, &["renew"]);
    assert_eq!(text(&output), "kgen: there is nothing in pki/ to renew\n");
    assert!(folder.tree().is_empty());
}

#[test]
fn the_check_fails_when_something_expires_soon() {
    let folder = aged(350);
    let output = certs(&folder, &["check", "--days", "10"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    let output = certs(&folder, &["check"]);
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output);
    assert!(told.contains("nodes/node-1/kubelet-client"), "{told}");
    assert!(!told.lines().any(|line| line.starts_with("ca ")), "{told}");
    assert!(
        told.contains("certificates expire within 30 days"),
        "{told}"
    );
    let output = certs(&folder, &["check", "--days", "15", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["certificates"][0]["daysLeft"], 14);
    // What has expired expires within any time.
    let output = certs(&aged(400), &["check", "--days", "0"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("   -36  "), "{}", text(&output));
}

#[test]
fn leaves_are_renewed_and_authorities_kept() {
    let folder = aged(100);
    let before = folder.tree();
    let output = certs(&folder, &["renew"]);
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("made pki/nodes/master/apiserver.crt anew: as asked"),
        "{told}"
    );
    assert!(
        told.contains("changed of master, node-1, node-2, etcd-1: render"),
        "{told}"
    );
    let after = folder.tree();
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    for (file, (bytes, mode)) in &after {
        let leaf = (file.ends_with(".crt") || file.ends_with(".key"))
            && !file.contains("ca.")
            && !file.contains("sa.")
            && !file.contains("encryption");
        assert_eq!(before[file].0 != *bytes, leaf, "{file}");
        if file.ends_with(".key") {
            assert_eq!(*mode, 0o600, "{file}");
        }
        if !leaf || file.ends_with(".key") {
            continue;
        }
        let authority = if file.contains("/etcd/") || file.contains("etcd-client") {
            "pki/etcd/ca.crt"
        } else if file.contains("front-proxy") {
            "pki/front-proxy-ca.crt"
        } else {
            "pki/ca.crt"
        };
        let args = ["verify", "-x509_strict", "-CAfile", authority, file];
        let (holds, told) = openssl(&folder, &args);
        assert!(holds, "{file}: {told}");
        let year = (364 * 86_400).to_string();
        let args = ["x509", "-in", file, "-noout", "-checkend", &year];
        assert!(openssl(&folder, &args).0, "{file}");
        let key = file.replace(".crt", ".key");
        let (_, public) = openssl(&folder, &["pkey", "-in", &key, "-pubout"]);
        let (_, certified) = openssl(&folder, &["x509", "-in", file, "-noout", "-pubkey"]);
        assert_eq!(public, certified, "{file}");
    }
    // And they are what is rendered.
    let told = text(&folder.run(&["--name", "etcd-1"]));
    assert!(!told.contains("anew"), "{told}");
}

#[test]
fn only_what_was_named_is_renewed() {
    for (names, renewed) in [
        (
            &["nodes/master/apiserver"][..],
            &["nodes/master/apiserver"][..],
        ),
        (&["admin"], &["admin"]),
        (
            &["node-1"],
            &[
                "nodes/node-1/kube-proxy",
                "nodes/node-1/kubelet",
                "nodes/node-1/kubelet-client",
            ],
        ),
        (
            &["kubelet", "etcd/peer"],
            &[
                "nodes/etcd-1/etcd/peer",
                "nodes/master/kubelet",
                "nodes/node-1/kubelet",
                "nodes/node-2/kubelet",
            ],
        ),
    ] {
        let folder = aged(10);
        let before = folder.tree();
        let output = certs(&folder, &[&["renew"], names].concat());
        assert!(output.status.success(), "{}", text(&output));
        let mut changed: Vec<String> = folder
            .tree()
            .into_iter()
            .filter(|(file, content)| before[file] != *content && file.ends_with(".crt"))
            .map(|(file, _)| file[4..file.len() - 4].to_owned())
            .collect();
        changed.sort();
        assert_eq!(changed, renewed, "{names:?}");
    }
}

#[test]
fn what_cannot_be_renewed_is_refused() {
    let folder = aged(10);
    for (names, why) in [
        (&["ca"][..], "ca is an authority, and is kept"),
        (
            &["nodes/master/apiservr"],
            "did you mean nodes/master/apiserver?",
        ),
        (&["zzzzzzzzzzzz", "admin"], "kgen certs list names them"),
    ] {
        let before = folder.tree();
        let output = certs(&folder, &[&["renew"], names].concat());
        assert_eq!(output.status.code(), Some(2), "{names:?}");
        assert!(text(&output).contains(why), "{}", text(&output));
        assert_eq!(folder.tree(), before);
    }
    // An authority's key that is elsewhere.
    std::fs::remove_file(folder.path("pki/ca.key")).unwrap();
    let before = folder.tree();
    let output = certs(&folder, &["renew", "admin"]);
    assert!(
        text(&output).contains("pki/ca.key: is missing"),
        "{}",
        text(&output)
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(folder.tree(), before);
    // A machine that is gone from the settings keeps what it has.
    let folder = aged(10);
    folder.write(
        "cluster.yaml",
        "nodes: [{name: master, role: master, address: 10.0.0.10}]\n",
    );
    let output = certs(&folder, &["renew", "node-2"]);
    assert!(output.status.success());
    let told = text(&output);
    assert!(
        told.contains("left pki/nodes/node-2/kubelet.crt as it is"),
        "{told}"
    );
}

#[test]
fn the_built_in_cluster_is_renewed_too() {
    let folder = Folder::new();
    folder.run(&["--role", "master"]);
    folder.run(&["--role", "node", "--name", "w-1"]);
    let output = certs(&folder, &["renew"]);
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("changed of master, w-1"), "{told}");
    assert!(!told.contains("left "), "{told}");
}
