//! `kgen lock`, against a mirror laid out as the real places are. (P22, B9)

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use common::mirror::{Mirror, sha256, sha512};
use common::{CLUSTER, Folder};
use kgen::artifacts::{Entry, Lock, Origin};
use kgen::report::Source;
use units::types::Arch;

const ETCD: &str = "github.com/etcd-io/etcd/releases/download/v3.6.14";

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

fn lock(folder: &Folder, mirror: &Mirror, args: &[&str]) -> Output {
    let mut command = folder.kgen();
    command.args(["lock", "--mirror", &mirror.url]).args(args);
    // The network is the mirror's alone.
    command.env("no_proxy", "127.0.0.1").output().unwrap()
}

fn entries(folder: &Folder) -> Vec<Entry> {
    let lock = Lock::load(&Source::new("kgen.lock", folder.read("kgen.lock"))).unwrap();
    let user = lock.entries().iter().filter(|e| e.origin == Origin::User);
    user.cloned().collect()
}

fn entry(folder: &Folder, name: &str) -> Entry {
    let found = entries(folder).into_iter().find(|e| e.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in {}", folder.read("kgen.lock")))
}

/// P22: versions are pinned in one place, and machines use the mirror.
#[test]
fn everything_is_pinned_as_it_is_published() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let before = folder.read("kgen.lock");
    let output = lock(&folder, &mirror, &[]);
    assert!(output.status.success(), "{}", text(&output));
    // knode's entry stays as it was written.
    assert!(folder.read("kgen.lock").starts_with(&before));
    let all = entries(&folder);
    let names: Vec<&str> = all.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "knode",
            "cni-plugins",
            "containerd",
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
            "runc"
        ]
    );
    let kubelet = entry(&folder, "kubelet");
    assert_eq!(
        kubelet.urls,
        [format!(
            "{}/dl.k8s.io/v1.36.1/bin/linux/amd64/kubelet",
            mirror.url
        )]
    );
    assert_eq!(kubelet.digest.hex(), sha256(b"kubelet 1.36.1"));
    assert_eq!(kubelet.size, Some(14));
    assert_eq!(entry(&folder, "runc").digest.hex(), sha256(b"runc"));
    // And it is what machines are told.
    let document = folder.user_data(&["--role", "master"]);
    let node = common::Document::parse(&document).text("/etc/knode/node.yaml");
    assert!(node.contains(&kubelet.urls[0]), "{node}");
    // Once more changes nothing.
    let first = folder.tree();
    let output = lock(&folder, &mirror, &[]);
    assert_eq!(text(&output), "kgen: 10 entries as before\n");
    assert_eq!(folder.tree(), first);
}

#[test]
fn the_operators_own_entries_and_comments_are_kept() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let own = format!(
        "# Our lock.\n{}# A kubelet with our patch.\n- name: kubelet\n  version: 1.36.1\n  \
         arch: amd64\n  url: http://ours/kubelet\n  sha256: {}\n# The end.\n",
        folder.read("kgen.lock"),
        "ab".repeat(32)
    );
    folder.write("kgen.lock", &own);
    fs::set_permissions(folder.path("kgen.lock"), fs::Permissions::from_mode(0o600)).unwrap();
    let output = lock(&folder, &mirror, &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("left kubelet 1.36.1 for amd64 as it is"),
        "{}",
        text(&output)
    );
    let now = folder.read("kgen.lock");
    let (kept, end) = own.split_at(own.find("# The end.").unwrap());
    assert!(now.starts_with(kept) && now.ends_with(end), "{now}");
    assert_eq!(entry(&folder, "kubelet").urls, ["http://ours/kubelet"]);
    assert_eq!(folder.tree()["kgen.lock"].1, 0o600);
    let asked = mirror.asked().join("\n");
    assert!(!asked.contains("/kubelet"), "{asked}");
}

#[test]
fn another_version_replaces_the_one_before() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    assert!(lock(&folder, &mirror, &[]).status.success());
    mirror.etcd("3.5.9", "amd64");
    let output = lock(&folder, &mirror, &["--version", "etcd=v3.5.9"]);
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for line in [
        "kgen: added etcd 3.5.9 for amd64\n",
        "kgen: removed etcd 3.6.14 for amd64\n",
        "kgen: 9 entries as before\n",
        "kgen: wrote kgen.lock\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert_eq!(entry(&folder, "etcd").version, "3.5.9");
    // It stays: the lock says which.
    assert!(lock(&folder, &mirror, &[]).status.success());
    assert_eq!(entry(&folder, "etcd").version, "3.5.9");
    // Of Kubernetes both are there; the settings choose.
    for program in ["apiserver", "controller-manager", "scheduler", "proxy"] {
        mirror.kubernetes("1.36.2", "amd64", &format!("kube-{program}"));
    }
    mirror.kubernetes("1.36.2", "amd64", "kubelet");
    mirror.kubernetes("1.36.2", "amd64", "kubectl");
    let output = lock(&folder, &mirror, &["--version", "kubernetes=1.36.2"]);
    assert!(output.status.success(), "{}", text(&output));
    let kubelets = entries(&folder);
    let kubelets = kubelets.iter().filter(|e| e.name == "kubelet");
    assert_eq!(kubelets.count(), 2);
    folder.run(&["--role", "master", "--set", "kubernetesVersion=1.36.2"]);
}

