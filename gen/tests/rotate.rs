//! Authorities and the key of service accounts, replaced in stages; openssl
//! says who still believes whom. (P17, B13)

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use common::openssl::{certs, openssl, text};
use common::{CLUSTER, Document, Folder};
use serde_json::Value;

fn stage(folder: &Folder, args: &[&str]) -> String {
    let output = certs(folder, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    text(&output)
}

/// What every machine has, by stage: machine → path → bytes.
type Machines = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

fn machines(folder: &Folder) -> Machines {
    let names = ["master", "node-1", "node-2", "etcd-1"];
    let files = names.map(|name| {
        let document = Document::parse(&folder.user_data(&["--name", name]));
        let files = document.files().into_iter();
        (
            name,
            files.map(|(path, (_, bytes))| (path, bytes)).collect(),
        )
    });
    files.into_iter().collect()
}

fn decode(kubeconfig: &[u8], key: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text = std::str::from_utf8(kubeconfig).unwrap();
    let value = text.split(&format!("{key}: ")).nth(1).unwrap();
    let value = value.lines().next().unwrap();
    base64::engine::general_purpose::STANDARD
        .decode(value)
        .unwrap()
}

/// Every certificate that one machine shows and what another one believes,
/// whichever of the stages each of them is at.
fn everybody_believes_everybody(folder: &Folder, a: &Machines, b: &Machines) -> usize {
    const PKI: &str = "/etc/kubernetes/pki";
    let mut checks = 0;
    let mut believes = |bundle: &[u8], leaf: &[u8], what: &str| {
        fs::write(folder.path("bundle.pem"), bundle).unwrap();
        fs::write(folder.path("leaf.pem"), leaf).unwrap();
        let args = [
            "verify",
            "-x509_strict",
            "-CAfile",
            "bundle.pem",
            "leaf.pem",
        ];
        let (holds, told) = openssl(folder, &args);
        assert!(holds, "{what}: {told}");
        checks += 1;
    };
    for (reader, files) in a {
        for (shower, shown) in b {
            for (path, bytes) in shown {
                let leaf = if path.ends_with(".conf") && path.starts_with("/etc/kubernetes/") {
                    decode(bytes, "client-certificate-data")
                } else if path.ends_with(".crt") && !path.contains("ca") {
                    bytes.clone()
                } else {
                    continue;
                };
                let authority = if path.contains("/etcd") || path.contains("etcd-client") {
                    "etcd/ca.crt"
                } else if path.contains("front-proxy") {
                    "front-proxy-ca.crt"
                } else {
                    "ca.crt"
                };
                if let Some(bundle) = files.get(&format!("{PKI}/{authority}")) {
                    believes(bundle, &leaf, &format!("{reader} reads {path} of {shower}"));
                }
            }
        }
        // And what a kubeconfig believes is what the machine does.
        for (path, bytes) in files.iter().filter(|(p, _)| p.ends_with("kubelet.conf")) {
            let bundle = decode(bytes, "certificate-authority-data");
            assert_eq!(bundle, files[&format!("{PKI}/ca.crt")], "{path}");
        }
    }
    checks
}

fn certificates(bytes: &[u8]) -> usize {
    let text = std::str::from_utf8(bytes).unwrap();
    text.matches("-----BEGIN CERTIFICATE-----").count()
}

#[test]
fn no_machine_is_cut_off_in_any_stage() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let before = machines(&folder);
    let ca = "/etc/kubernetes/pki/ca.crt";

    let told = stage(&folder, &["rotate-ca", "--stage", "prepare"]);
    assert!(
        told.contains("made the authority pki/ca-next.crt"),
        "{told}"
    );
    assert!(
        told.contains("changed of master, node-1, node-2, etcd-1; and kubeconfigs"),
        "{told}"
    );
    assert!(
        told.contains("when all of them are: kgen certs rotate-ca etcd --stage switch"),
        "{told}"
    );
    let prepared = machines(&folder);
    assert_eq!(certificates(&prepared["node-1"][ca]), 2);
    // Nothing but what is believed has changed.
    let leaf = "/etc/kubernetes/pki/kubelet.crt";
    assert_eq!(prepared["node-1"][leaf], before["node-1"][leaf]);

    let told = stage(&folder, &["rotate-ca", "--stage", "switch", "--now"]);
    assert!(
        told.contains("made pki/nodes/node-1/kubelet.crt anew: another authority had signed it"),
        "{told}"
    );
    let switched = machines(&folder);
    assert_ne!(switched["node-1"][leaf], before["node-1"][leaf]);
    assert_eq!(certificates(&switched["node-1"][ca]), 2);

    let told = stage(&folder, &["rotate-ca", "--stage", "finish", "--now"]);
    assert!(told.contains("nothing is left"), "{told}");
    let finished = machines(&folder);
    assert_eq!(certificates(&finished["node-1"][ca]), 1);
    assert_eq!(finished["node-1"][leaf], switched["node-1"][leaf]);

    // Machines of one stage and of the next one get on, both ways.
    let stages = [&before, &prepared, &switched, &finished];
    for pair in stages.windows(2) {
        assert!(everybody_believes_everybody(&folder, pair[0], pair[1]) > 40);
        everybody_believes_everybody(&folder, pair[1], pair[0]);
    }
    // But not those of before and after: the check can fail.
    fs::write(folder.path("bundle.pem"), &before["node-1"][ca]).unwrap();
    fs::write(folder.path("leaf.pem"), &finished["node-1"][leaf]).unwrap();
    let args = ["verify", "-CAfile", "bundle.pem", "leaf.pem"];
    assert!(!openssl(&folder, &args).0);

    // Nothing of it is left.
    let left: Vec<String> = folder
        .tree()
        .into_keys()
        .filter(|f| f.contains("-next") || f.contains("-previous"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let (_, subject) = openssl(
        &folder,
        &["x509", "-in", "pki/ca.crt", "-noout", "-subject"],
    );
    assert!(subject.contains("CN = kubernetes-2"), "{subject}");
}

/// The controller manager takes one certificate to sign with, and the key is
/// that one's; the first of ca.crt is the one too.
#[test]
fn a_master_signs_with_one_certificate() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let signing = "/etc/kubernetes/pki/ca-signing.crt";
    let unit = "/etc/systemd/system/kube-controller-manager.service.d/10-kgen.conf";
    let master = &machines(&folder)["master"];
    assert!(!master.contains_key(signing));
    for (which, now) in [("prepare", &[][..]), ("switch", &["--now"])] {
        let args = [&["rotate-ca", "cluster", "--stage", which], now].concat();
        stage(&folder, &args);
        let all = machines(&folder);
        let master = &all["master"];
        assert!(!all["node-1"].contains_key(signing));
        assert_eq!(certificates(&master[signing]), 1);
        let bundle = &master["/etc/kubernetes/pki/ca.crt"];
        assert!(bundle.starts_with(&master[signing]), "{which}");
        let flags = String::from_utf8(master[unit].clone()).unwrap();
        assert!(flags.contains(&format!("--cluster-signing-cert-file={signing}")));
        assert!(flags.contains("--root-ca-file=/etc/kubernetes/pki/ca.crt"));
        fs::write(folder.path("c.pem"), &master[signing]).unwrap();
        fs::write(folder.path("k.pem"), &master["/etc/kubernetes/pki/ca.key"]).unwrap();
        let (_, public) = openssl(&folder, &["pkey", "-in", "k.pem", "-pubout"]);
        let (_, certified) = openssl(&folder, &["x509", "-in", "c.pem", "-noout", "-pubkey"]);
        assert_eq!(public, certified, "{which}");
        // A worker has no key of an authority, in no stage.
        assert!(!all["node-1"].keys().any(|path| path.ends_with("ca.key")));
    }
}

#[test]
fn stages_are_taken_in_their_order_and_not_in_haste() {
    let folder = Folder::with(CLUSTER);
    let refused = |args: &[&str], why: &[&str]| {
        let before = folder.tree();
        let output = certs(&folder, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        for why in why {
            assert!(text(&output).contains(why), "{}", text(&output));
        }
        assert_eq!(folder.tree(), before);
    };
    let prepare = ["rotate-ca", "etcd", "--stage", "prepare"];
    let switch = ["rotate-ca", "etcd", "--stage", "switch"];
    let finish = ["rotate-ca", "etcd", "--stage", "finish"];
    refused(&prepare, &["pki/etcd/ca.crt: is missing", "kgen render"]);
    folder.run(&["render", "-o", "out"]);
    for early in [&switch, &finish] {
        refused(early, &["etcd is not being replaced", "--stage prepare"]);
    }
    let told = stage(&folder, &["rotate-ca", "etcd"]);
    assert!(
        told.contains("to begin: kgen certs rotate-ca etcd --stage prepare"),
        "{told}"
    );
    let told = stage(&folder, &prepare);
    assert!(
        told.contains("changed of master, etcd-1: kgen render"),
        "{told}"
    );
    refused(&prepare, &["etcd is prepared", "--stage switch"]);
    refused(&finish, &["etcd is prepared: it is not the turn of finish"]);
    refused(&switch, &["the stage prepare is 0 hours old", "--now"]);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(90_000);
    let file = fs::File::options()
        .append(true)
        .open(folder.path("pki/etcd/ca-next.crt"))
        .unwrap();
    file.set_modified(old).unwrap();
    // Of several, all or none.
    refused(
        &["rotate-ca", "all", "--stage", "switch"],
        &["cluster is not being replaced", "front-proxy is not"],
    );
    stage(&folder, &switch);
    refused(&switch, &["etcd was switched", "--stage finish"]);
    refused(&finish, &["the stage switch is 0 hours old"]);
    let told = text(&certs(&folder, &["list"]));
    assert!(told.contains("etcd/ca-previous"), "{told}");
    assert!(
        told.contains("kgen: etcd is being replaced: switch is done"),
        "{told}"
    );
    let output = certs(&folder, &["list", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json["rotations"][0]["next"],
        "kgen certs rotate-ca etcd --stage finish"
    );
    stage(&folder, &[&finish[..], &["--now"]].concat());
    let output = certs(&folder, &["rotate-ca", "ca"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

/// Killed between two of its writes, a switch is done by doing it again.
#[test]
fn a_switch_that_was_stopped_half_way_is_done_again() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let before = machines(&folder);
    stage(&folder, &["rotate-ca", "cluster", "--stage", "prepare"]);
    for half in ["the old one kept", "ca.crt gone", "ca.key replaced"] {
        let copy = Folder::with(CLUSTER);
        let status = Command::new("cp")
            .arg("-a")
            .arg(folder.path("pki"))
            .arg(copy.path(""))
            .status()
            .unwrap();
        assert!(status.success());
        let cp = |from: &str, to: &str| {
            fs::copy(copy.path(from), copy.path(to)).unwrap();
        };
        cp("pki/ca.key", "pki/ca-previous.key");
        cp("pki/ca.crt", "pki/ca-previous.crt");
        if half != "the old one kept" {
            fs::remove_file(copy.path("pki/ca.crt")).unwrap();
        }
        if half == "ca.key replaced" {
            cp("pki/ca-next.key", "pki/ca.key");
        }
        stage(
            &copy,
            &["rotate-ca", "cluster", "--stage", "switch", "--now"],
        );
        let switched = machines(&copy);
        everybody_believes_everybody(&copy, &switched, &before);
        assert!(!copy.path("pki/ca-next.crt").exists(), "{half}");
        assert!(!copy.path("pki/ca-next.key").exists(), "{half}");
    }
}

#[test]
fn tokens_of_service_accounts_hold_through_every_stage() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let keys = || {
        let all = machines(&folder);
        let text = |path: &str| String::from_utf8(all["master"][path].clone()).unwrap();
        (
            text("/etc/kubernetes/pki/sa.key"),
            text("/etc/kubernetes/pki/sa.pub"),
        )
    };
    let public = |key: &str| {
        folder.write("sa.pem", key);
        openssl(&folder, &["pkey", "-in", "sa.pem", "-pubout"]).1
    };
    let (old, alone) = keys();
    assert_eq!(alone, public(&old));
    let told = stage(&folder, &["rotate-sa", "--stage", "prepare"]);
    assert!(told.contains("changed of master: kgen render"), "{told}");
    let (key, both) = keys();
    assert_eq!(key, old);
    assert!(
        both.starts_with(&alone) && both.len() > alone.len(),
        "{both}"
    );
    let output = certs(&folder, &["rotate-sa", "--stage", "switch"]);
    assert!(text(&output).contains("0 hours old"), "{}", text(&output));
    stage(&folder, &["rotate-sa", "--stage", "switch", "--now"]);
    let (new, both) = keys();
    assert_ne!(new, old);
    assert_eq!(both, public(&new) + &public(&old));
    stage(&folder, &["rotate-sa", "--stage", "finish", "--now"]);
    assert_eq!(keys(), (new.clone(), public(&new)));
    let told = stage(&folder, &["rotate-sa"]);
    assert!(told.contains("sa is not being replaced"), "{told}");
    for (file, (_, mode)) in folder.tree() {
        if file.starts_with("pki/") && file.ends_with(".key") {
            assert_eq!(mode, 0o600, "{file}");
        }
    }
}

/// P16: the operator's own authority takes the place of one.
#[test]
fn the_next_authority_may_be_the_operators_own() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let script = "umask 077; openssl ecparam -name prime256v1 -genkey -noout -out pki/ca-next.key; \
                  openssl req -x509 -new -key pki/ca-next.key -subj '/CN=Own' -days 365 \
                  -addext keyUsage=critical,keyCertSign -out pki/ca-next.crt";
    let mut sh = Command::new("sh");
    sh.args(["-ec", script]).current_dir(folder.path(""));
    assert!(sh.status().unwrap().success());
    let before = folder.read("pki/ca-next.crt");
    let prepared = machines(&folder);
    assert_eq!(
        certificates(&prepared["node-1"]["/etc/kubernetes/pki/ca.crt"]),
        2
    );
    stage(
        &folder,
        &["rotate-ca", "cluster", "--stage", "switch", "--now"],
    );
    assert_eq!(folder.read("pki/ca.crt"), before);
    everybody_believes_everybody(&folder, &machines(&folder), &prepared);
    // A key that is elsewhere is asked for.
    stage(&folder, &["rotate-ca", "etcd", "--stage", "prepare"]);
    fs::remove_file(folder.path("pki/etcd/ca-next.key")).unwrap();
    let output = certs(
        &folder,
        &["rotate-ca", "etcd", "--stage", "switch", "--now"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("pki/etcd/ca-next.key: is missing"),
        "{}",
        text(&output)
    );
}
