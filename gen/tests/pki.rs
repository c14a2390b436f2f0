//! The cluster's certificates, verified by another implementation than the one
//! that made them.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use common::openssl::openssl;
use common::{CLUSTER, Folder};
use kgen::cluster::Cluster;
use kgen::pki::Pki;
use kgen::report::Source;
use kgen::settings;
use time::{Duration, OffsetDateTime};

/// The certificates in pki/ that no authority is.
fn leaves(folder: &Folder) -> Vec<String> {
    let is_leaf =
        |f: &String| f.starts_with("pki/") && f.ends_with(".crt") && !f.ends_with("ca.crt");
    folder.tree().into_keys().filter(is_leaf).collect()
}

fn authority_of(leaf: &str) -> &'static str {
    if leaf.contains("/etcd/") || leaf.contains("apiserver-etcd-client") {
        "pki/etcd/ca.crt"
    } else if leaf.contains("front-proxy") {
        "pki/front-proxy-ca.crt"
    } else {
        "pki/ca.crt"
    }
}

fn purposes(leaf: &str) -> &'static [&'static str] {
    match leaf.rsplit('/').next().unwrap() {
        "server.crt" | "peer.crt" => &["sslserver", "sslclient"],
        "apiserver.crt" | "kubelet.crt" => &["sslserver"],
        _ => &["sslclient"],
    }
}

/// Every certificate holds for what it is for, and for nothing else.
fn verify_all(folder: &Folder) -> usize {
    let leaves = leaves(folder);
    for leaf in &leaves {
        let authority = authority_of(leaf);
        for purpose in ["sslserver", "sslclient"] {
            let args = [
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                authority,
                leaf,
            ];
            let (holds, told) = openssl(folder, &args);
            assert_eq!(
                holds,
                purposes(leaf).contains(&purpose),
                "{leaf} as {purpose}: {told}"
            );
        }
        for other in ["pki/ca.crt", "pki/front-proxy-ca.crt", "pki/etcd/ca.crt"] {
            let (holds, _) = openssl(folder, &["verify", "-CAfile", other, leaf]);
            assert_eq!(holds, other == authority, "{leaf} by {other}");
        }
        let key = leaf.replace(".crt", ".key");
        let (_, public) = openssl(folder, &["pkey", "-in", &key, "-pubout"]);
        let (_, certified) = openssl(folder, &["x509", "-in", leaf, "-noout", "-pubkey"]);
        assert_eq!(public, certified, "{leaf}");
    }
    leaves.len()
}

#[test]
fn openssl_verifies_every_certificate() {
    let folder = Folder::with(&format!("endpoint: api.example.com:443\n{CLUSTER}"));
    folder.run(&["render", "-o", "out"]);
    assert_eq!(verify_all(&folder), 9 + 3 + 3 + 3 + 2);
    let subject = |file: &str| openssl(&folder, &["x509", "-in", file, "-noout", "-subject"]).1;
    for (file, expected) in [
        ("pki/ca.crt", "CN = kubernetes"),
        ("pki/front-proxy-ca.crt", "CN = front-proxy-ca"),
        ("pki/etcd/ca.crt", "CN = etcd-ca"),
        (
            "pki/admin.crt",
            "O = kubeadm:cluster-admins, CN = kubernetes-admin",
        ),
        (
            "pki/super-admin.crt",
            "O = system:masters, CN = kubernetes-super-admin",
        ),
        (
            "pki/nodes/node-1/kubelet-client.crt",
            "O = system:nodes, CN = system:node:node-1",
        ),
        (
            "pki/nodes/node-1/kubelet.crt",
            "O = system:nodes, CN = system:node:node-1",
        ),
        (
            "pki/nodes/node-1/kube-proxy.crt",
            "O = system:node-proxier, CN = system:kube-proxy",
        ),
        (
            "pki/nodes/master/scheduler.crt",
            "CN = system:kube-scheduler",
        ),
        ("pki/nodes/etcd-1/etcd/peer.crt", "CN = etcd-1"),
    ] {
        let shown = subject(file);
        assert!(shown.trim_end().ends_with(expected), "{file}: {shown}");
    }
    let checks = |file: &str, names: &[&str], addresses: &[&str]| {
        for name in names {
            let (_, told) = openssl(
                &folder,
                &["x509", "-in", file, "-noout", "-checkhost", name],
            );
            assert!(told.contains("does match"), "{file}: {told}");
        }
        for address in addresses {
            let (_, told) = openssl(
                &folder,
                &["x509", "-in", file, "-noout", "-checkip", address],
            );
            assert!(told.contains("does match"), "{file}: {told}");
        }
    };
    checks(
        "pki/nodes/master/apiserver.crt",
        &[
            "master",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "api.example.com",
        ],
        &["10.0.0.10", "10.96.0.1", "127.0.0.1"],
    );
    checks("pki/nodes/node-1/kubelet.crt", &["node-1"], &["10.0.0.11"]);
    let local = ["10.0.0.13", "127.0.0.1", "::1"];
    checks(
        "pki/nodes/etcd-1/etcd/server.crt",
        &["etcd-1", "localhost"],
        &local,
    );
    for (file, days) in [("pki/ca.crt", 3649), ("pki/admin.crt", 364)] {
        let left = |days: i32| {
            let seconds = (days * 86_400).to_string();
            openssl(
                &folder,
                &["x509", "-in", file, "-noout", "-checkend", &seconds],
            )
            .0
        };
        assert!(left(days) && !left(days + 1), "{file}");
    }
}