#[test]
fn both_processors_and_other_checksums() {
    let mirror = Mirror::full("arm64");
    let folder = Folder::with(CLUSTER);
    let place = "dl.k8s.io/v1.36.1/bin/linux/arm64/kubelet";
    mirror.remove(&format!("{place}.sha256"));
    let sum = sha512(b"kubelet 1.36.1");
    mirror.put(&format!("{place}.sha512"), sum.as_bytes());
    mirror.without_head();
    let output = lock(&folder, &mirror, &["--arch", "arm64"]);
    assert!(output.status.success(), "{}", text(&output));
    let kubelet = entry(&folder, "kubelet");
    assert_eq!((kubelet.arch, kubelet.size), (Arch::Arm64, Some(14)));
    assert_eq!(kubelet.digest.hex(), sum);
    // What is pinned is compared with its like, and stays.
    let short = format!("{}\n", sha256(b"something else"));
    mirror.put(&format!("{place}.sha256"), short.as_bytes());
    let output = lock(&folder, &mirror, &["--arch", "arm64"]);
    assert_eq!(text(&output), "kgen: 10 entries as before\n");
    // A program that no machine runs, where it is asked for.
    let crictl = "github.com/kubernetes-sigs/cri-tools/releases/download/v1.36.0/\
                  crictl-v1.36.0-linux-arm64.tar.gz";
    let sum = mirror.put(crictl, b"crictl");
    mirror.put(&format!("{crictl}.sha256"), sum.as_bytes());
    let args = ["--arch", "arm64", "--version", "crictl=1.36.0"];
    let output = lock(&folder, &mirror, &args);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(entry(&folder, "crictl").digest.hex(), sum);
}

#[test]
fn what_is_wrong_is_told_at_once_and_nothing_is_written() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let before = folder.tree();
    let etcd = format!("{ETCD}/SHA256SUMS");
    mirror.put(&etcd, b"00  etcd-v3.6.14-linux-arm64.tar.gz\n");
    mirror.page("github.com/opencontainers/runc/releases/download/v1.4.3/runc.sha256sum");
    mirror.remove("dl.k8s.io/v1.36.1/bin/linux/amd64/kubelet");
    mirror.put(
        "dl.k8s.io/v1.36.1/bin/linux/amd64/kubectl.sha256",
        b"soon\n",
    );
    let sums = "github.com/containernetworking/plugins/releases/download/v1.9.1/\
                cni-plugins-linux-amd64-v1.9.1.tgz.sha256";
    mirror.remove(sums);
    let output = lock(&folder, &mirror, &[]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for part in [
        "SHA256SUMS: does not name etcd-v3.6.14-linux-amd64.tar.gz",
        "runc.sha256sum: is a web page",
        "/kubelet: there is no such file",
        "kubectl.sha256: has no sha256 of 64 digits",
        "v1.9.1.tgz.sha256: there is no such file",
        "5 findings; nothing was written",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(folder.tree(), before);
}

/// A release does not change: what is pinned and published differently is no
/// update.
#[test]
fn a_checksum_that_changed_is_refused() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    assert!(lock(&folder, &mirror, &[]).status.success());
    let before = folder.tree();
    let place = "dl.k8s.io/v1.36.1/bin/linux/amd64/kubelet";
    let sum = mirror.put(place, b"other bytes");
    mirror.put(&format!("{place}.sha256"), sum.as_bytes());
    let output = lock(&folder, &mirror, &[]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("kubelet 1.36.1 for amd64: is pinned as sha256:"),
        "{told}"
    );
    assert_eq!(folder.tree(), before);
}

#[test]
fn trouble_that_passes_is_waited_for_and_lasting_trouble_is_not() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let sums = format!("{ETCD}/SHA256SUMS");
    mirror.fail(&sums, 2);
    assert!(lock(&folder, &mirror, &[]).status.success());
    let asked = mirror.asked();
    let tries = asked.iter().filter(|a| a.ends_with(&sums)).count();
    assert_eq!(tries, 3);

    let folder = Folder::with(CLUSTER);
    let before = folder.tree();
    mirror.fail(&sums, 1000);
    let output = lock(&folder, &mirror, &[]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("SHA256SUMS: the server answers 503"),
        "{told}"
    );
    assert_eq!(folder.tree(), before);
    // Nobody listens: a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    let output = folder
        .kgen()
        .args(["lock", "--mirror", &address])
        .output()
        .unwrap();
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("10 files could not be read: reading"),
        "{told}"
    );
    assert_eq!(folder.tree(), before);
}

