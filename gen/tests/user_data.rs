//! The documents: what is in them, what is not, and that they are the same
//! every time.

mod common;

use std::collections::BTreeMap;
use std::process::Command;

use common::{CLUSTER, Document, Folder};
use sha2::{Digest as _, Sha256};
use units::NodeConfig;
use units::node_config::{RuntimeSource, Service};
use units::types::{Digest, Role};

const FORMATS: [&str; 2] = ["coreos", "cloud-init"];

fn node_config(document: &Document) -> NodeConfig {
    serde_yaml::from_str(&document.text("/etc/knode/node.yaml")).unwrap()
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = Folder::with(CLUSTER);
    for format in FORMATS {
        for name in ["master", "node-1", "etcd-1"] {
            let args = ["--name", name, "--format", format];
            let first = folder.user_data(&args);
            assert_eq!(folder.user_data(&args), first, "{args:?}");
        }
    }
}

#[test]
fn both_languages_bring_the_same_files() {
    let folder = Folder::with(CLUSTER);
    for name in ["master", "node-1", "etcd-1"] {
        let [coreos, cloud_init] = FORMATS.map(|format| {
            Document::parse(&folder.user_data(&["--name", name, "--format", format]))
        });
        assert_eq!(coreos.files(), cloud_init.files(), "{name}");
        assert_eq!(coreos.hostname, cloud_init.hostname);
        for document in [&coreos, &cloud_init] {
            assert!(document.write_files.iter().all(|f| f.owner == "root:root"));
            assert!(
                document
                    .write_files
                    .iter()
                    .all(|f| f.permissions.len() == 4)
            );
        }
        let role = name.trim_end_matches("-1");
        let target = format!("kubernetes-{role}.target");
        let [unit] = &coreos.coreos.units[..] else {
            panic!("{:?}", coreos.coreos)
        };
        assert_eq!(
            (unit.name.as_str(), unit.enable, unit.command.as_deref()),
            (&*target, true, Some("start"))
        );
        let content = unit.content.as_deref().unwrap();
        assert!(content.contains("DefaultDependencies=no"));
        assert_eq!(
            cloud_init.runcmd,
            [
                vec!["systemctl", "daemon-reload"],
                vec!["systemctl", "enable", "--now", "--no-block", &target],
            ]
        );
    }
}

#[test]
fn the_manifest_names_every_file() {
    let folder = Folder::with(CLUSTER);
    for name in ["master", "node-1", "etcd-1"] {
        let document = Document::parse(&folder.user_data(&["--name", name]));
        let mut files = document.files();
        let (mode, _) = files.remove("/etc/knode/node.yaml").unwrap();
        assert_eq!(mode, "0600");
        let config = node_config(&document);
        let manifest: BTreeMap<String, (String, Digest)> = config
            .manifest
            .iter()
            .map(|e| (e.path.clone(), (e.mode.to_string(), e.digest.clone())))
            .collect();
        let expected: BTreeMap<String, (String, Digest)> = files
            .into_iter()
            .map(|(path, (mode, bytes))| {
                (path, (mode, Digest::Sha256(Sha256::digest(&bytes).into())))
            })
            .collect();
        assert_eq!(manifest, expected);
        assert!(config.manifest.is_sorted_by(|a, b| a.path < b.path));
    }
}

#[test]
fn secrets_are_for_root_alone_and_workers_have_no_authoritys_key() {
    let folder = Folder::with(CLUSTER);
    for (name, keys) in [
        (
            "master",
            &["ca.key", "front-proxy-ca.key", "etcd/ca.key", "sa.key"][..],
        ),
        ("node-1", &[]),
        ("etcd-1", &["etcd/ca.key"]),
    ] {
        let document = Document::parse(&folder.user_data(&["--name", name]));
        for (path, (mode, bytes)) in document.files() {
            let text = String::from_utf8(bytes).unwrap();
            let secret = text.contains("PRIVATE KEY") || text.contains("client-key-data");
            let secret = secret || path.ends_with("encryption.yaml");
            assert!(!secret || mode == "0600", "{path} has {mode}");
        }
        let everything = document
            .files()
            .into_values()
            .flat_map(|(_, bytes)| bytes)
            .collect::<Vec<u8>>();
        let everything = String::from_utf8(everything).unwrap();
        for file in ["ca.key", "front-proxy-ca.key", "etcd/ca.key", "sa.key"] {
            let path = folder.path("pki").join(file);
            let Ok(key) = std::fs::read_to_string(path) else {
                continue;
            };
            assert_eq!(
                everything.contains(&key),
                keys.contains(&file),
                "{file} in {name}"
            );
        }
    }
}