#[test]
fn nothing_is_readable_by_others_whatever_the_umask() {
    let folder = Folder::with(CLUSTER);
    for umask in ["0", "077"] {
        let kgen = folder.kgen().get_program().to_owned();
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$0\" render -o out-{umask}"))
            .arg(kgen)
            .current_dir(folder.path(""))
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }
    let mut keys = 0;
    for (file, (_, mode)) in folder.tree() {
        if !file.starts_with("pki/") && !file.starts_with("out-") {
            continue;
        }
        let expected = match file.as_str() {
            f if f.ends_with('/') => 0o700,
            f if f.ends_with(".crt") || f.ends_with(".pub") => 0o644,
            _ => 0o600,
        };
        keys += usize::from(file.ends_with(".key"));
        assert_eq!(mode, expected, "{file} has {mode:o}");
    }
    assert!(keys > 20, "{keys}");
}

#[test]
fn what_is_there_is_used_again() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let before = folder.tree();
    let told = String::from_utf8(folder.run(&["render", "-o", "out"]).stderr).unwrap();
    assert_eq!(folder.tree(), before);
    assert_eq!(told, "kgen: 8 files as they were\n");
}

#[test]
fn only_what_no_longer_fits_is_made_anew() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let before = folder.tree();
    folder.write("cluster.yaml", &CLUSTER.replace("10.0.0.11", "10.0.0.21"));
    fs::remove_file(folder.path("pki/nodes/node-2/kubelet.crt")).unwrap();
    let told = String::from_utf8(folder.run(&["render", "-o", "out"]).stderr).unwrap();
    let after = folder.tree();
    let changed: Vec<&str> = after
        .iter()
        .filter(|(file, content)| file.starts_with("pki/") && before.get(*file) != Some(content))
        .map(|(file, _)| file.as_str())
        .collect();
    assert_eq!(
        changed,
        [
            "pki/nodes/node-1/kubelet.crt",
            "pki/nodes/node-1/kubelet.key",
            "pki/nodes/node-2/kubelet.crt",
            "pki/nodes/node-2/kubelet.key",
        ]
    );
    assert!(
        told.contains(
            "made pki/nodes/node-1/kubelet.crt anew: its names or addresses have changed"
        ),
        "{told}"
    );
    verify_all(&folder);

    // Another authority: everything under it.
    for file in ["pki/front-proxy-ca.crt", "pki/front-proxy-ca.key"] {
        fs::remove_file(folder.path(file)).unwrap();
    }
    let told = String::from_utf8(folder.run(&["--role", "master"]).stderr).unwrap();
    assert!(
        told.contains("made the authority pki/front-proxy-ca.crt"),
        "{told}"
    );
    assert!(
        told.contains("front-proxy-client.crt anew: another authority had signed it"),
        "{told}"
    );
    verify_all(&folder);
}

#[test]
fn certificates_are_renewed_in_the_last_third_of_their_life_and_authorities_never() {
    let folder = Folder::empty();
    let checked = settings::load(&Source::new("cluster.yaml", CLUSTER)).unwrap();
    let cluster = Cluster::new(&checked);
    let now = OffsetDateTime::now_utc();
    let at = |when: OffsetDateTime| {
        let mut pki = Pki::open(&folder.path(""), when).unwrap();
        let made = pki.machine(&cluster, cluster.machine("node-1").unwrap());
        let told = made.map(|_| pki.notes().join("\n"));
        pki.commit().unwrap();
        told
    };
    assert!(at(now).unwrap().contains("made the authority"));
    let first = folder.tree();
    assert_eq!(at(now + Duration::days(240)).unwrap(), "");
    assert_eq!(folder.tree(), first);
    let told = at(now + Duration::days(244)).unwrap();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains("anew: it expires on "), "{told}");
    let renewed = folder.tree();
    assert_eq!(renewed["pki/ca.crt"], first["pki/ca.crt"]);
    // Long after: expired leaves are made anew, an expired authority is told.
    let told = at(now + Duration::days(3000)).unwrap();
    assert!(told.contains("anew: it had expired on "), "{told}");
    let error = at(now + Duration::days(3651)).unwrap_err().to_string();
    assert!(error.contains("pki/ca.crt: has expired on "), "{error}");
}