/// As the real places do; a server that sends in a circle is given up.
#[test]
fn redirections_are_followed() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let place = "dl.k8s.io/v1.36.1/bin/linux/amd64/kubelet";
    mirror.move_away(place, "cdn/kubelet");
    mirror.move_away(&format!("{place}.sha256"), "cdn/kubelet.sha256");
    let output = lock(&folder, &mirror, &["--verify"]);
    assert!(output.status.success(), "{}", text(&output));
    let kubelet = entry(&folder, "kubelet");
    assert_eq!(kubelet.urls, [format!("{}/{place}", mirror.url)]);
    assert_eq!(kubelet.size, Some(14));
    let before = folder.tree();
    mirror.move_away("cdn/kubelet.sha256", "there/again");
    mirror.put("cdn/back", b"");
    mirror.move_away("cdn/back", "cdn/kubelet.sha256");
    mirror.move_away("there/again", "cdn/back");
    let output = lock(&folder, &mirror, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("too many redirections"),
        "{}",
        text(&output)
    );
    assert_eq!(folder.tree(), before);
}

#[test]
fn the_second_mirror_is_asked_where_the_first_has_nothing() {
    let (empty, full) = (Mirror::new(), Mirror::full("amd64"));
    let folder = Folder::with(CLUSTER);
    let output = lock(&folder, &empty, &["--mirror", &full.url]);
    assert!(output.status.success(), "{}", text(&output));
    let etcd = entry(&folder, "etcd");
    let file = format!("{ETCD}/etcd-v3.6.14-linux-amd64.tar.gz");
    assert_eq!(
        etcd.urls,
        [
            format!("{}/{file}", empty.url),
            format!("{}/{file}", full.url)
        ]
    );
    // Verified, the empty one is found out.
    let output = lock(&folder, &empty, &["--mirror", &full.url, "--verify"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains(&empty.url), "{}", text(&output));
}

#[test]
fn bytes_are_verified_where_it_is_asked_for() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let output = lock(&folder, &mirror, &["--verify"]);
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("kgen: verified http").count(), 10, "{told}");
    assert!(told.contains("/kubelet, 14 bytes\n"), "{told}");
    // A mirror whose bytes are not those whose checksum it gives.
    mirror.put(&format!("{ETCD}/etcd-v3.6.14-linux-amd64.tar.gz"), b"ETCD");
    mirror.put("dl.k8s.io/v1.36.1/bin/linux/amd64/kubectl", b"cut");
    let before = folder.tree();
    let output = lock(&folder, &mirror, &["--verify"]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains(&format!("has sha256:{}", sha256(b"ETCD"))),
        "{told}"
    );
    assert!(told.contains("/kubectl: has sha256:"), "{told}");
    assert!(told.contains("2 findings"), "{told}");
    assert_eq!(folder.tree(), before);
}

#[test]
fn offline_the_network_is_never_touched() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let output = lock(&folder, &mirror, &["--offline"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(mirror.asked().is_empty());
    let server = entry(&folder, "kubernetes-server");
    assert_eq!(
        server.urls,
        [format!(
            "{}/dl.k8s.io/v1.36.1/kubernetes-server-linux-amd64.tar.gz",
            mirror.url
        )]
    );
    assert_eq!(entry(&folder, "etcd").version, "3.6.14");
    folder.run(&["--role", "master"]);
    let before = folder.tree();
    let output = lock(
        &folder,
        &mirror,
        &["--offline", "--version", "kubernetes=1.35.0"],
    );
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("kubernetes-server 1.35.0 for amd64"),
        "{told}"
    );
    let output = lock(&folder, &mirror, &["--offline", "--version", "etcd=3.5.9"]);
    let told = text(&output);
    assert!(
        told.contains("no lock names etcd 3.5.9 for amd64"),
        "{told}"
    );
    assert_eq!(folder.tree(), before);
}

#[test]
fn a_dry_run_prints_the_lock_and_writes_nothing() {
    let mirror = Mirror::full("amd64");
    let folder = Folder::with(CLUSTER);
    let before = folder.tree();
    let output = lock(&folder, &mirror, &["--dry-run"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(folder.tree(), before);
    assert!(lock(&folder, &mirror, &[]).status.success());
    assert_eq!(folder.read("kgen.lock").as_bytes(), output.stdout);
}

#[test]
fn what_was_typed_wrong_is_told() {
    let mirror = Mirror::new();
    let folder = Folder::with(CLUSTER);
    for (args, why) in [
        (
            &["--version", "kubelt=1"][..],
            "not known where kubelt is published",
        ),
        (&["--version", "etcd"], "etcd: is not NAME=VERSION"),
        (&["--version", "etcd=../x"], "is not NAME=VERSION"),
        (
            &["--mirror", "ftp://m"],
            "ftp://m: is not an http or https address",
        ),
    ] {
        let output = lock(&folder, &mirror, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output).contains(why), "{}", text(&output));
    }
    assert!(mirror.asked().is_empty());
}