#[test]
fn private_keys_are_never_told() {
    let folder = Folder::with(CLUSTER);
    let output = folder.run(&["--role", "master"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("made the authority pki/ca.crt"), "{told}");
    for (file, (bytes, _)) in folder.tree() {
        if !file.ends_with(".key") {
            continue;
        }
        let text = String::from_utf8(bytes).unwrap();
        let line = text.lines().nth(1).unwrap_or(&text);
        assert!(!told.contains(line), "{file}");
    }
}

#[test]
fn a_node_reaches_the_endpoint_and_a_master_itself() {
    let folder = Folder::with(&format!("endpoint: api.example.com:443\n{CLUSTER}"));
    for (name, file, server) in [
        ("node-1", "kubelet.conf", "https://api.example.com:443"),
        ("node-1", "kube-proxy.conf", "https://api.example.com:443"),
        ("master", "kubelet.conf", "https://127.0.0.1:6443"),
        (
            "master",
            "controller-manager.conf",
            "https://127.0.0.1:6443",
        ),
        ("master", "scheduler.conf", "https://127.0.0.1:6443"),
    ] {
        let document = Document::parse(&folder.user_data(&["--name", name]));
        let text = document.text(&format!("/etc/kubernetes/{file}"));
        assert!(
            text.contains(&format!("server: {server}\n")),
            "{name} {file}"
        );
    }
    let admin = folder.user_data(&["kubeconfig"]);
    assert!(admin.contains("server: https://api.example.com:443\n"));
    assert!(admin.contains("user: kubernetes-admin\n"));
    let admin = folder.user_data(&["kubeconfig", "--super-admin"]);
    assert!(admin.contains("user: kubernetes-super-admin\n"));
}

#[test]
fn node_yaml_says_what_the_machine_is() {
    let folder = Folder::with(CLUSTER);
    let node = node_config(&Document::parse(&folder.user_data(&["--name", "node-1"])));
    assert_eq!((node.version, node.node.role), (1, Role::Node));
    assert_eq!(node.node.labels["example.com/rack"], "a1");
    assert_eq!(node.node.pod_cidrs[0].to_string(), "10.244.1.0/24");
    assert_eq!(node.cluster.endpoint, "https://10.0.0.10:6443");
    assert_eq!(
        node.services,
        [Service::Containerd, Service::Kubelet, Service::KubeProxy]
    );
    let network = node.network.unwrap();
    let peers: Vec<&str> = network.peers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(peers, ["master", "node-2"]);
    assert!(network.metadata_guard);

    let etcd = node_config(&Document::parse(&folder.user_data(&["--role", "etcd"])));
    assert_eq!(etcd.services, [Service::Etcd]);
    assert!(etcd.network.is_none() && etcd.runtime.is_none());
    let artifacts: Vec<&str> = etcd.artifacts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(artifacts, ["etcd"]);
}

#[test]
fn what_the_operator_lays_over_ours_is_in_the_files() {
    let folder = Folder::with(&format!(
        "kubernetesVersion: 1.36.0\n\
         runtime: {{source: distribution, cgroupDriver: cgroupfs}}\n\
         kubelet: {{config: {{maxPods: 50, failSwapOn: false, podPidsLimit: null, \
         authentication: {{webhook: {{cacheTTL: 1m0s}}}}}}}}\n\
         kubeProxy: {{config: {{mode: iptables}}}}\n\
         etcd: {{config: {{quota-backend-bytes: 1}}}}\n\
         apiServer: {{extraArgs: {{--v: '2', profiling: true, x: 'a b%$'}}, certSANs: [1.2.3.4]}}\n\
         scheduler: {{extraArgs: {{v: 3}}}}\n\
         {CLUSTER}"
    ));
    let document = Document::parse(&folder.user_data(&["--role", "master"]));
    let has = |path: &str, parts: &[&str]| {
        let text = document.text(path);
        for part in parts {
            assert!(text.contains(part), "{path} lacks {part:?}:\n{text}");
        }
        text
    };
    let kubelet = has(
        "/etc/kubernetes/kubelet.yaml",
        &[
            "maxPods: 50\n",
            "failSwapOn: false\n",
            "cacheTTL: 1m0s\n",
            "enabled: true\n",
            "cgroupDriver: cgroupfs\n",
            "staticPodPath: ",
        ],
    );
    assert!(!kubelet.contains("podPidsLimit"), "{kubelet}");
    has("/etc/kubernetes/kube-proxy.yaml", &["mode: iptables\n"]);
    let units = "/etc/systemd/system";
    has(
        &format!("{units}/kube-apiserver.service.d/10-kgen.conf"),
        &[
            "  --v=2 \\\n",
            "  --profiling=true \\\n",
            "  \"--x=a b%%$$\"\n",
            "--etcd-servers=https://10.0.0.13:2379 ",
            "--advertise-address=10.0.0.10 ",
        ],
    );
    has(
        &format!("{units}/kube-scheduler.service.d/10-kgen.conf"),
        &["  --v=3\n"],
    );
    has(
        &format!("{units}/containerd.service.d/10-kgen.conf"),
        &[
            "ExecStart=\nExecStart=/usr/bin/containerd \\\n  --config \\\n  /etc/kubernetes/containerd.toml\n",
        ],
    );
    assert!(
        !document
            .files()
            .contains_key(&format!("{units}/containerd.service"))
    );
    let config = node_config(&document);
    assert_eq!(config.runtime.unwrap().source, RuntimeSource::Distribution);
    let etcd = Document::parse(&folder.user_data(&["--role", "etcd"]));
    let text = etcd.text("/etc/kubernetes/etcd.yaml");
    assert!(text.contains("quota-backend-bytes: 1\n"), "{text}");
    assert!(text.contains("listen-client-urls: https://127.0.0.1:2379,https://10.0.0.13:2379\n"));
}

#[test]
fn without_settings_everything_is_assumed_and_said() {
    let folder = Folder::new();
    let output = folder.run(&["--role", "control-plane"]);
    let told = String::from_utf8(output.stderr).unwrap();
    let pki = folder.path("pki").display().to_string();
    for part in [
        "1.36.1",
        "https://master:6443",
        "has to resolve",
        "coreos",
        &pki,
    ] {
        assert!(told.contains(part), "{told}");
    }
    let master = Document::parse(&String::from_utf8(output.stdout).unwrap());
    let config = node_config(&master);
    assert_eq!(config.node.taints.len(), 1);
    assert!(config.node.pod_cidrs.is_empty());
    let node = folder.user_data(&["--role", "worker", "--name", "w-1"]);
    let config = node_config(&Document::parse(&node));
    assert_eq!(config.node.name.unwrap().as_str(), "w-1");
    assert_eq!(config.cluster.endpoint, "https://master:6443");
}

#[test]
fn names_follow_from_roles_where_they_can() {
    let folder = Folder::with(CLUSTER);
    let by_role = folder.user_data(&["--role", "etcd"]);
    assert_eq!(by_role, folder.user_data(&["--name", "etcd-1"]));
    let elsewhere = Folder::empty();
    let file = folder.path("cluster.yaml").display().to_string();
    let from_afar = elsewhere.user_data(&["--role", "etcd", "-f", &file]);
    assert_eq!(by_role, from_afar);
    assert!(elsewhere.tree().is_empty());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = Folder::with(CLUSTER);
    let script = "{ \"$0\" --role master; echo status=$? >&2; } | head -c 10 >/dev/null";
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(folder.kgen().get_program())
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.ends_with("status=0\n"), "{told}");
    assert!(!told.contains("panic"), "{told}");
}

