//! Whole clusters of the usual shapes, in every language and on the clouds.
//! (P8 P37 P38 B1 B10)

mod common;

use std::collections::BTreeMap;

use common::landing::Landing;
use common::{Folder, refused_in};
use units::node_config::Service;

const DEDICATED: &str = "\
nodes:
- {name: etcd-1, role: etcd, address: 10.0.0.1}
- {name: etcd-2, role: etcd, address: 10.0.0.2}
- {name: etcd-3, role: etcd, address: 10.0.0.3}
- {name: master, role: master, address: 10.0.0.10}
- {name: node-1, role: node, address: 10.0.0.11}
- {name: node-2, role: node, address: 10.0.0.12}
";

const STACKED: &str = "\
nodes:
- {name: master-1, role: master, address: 10.0.0.1}
- {name: master-2, role: master, address: 10.0.0.2}
- {name: master-3, role: master, address: 10.0.0.3}
- {name: node-1, role: node, address: 10.0.0.11}
- {name: node-2, role: node, address: 10.0.0.12}
pools:
- {name: workers, labels: {example.com/pool: workers}}
- {name: gpu, taints: [{key: example.com/gpu, effect: NoSchedule}], tokenTTL: 7d}
";

/// Renders with the flags, and reads all documents back by name.
fn rendered(folder: &Folder, flags: &[&str]) -> BTreeMap<String, Landing> {
    folder.run(&[&["render", "-o", "out"], flags].concat());
    let files = folder.tree();
    let documents = files.iter().filter_map(|(path, (bytes, mode))| {
        let name = path.strip_prefix("out/")?.strip_suffix("/user-data")?;
        assert_eq!(*mode, 0o600, "{path}");
        let text = match bytes.starts_with(&[0x1f, 0x8b]) {
            true => kgen::lint::gunzip(bytes).unwrap(),
            false => bytes.clone(),
        };
        Some((
            name.to_owned(),
            Landing::of(&String::from_utf8(text).unwrap()),
        ))
    });
    documents.collect()
}

/// What machines get in each language, once every platform's limits were kept.
fn in_every_language(folder: &Folder) -> [BTreeMap<String, Landing>; 3] {
    ["coreos", "cloud-init", "ignition"].map(|format| {
        for platform in ["azure", "openstack", "gce"] {
            rendered(folder, &["--format", format, "--platform", platform]);
        }
        rendered(folder, &["--format", format])
    })
}

/// Every private key and token that is kept, and what of it to look for.
fn secrets(folder: &Folder) -> BTreeMap<String, String> {
    let tree = folder.tree().into_iter();
    let kept = tree.filter_map(|(path, (bytes, _))| {
        let path = path.strip_prefix("pki/")?.to_owned();
        let text = String::from_utf8(bytes).unwrap();
        let part = if path.ends_with(".key") {
            text
        } else if path.ends_with(".token") {
            text.lines().next()?.split_once('.')?.1.to_owned()
        } else {
            return None;
        };
        Some((path, part))
    });
    kept.collect()
}

/// Whether the machine or pool `name` may have a secret.
fn may_have(name: &str, secret: &str) -> bool {
    let own = [format!("nodes/{name}/"), format!("pools/{name}.")];
    if own.iter().any(|own| secret.starts_with(own)) {
        return true;
    }
    let shared: &[&str] = if name.starts_with("master") {
        &[
            "ca.key",
            "front-proxy-ca.key",
            "etcd/ca.key",
            "sa.key",
            "encryption.key",
            "pools/",
        ]
    } else if name.starts_with("etcd") {
        &["etcd/ca.key"]
    } else {
        &[]
    };
    shared
        .iter()
        .any(|s| secret == *s || (s.ends_with('/') && secret.starts_with(s)))
}

fn nobody_has_anothers_secrets(folder: &Folder, documents: &BTreeMap<String, Landing>) {
    let secrets = secrets(folder);
    assert!(secrets.len() > 20, "{}", secrets.len());
    for (name, landing) in documents {
        for (secret, text) in &secrets {
            let has = landing.holds(text);
            assert!(!has || may_have(name, secret), "{name} has {secret}");
            // Looked for in the right way: what is its own is found.
            let own = secret.starts_with(&format!("nodes/{name}/"));
            assert!(has || !own, "{name} lacks {secret}");
        }
    }
}