#[test]
fn a_certificate_never_outlives_its_authority() {
    let folder = Folder::empty();
    let checked = settings::load(&Source::new("cluster.yaml", CLUSTER)).unwrap();
    let cluster = Cluster::new(&checked);
    let now = OffsetDateTime::now_utc() - Duration::days(3500);
    for when in [now, now + Duration::days(3500), now + Duration::days(3600)] {
        let mut pki = Pki::open(&folder.path(""), when).unwrap();
        pki.machine(&cluster, cluster.machine("node-1").unwrap())
            .unwrap();
        pki.commit().unwrap();
    }
    let (_, authority) = openssl(
        &folder,
        &["x509", "-in", "pki/ca.crt", "-noout", "-enddate"],
    );
    let leaf = "pki/nodes/node-1/kubelet.crt";
    let (_, leaf) = openssl(&folder, &["x509", "-in", leaf, "-noout", "-enddate"]);
    assert_eq!(leaf, authority);
}

#[test]
fn the_operators_own_authorities_are_used_and_left_alone() {
    for (kind, make) in [
        ("PKCS#1", "openssl genrsa -traditional -out pki/ca.key 2048"),
        ("PKCS#8 RSA", "openssl genrsa -out pki/ca.key 2048"),
        (
            "SEC 1",
            "openssl ecparam -name prime256v1 -genkey -out pki/ca.key",
        ),
        (
            "P-384",
            "openssl ecparam -name secp384r1 -genkey -noout -out pki/ca.key",
        ),
        (
            "Ed25519",
            "openssl genpkey -algorithm ed25519 -out pki/ca.key",
        ),
    ] {
        let folder = Folder::with(CLUSTER);
        let script = format!(
            "set -e; mkdir -m 700 pki; umask 077; {make} 2>/dev/null; \
             openssl req -x509 -new -key pki/ca.key -subj '/C=CH/O=Example/CN=Own CA' -days 365 \
             -addext 'keyUsage=critical,keyCertSign,cRLSign' -out pki/ca.crt"
        );
        let status = Command::new("sh")
            .args(["-c", &script])
            .current_dir(folder.path(""))
            .status()
            .unwrap();
        assert!(status.success(), "{kind}");
        let before = folder.tree();
        folder.run(&["render", "-o", "out"]);
        let after = folder.tree();
        assert_eq!(after["pki/ca.crt"].0, before["pki/ca.crt"].0, "{kind}");
        assert_eq!(after["pki/ca.key"].0, before["pki/ca.key"].0, "{kind}");
        verify_all(&folder);
        folder.run(&["render", "-o", "out"]);
        assert_eq!(folder.tree(), after, "{kind}");
    }
}

#[test]
fn an_authority_whose_name_cannot_be_kept_is_refused() {
    let folder = Folder::with(CLUSTER);
    let script = "set -e; mkdir -m 700 pki; umask 077; \
                  openssl ecparam -name prime256v1 -genkey -noout -out pki/ca.key; \
                  openssl req -x509 -new -key pki/ca.key -subj '/OU=a/OU=b/CN=Own CA' -days 365 \
                  -out pki/ca.crt";
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path(""))
        .status()
        .unwrap();
    assert!(status.success());
    let output = folder.kgen().args(["--role", "master"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("cannot be written as an issuer unchanged"),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(!folder.path("pki/nodes").exists());
}

#[test]
fn several_at_once_make_one_authority() {
    let folder = Folder::with(CLUSTER);
    let kgen = folder.kgen().get_program().to_owned();
    let running: Vec<_> = ["master", "node-1", "node-2", "master", "node-1"]
        .iter()
        .map(|name| {
            Command::new(&kgen)
                .args(["--name", name])
                .current_dir(folder.path(""))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let documents: Vec<String> = running
        .into_iter()
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    assert_eq!(documents[0], documents[3]);
    assert_eq!(documents[1], documents[4]);
    let authorities: BTreeSet<String> = documents
        .iter()
        .map(|text| common::Document::parse(text).text("/etc/kubernetes/pki/ca.crt"))
        .collect();
    assert_eq!(authorities.len(), 1);
    verify_all(&folder);
}

#[test]
fn a_node_needs_no_authoritys_key_once_its_certificates_are_made() {
    let folder = Folder::with(CLUSTER);
    let args = ["--name", "node-1"];
    let first = folder.user_data(&args);
    fs::remove_file(folder.path("pki/ca.key")).unwrap();
    assert_eq!(folder.user_data(&args), first);
    let output = folder.kgen().args(["--name", "node-2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("pki/ca.key: is missing"), "{told}");
    assert!(told.contains("1 finding"), "{told}");
}

#[test]
fn keys_that_others_may_read_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with(CLUSTER);
    folder.run(&["--role", "master"]);
    let key = folder.path("pki/sa.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    let told = String::from_utf8(folder.run(&["--role", "master"]).stderr).unwrap();
    assert_eq!(
        told,
        "kgen: others than you may read pki/sa.key: chmod 600 pki/sa.key\n"
    );
}
