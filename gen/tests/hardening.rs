//! `kgen hardening`: what is generated keeps the benchmark, and what the
//! operator loosens is named. (B14)

mod common;

use std::collections::BTreeSet;

use common::{CLUSTER, Folder};
use serde_json::Value;

fn judged(folder: &Folder, args: &[&str]) -> (Option<i32>, Value) {
    let output = folder
        .kgen()
        .args(["hardening", "--json"])
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    (output.status.code(), json)
}

fn broken(json: &Value) -> BTreeSet<&str> {
    let all = json["recommendations"].as_array().unwrap();
    let broken = all.iter().filter(|r| r["broken"].is_object());
    broken.map(|r| r["id"].as_str().unwrap()).collect()
}

#[test]
fn what_is_generated_breaks_nothing() {
    let folder = Folder::with(CLUSTER);
    let before = folder.tree();
    let (status, json) = judged(&folder, &["--at-least", "90"]);
    assert_eq!(status, Some(0), "{json:#}");
    assert_eq!(broken(&json), BTreeSet::new(), "{json:#}");
    let all = json["recommendations"].as_array().unwrap();
    assert!(all.len() >= 75, "{}", all.len());
    // Where we do otherwise, the reason is said.
    let reasons = all.iter().filter(|r| r["reason"].is_string()).count();
    assert_eq!(json["kept"].as_u64().unwrap(), (all.len() - reasons) as u64);
    assert_eq!(folder.tree(), before, "nothing is written");
}

/// One setting at a time, and the recommendations that it breaks.
#[test]
fn what_the_operator_loosens_is_named() {
    let folder = Folder::with(CLUSTER);
    for (set, ids) in [
        ("apiServer.extraArgs.profiling=true", &["1.2.15"][..]),
        (
            "apiServer.extraArgs.authorization-mode=AlwaysAllow",
            &["1.2.6", "1.2.7", "1.2.8"],
        ),
        (
            "apiServer.extraArgs.enable-admission-plugins=AlwaysAdmit",
            &["1.2.3", "1.2.10", "1.2.14"],
        ),
        (
            "apiServer.extraArgs.disable-admission-plugins=ServiceAccount",
            &["1.2.12"],
        ),
        ("apiServer.extraArgs.audit-log-maxage=7", &["1.2.17"]),
        ("apiServer.extraArgs.token-auth-file=/tokens", &["1.2.2"]),
        (
            "apiServer.extraArgs.authentication-config=/other",
            &["1.2.1"],
        ),
        (
            "apiServer.extraArgs.tls-cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA",
            &["1.2.29"],
        ),
        (
            "controllerManager.extraArgs.bind-address=0.0.0.0",
            &["1.3.7"],
        ),
        ("scheduler.extraArgs.profiling=true", &["1.4.1"]),
        (
            "etcd.config.client-transport-security.client-cert-auth=false",
            &["2.2"],
        ),
        (
            "etcd.config.peer-transport-security.auto-tls=true",
            &["2.6"],
        ),
        (
            "kubelet.config.authentication.anonymous.enabled=true",
            &["4.2.1"],
        ),
        ("kubelet.config.readOnlyPort=10255", &["4.2.4"]),
        ("kubelet.config.podPidsLimit=-1", &["4.2.13"]),
        ("kubelet.config.tlsCipherSuites=null", &["4.2.12"]),
        (
            "kubeProxy.config.metricsBindAddress=0.0.0.0:10249",
            &["4.3.1"],
        ),
        ("network.metadataGuard=false", &["kgen-3"]),
    ] {
        let (status, json) = judged(&folder, &["--set", set, "--at-least", "100"]);
        let ids: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(broken(&json), ids, "{set}");
        assert_eq!(status, Some(3), "{set}");
    }
}

#[test]
fn the_table_is_for_people() {
    let folder = Folder::with(CLUSTER);
    let output = folder
        .kgen()
        .args(["hardening", "--set", "kubelet.config.seccompDefault=false"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("BROKEN  4.2.14  pods have seccomp's"),
        "{text}"
    );
    assert!(text.contains("seccompDefault is false"), "{text}");
    assert!(text.contains("differs 1.1.12"), "{text}");
    assert!(
        text.lines()
            .last()
            .unwrap()
            .contains("recommendations are kept")
    );
}