/// How many bootstrap tokens a machine makes known.
fn tokens(landing: &Landing) -> usize {
    let path = "/etc/knode/objects/bootstrap-tokens.yaml";
    if !landing.files.contains_key(path) {
        return 0;
    }
    let text = landing.text(path);
    text.matches("kind: Secret\n").count()
}

#[test]
fn three_dedicated_etcd_one_master_two_nodes() {
    let folder = Folder::with(DEDICATED);
    let all = in_every_language(&folder);
    assert_eq!(all[0], all[1]);
    for documents in &all {
        assert_eq!(documents.len(), 6);
        nobody_has_anothers_secrets(&folder, documents);
        for name in ["etcd-1", "etcd-2", "etcd-3"] {
            let config = documents[name].node_config();
            assert_eq!(config.services, [Service::Etcd]);
            let text = documents[name].text("/etc/kubernetes/etcd.yaml");
            for member in 1..=3 {
                let peer = format!("etcd-{member}=https://10.0.0.{member}:2380");
                assert!(text.contains(&peer), "{text}");
            }
        }
        let master = &documents["master"];
        assert!(!master.node_config().services.contains(&Service::Etcd));
        let flags = master.text("/etc/systemd/system/kube-apiserver.service.d/10-kgen.conf");
        assert!(flags.contains(
            "--etcd-servers=https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379 "
        ));
        assert!(master.node_config().balancer.is_none());
    }
}

#[test]
fn three_masters_with_etcd_two_pools_two_nodes() {
    let folder = Folder::with(STACKED);
    let all = in_every_language(&folder);
    assert_eq!(all[0], all[1]);
    for documents in &all {
        let names: Vec<&str> = documents.keys().map(String::as_str).collect();
        let expected = [
            "gpu", "master-1", "master-2", "master-3", "node-1", "node-2", "workers",
        ];
        assert_eq!(names, expected);
        nobody_has_anothers_secrets(&folder, documents);
        for (name, landing) in documents {
            let config = landing.node_config();
            assert_eq!(config.balancer.unwrap().servers.len(), 3, "{name}");
            assert_eq!(
                config.bootstrap.is_some(),
                ["gpu", "workers"].contains(&name.as_str())
            );
            assert!(config.node.pod_cidrs.is_empty(), "{name}");
            let expected = if name.starts_with("master") { 2 } else { 0 };
            assert_eq!(tokens(landing), expected, "{name}");
        }
    }
    // The same again, whatever the order of asking.
    let before = folder.tree();
    for pool in ["workers", "gpu"] {
        let document = folder.user_data(&["--pool", pool, "--format", "ignition"]);
        assert_eq!(document, folder.read(&format!("out/{pool}/user-data")));
    }
    folder.run(&["render", "-o", "out", "--format", "ignition"]);
    assert_eq!(folder.tree(), before);
}

/// The larger of the two shapes by name: nothing of a document depends on how
/// its machines are told apart.
#[test]
fn nodes_by_host_name_among_them() {
    let folder = Folder::with(&format!("nodeDocuments: by-hostname\n{STACKED}"));
    for format in ["coreos", "cloud-init", "ignition"] {
        let documents = rendered(&folder, &["--format", format, "--platform", "openstack"]);
        let names: Vec<&str> = documents.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["gpu", "master-1", "master-2", "master-3", "node", "workers"]
        );
        for name in ["gpu", "node", "workers"] {
            assert!(!documents[name].holds("PRIVATE KEY"), "{name}");
        }
        assert_eq!(documents["node"].node_config().by_hostname.len(), 2);
        assert_eq!(tokens(&documents["master-1"]), 3);
    }
}

#[test]
fn even_rings_are_refused() {
    for (settings, which) in [
        (
            DEDICATED.replace("- {name: etcd-3, role: etcd, address: 10.0.0.3}\n", ""),
            "2 machines with the role etcd",
        ),
        (
            STACKED.replace("- {name: master-3, role: master, address: 10.0.0.3}\n", ""),
            "2 masters, each with a member of etcd",
        ),
    ] {
        let folder = Folder::with(&settings);
        let told = refused_in(&folder);
        assert!(
            told.contains(which) && told.contains("odd number"),
            "{told}"
        );
    }
}