#[test]
fn nothing_is_hyphenated_or_replaced_in_coreos_documents() {
    let folder = Folder::with(&format!(
        "apiServer: {{extraArgs: {{x: '$private_ipv4'}}}}\n{CLUSTER}"
    ));
    let text = folder.user_data(&["--role", "master", "--format", "coreos"]);
    assert!(!text.contains("$private_ipv4"));
    for key in ["drop-ins:", "write-files:", "reboot-strategy:"] {
        assert!(!text.contains(key), "{key}");
    }
    let drop_in = "/etc/systemd/system/kube-apiserver.service.d/10-kgen.conf";
    let drop_in = Document::parse(&text).text(drop_in);
    assert!(drop_in.contains("--x=$$private_ipv4\n"), "{drop_in}");
}

/// Names and modes; contents differ every time.
fn skeleton(text: &str) -> String {
    let document = Document::parse(text);
    let files = document.files();
    let lines = files
        .iter()
        .map(|(path, (mode, _))| format!("{mode} {path}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_a_worker_gets() {
    let folder = Folder::with(CLUSTER);
    insta::assert_snapshot!(skeleton(&folder.user_data(&["--name", "node-1"])), @r"
    0755 /etc/knode/bootstrap.sh
    0644 /etc/knode/knode.list
    0600 /etc/knode/node.yaml
    0600 /etc/kubernetes/kube-proxy.conf
    0644 /etc/kubernetes/kube-proxy.yaml
    0600 /etc/kubernetes/kubelet.conf
    0600 /etc/kubernetes/kubelet.yaml
    0644 /etc/kubernetes/pki/ca.crt
    0644 /etc/kubernetes/pki/kubelet.crt
    0600 /etc/kubernetes/pki/kubelet.key
    0644 /etc/modules-load.d/knode.conf
    0644 /etc/sysctl.d/90-knode.conf
    0644 /etc/systemd/network/05-knode-unmanaged.network
    0644 /etc/systemd/networkd.conf.d/10-knode.conf
    0644 /etc/systemd/system/containerd.service
    0644 /etc/systemd/system/knode-bootstrap.service
    0644 /etc/systemd/system/knode.service
    0644 /etc/systemd/system/kube-proxy.service
    0644 /etc/systemd/system/kubelet.service
    0644 /etc/systemd/system/kubernetes-node.target
    ");
}
