//! The operating system's side of the settings, as it lands on machines in all
//! three languages.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::landing::Landing;
use common::{CLUSTER, Document, Folder, PUBLIC_KEY};
use units::NodeConfig;

const FORMATS: [&str; 3] = ["coreos", "cloud-init", "ignition"];
const UNITS: &str = "/etc/systemd/system";

/// What a machine gets, which is the same in every language.
fn landing(folder: &Folder, name: &str) -> Landing {
    let [coreos, cloud_init, ignition] =
        FORMATS.map(|format| folder.user_data(&["--name", name, "--format", format]));
    let landing = Landing::of_ignition(&ignition);
    assert_eq!(Landing::of_cloud_config(&coreos), landing, "{name}");
    assert_eq!(Landing::of_cloud_config(&cloud_init), landing, "{name}");
    // What each reader would misunderstand would be told.
    for (format, document) in FORMATS.iter().zip([coreos, cloud_init, ignition]) {
        folder.write("document", &document);
        folder.run(&["validate", "--strict", "document", "--format", format]);
    }
    fs::remove_file(folder.path("document")).unwrap();
    landing
}

fn file(landing: &Landing, path: &str) -> (u32, String) {
    let (mode, bytes) = landing
        .files
        .get(path)
        .unwrap_or_else(|| panic!("{path} is missing"));
    (*mode, String::from_utf8(bytes.clone()).unwrap())
}

fn text(landing: &Landing, path: &str) -> String {
    file(landing, path).1
}

fn node_config(landing: &Landing) -> NodeConfig {
    serde_yaml::from_str(&text(landing, "/etc/knode/node.yaml")).unwrap()
}

/// (P11)
#[test]
fn the_proxy_reaches_all_that_calls_out() {
    let settings = format!(
        "proxy: {{http: 'http://p:3128', https: '@proxy', noProxy: [.example.com, 10.96.0.0/16]}}\n\
         endpoint: https://api.example.com\n{CLUSTER}"
    );
    let folder = Folder::with(&settings);
    folder.write("proxy", "http://u:hunter%402@p:3128\n");
    let master = landing(&folder, "master");
    let (mode, env) = file(&master, "/etc/knode/proxy.env");
    let no_proxy = "localhost,127.0.0.0/8,::1,10.244.0.0/16,10.96.0.0/16,10.0.0.10,master,\
                    10.0.0.11,node-1,10.0.0.12,node-2,10.0.0.13,etcd-1,api.example.com,.svc,\
                    .cluster.local,.example.com";
    assert_eq!(mode, 0o600);
    assert_eq!(
        env,
        format!(
            "http_proxy=\"http://p:3128\"\nHTTP_PROXY=\"http://p:3128\"\n\
             https_proxy=\"http://u:hunter%402@p:3128\"\nHTTPS_PROXY=\"http://u:hunter%402@p:3128\"\n\
             no_proxy=\"{no_proxy}\"\nNO_PROXY=\"{no_proxy}\"\n"
        )
    );
    for unit in [
        "knode",
        "knode-bootstrap",
        "containerd",
        "kubelet",
        "kube-apiserver",
        "kube-controller-manager",
    ] {
        let text = text(&master, &format!("{UNITS}/{unit}.service"));
        assert!(
            text.contains("\nEnvironmentFile=-/etc/knode/proxy.env\n"),
            "{unit}"
        );
    }
    // The password is in one file alone.
    let with: Vec<&String> = master
        .files
        .iter()
        .filter(|(_, (_, bytes))| String::from_utf8_lossy(bytes).contains("hunter"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(with, ["/etc/knode/proxy.env"]);
    // A unit of the distribution's reads it by a drop-in.
    folder.write(
        "cluster.yaml",
        &format!("runtime: {{source: distribution}}\n{settings}"),
    );
    let node = landing(&folder, "node-1");
    let drop_in = text(
        &node,
        &format!("{UNITS}/containerd.service.d/20-proxy.conf"),
    );
    assert_eq!(
        drop_in,
        "[Service]\nEnvironmentFile=-/etc/knode/proxy.env\n"
    );
    let without = landing(&Folder::with(CLUSTER), "node-1");
    assert!(!without.files.contains_key("/etc/knode/proxy.env"));
}

/// (P9, P11)
#[test]
fn documents_of_a_large_cluster_do_not_name_all_machines() {
    let mut settings = "proxy: {http: 'http://p'}\nnetwork: {podCIDR: 100.64.0.0/10}\nnodes:\n\
                        - {name: m, role: master, address: 192.168.0.1}\n"
        .to_owned();
    for i in 0..256 {
        settings.push_str(&format!(
            "- {{name: n{i}, role: node, address: 172.16.0.{i}}}\n"
        ));
    }
    let folder = Folder::with(&settings);
    let node = landing(&folder, "n7");
    assert!(!text(&node, "/etc/knode/proxy.env").contains("n8"));
    assert!(text(&node, "/etc/knode/proxy.env").contains(",192.168.0.1,m,"));
    let aliases = node_config(&node).host_aliases;
    assert_eq!(aliases.len(), 1);
    assert_eq!(aliases[0].hostnames, ["m"]);
    // One fewer, and all are named.
    let (fewer, _) = settings.trim_end().rsplit_once('\n').unwrap();
    folder.write("cluster.yaml", fewer);
    let node = landing(&folder, "n7");
    assert_eq!(node_config(&node).host_aliases.len(), 256);
    assert!(text(&node, "/etc/knode/proxy.env").contains(",172.16.0.8,n8,"));
}

/// (P9)
#[test]
fn machines_know_each_other_without_dns() {
    let own = "hostAliases: [{ip: 192.0.2.1, hostnames: [mirror.example.com, mirror]}]\n";
    let folder = Folder::with(&format!("{own}{CLUSTER}"));
    let aliases = |folder: &Folder| -> Vec<String> {
        let all = node_config(&landing(folder, "node-1")).host_aliases;
        all.iter()
            .map(|a| format!("{} {}", a.ip, a.hostnames.join(" ")))
            .collect()
    };
    assert_eq!(
        aliases(&folder),
        [
            "10.0.0.10 master",
            "10.0.0.11 node-1",
            "10.0.0.12 node-2",
            "10.0.0.13 etcd-1",
            "192.0.2.1 mirror.example.com mirror",
        ]
    );
    folder.write(
        "cluster.yaml",
        &format!("network: {{resolveMachines: false}}\n{own}{CLUSTER}"),
    );
    assert_eq!(aliases(&folder), ["192.0.2.1 mirror.example.com mirror"]);
}

/// (P39)
#[test]
fn clocks_are_told_their_servers() {
    let folder = Folder::with(&format!(
        "ntp: {{servers: [a.example.com, 192.0.2.1]}}\n{CLUSTER}"
    ));
    for name in ["master", "etcd-1"] {
        let landing = landing(&folder, name);
        assert_eq!(
            text(&landing, "/etc/systemd/timesyncd.conf.d/10-kgen.conf"),
            "[Time]\nNTP=a.example.com 192.0.2.1\nFallbackNTP=\n"
        );
        assert_eq!(
            text(&landing, "/etc/chrony/sources.d/kgen.sources"),
            "server a.example.com iburst\nserver 192.0.2.1 iburst\n"
        );
        let role = name.trim_end_matches("-1");
        let wants = text(
            &landing,
            &format!("{UNITS}/kubernetes-{role}.target.d/10-kgen.conf"),
        );
        assert_eq!(wants, "[Unit]\nWants=knode-ntp.service\n");
        assert!(
            landing
                .files
                .contains_key(&format!("{UNITS}/knode-ntp.service"))
        );
    }
}

/// (P20)
#[test]
fn registries_have_mirrors_and_logins() {
    let folder = Folder::with(&format!(
        "registries:\n\
         - host: docker.io\n  server: https://registry-1.docker.io\n  mirrors:\n\
        \x20 - {{url: 'https://m:5000', login: {{username: u, password: '@m'}}, ca: '@ca'}}\n\
        \x20 - {{url: 'http://n/v2/hub/', capabilities: [pull], overridePath: true, skipVerify: true}}\n\
         - {{host: 'r.example.com:5000', ca: '@ca', login: {{username: r, password: s3cret}}}}\n\
         - {{host: ghcr.io, login: {{username: g, password: '@@home'}}}}\n\
         - {{host: _default, mirrors: [{{url: 'https://all.example.com'}}]}}\n{CLUSTER}"
    ));
    folder.write("m", "hunter2\r\n");
    folder.write("ca", common::CERTIFICATE);
    let node = landing(&folder, "node-1");
    let certs = "/etc/containerd/certs.d";
    assert_eq!(
        file(&node, &format!("{certs}/docker.io/hosts.toml")),
        (
            0o600,
            "server = \"https://registry-1.docker.io\"\n\n\
             [host.\"https://m:5000\"]\n\
             capabilities = [\"pull\",\"resolve\"]\n\
             ca = \"/etc/containerd/certs.d/docker.io/mirror-1.crt\"\n\n\
             [host.\"https://m:5000\".header]\n\
             Authorization = \"Basic dTpodW50ZXIy\"\n\n\
             [host.\"http://n/v2/hub\"]\n\
             capabilities = [\"pull\"]\n\
             override_path = true\n\
             skip_verify = true\n"
                .to_owned()
        )
    );
    for path in ["docker.io/mirror-1.crt", "r.example.com:5000/ca.crt"] {
        let expected = (0o644, common::CERTIFICATE.to_owned());
        assert_eq!(file(&node, &format!("{certs}/{path}")), expected);
    }
    // Ports stand in the folder's name as in images' names.
    assert_eq!(
        text(&node, &format!("{certs}/r.example.com:5000/hosts.toml")),
        "ca = \"/etc/containerd/certs.d/r.example.com:5000/ca.crt\"\n"
    );
    assert!(
        !node
            .files
            .contains_key(&format!("{certs}/ghcr.io/hosts.toml"))
    );
    let default = file(&node, &format!("{certs}/_default/hosts.toml"));
    assert_eq!(default.0, 0o644);
    let (mode, logins) = file(&node, "/var/lib/kubelet/config.json");
    assert_eq!(mode, 0o600);
    let logins: serde_json::Value = serde_json::from_str(&logins).unwrap();
    assert_eq!(
        logins,
        serde_json::json!({"auths": {
            "ghcr.io": {"auth": "ZzpAaG9tZQ=="},
            "r.example.com:5000": {"auth": "cjpzM2NyZXQ="},
        }})
    );
    // Where no images are pulled, there is nothing of it.
    let etcd = landing(&folder, "etcd-1");
    assert!(
        !etcd
            .files
            .keys()
            .any(|p| p.contains("containerd") || p.contains("config.json"))
    );
}

/// (P54)
#[test]
fn keys_open_the_image_s_account_or_one_that_is_named() {
    let keys = "ssh: {authorizedKeys: ['@keys']}\n";
    let folder = Folder::with(&format!("{keys}{CLUSTER}"));
    let second = PUBLIC_KEY.replace("ops@", "dev@");
    folder.write(
        "keys",
        &format!("# who\n{PUBLIC_KEY}\n\n{second}\n{PUBLIC_KEY}\n"),
    );
    let both = vec![PUBLIC_KEY.to_owned(), second];
    let node = landing(&folder, "node-1");
    assert_eq!(node.keys, BTreeMap::from([(String::new(), both.clone())]));
    folder.write(
        "cluster.yaml",
        &format!("{}{CLUSTER}", keys.replace("{auth", "{user: ops, auth")),
    );
    let node = landing(&folder, "node-1");
    assert_eq!(node.keys, BTreeMap::from([("ops".to_owned(), both)]));
    let cloud_init = folder.user_data(&["--name", "node-1", "--format", "cloud-init"]);
    let users = Document::parse(&cloud_init).users;
    // The image's own account stays.
    assert_eq!(users[0], "default");
    assert_eq!(users[1]["lock_passwd"], true);
}

const EXTRAS: &str = "
files:
- {path: /etc/a, content: 'for all'}
- {path: /etc/b, content: \"all\\n\"}
- {path: /etc/token, content: '@token'}
- {path: /opt/tool, mode: '0755', owner: '1000:1001', source: tool}
units:
- name: own.service
  start: true
  content: |
    [Service]
    ExecStart=/opt/tool
- name: own.timer
  enable: true
  content: |
    [Timer]
    OnCalendar=daily
    [Install]
    WantedBy=timers.target
- name: kubelet.service
  dropIns: [{name: 30-nice.conf, content: \"[Service]\\nNice=-5\\n\"}]
hooks: {beforeKnode: '@disk.sh'}
roles:
  node:
    files: [{path: /etc/a, content: 'for nodes'}]
    hooks: {beforeKnode: \"#!/bin/sh\\ntrue\\n\", afterReady: \"#!/bin/sh\\nid\\n\"}
nodes:
- {name: master, role: master, address: 10.0.0.10}
- name: node-1
  role: node
  files: [{path: /etc/a, content: 'for one'}]
  units: [{name: docker.service, enable: true, start: true}]
- {name: node-2, role: node}
";

fn with_extras() -> Folder {
    let folder = Folder::with(EXTRAS);
    folder.write("token", "hunter2\n");
    folder.write("disk.sh", "#!/bin/sh\nmount /dev/vdb /var/lib/etcd\n");
    fs::write(folder.path("tool"), b"\x7fELF\x00\xff\xfe").unwrap();
    folder
}

/// (P10)
#[test]
fn the_operators_own_is_brought() {
    let folder = with_extras();
    let [master, one, other] = ["master", "node-1", "node-2"].map(|name| landing(&folder, name));
    for (landing, a) in [
        (&master, "for all"),
        (&one, "for one"),
        (&other, "for nodes"),
    ] {
        assert_eq!(file(landing, "/etc/a"), (0o644, a.to_owned()));
        assert_eq!(file(landing, "/etc/token"), (0o600, "hunter2\n".to_owned()));
        let tool = (0o755, b"\x7fELF\x00\xff\xfe".to_vec());
        assert_eq!(landing.files["/opt/tool"], tool);
        let owners = [("/opt/tool".to_owned(), "1000:1001".to_owned())];
        assert_eq!(landing.owners, BTreeMap::from(owners));
        let nice = format!("{UNITS}/kubelet.service.d/30-nice.conf");
        assert_eq!(text(landing, &nice), "[Service]\nNice=-5\n");
        // knode looks for every one of them.
        let manifest = node_config(landing).manifest;
        for path in ["/etc/a", "/etc/token", "/opt/tool", &nice] {
            assert!(manifest.iter().any(|entry| entry.path == path), "{path}");
        }
    }
    let wants = |landing: &Landing, role: &str| {
        text(
            landing,
            &format!("{UNITS}/kubernetes-{role}.target.d/10-kgen.conf"),
        )
    };
    assert_eq!(wants(&master, "master"), "[Unit]\nWants=own.service\n");
    assert_eq!(
        wants(&one, "node"),
        "[Unit]\nWants=own.service docker.service\n"
    );
    let enabled = |landing: &Landing| landing.enabled.iter().cloned().collect::<Vec<_>>();
    assert_eq!(enabled(&other), ["kubernetes-node.target", "own.timer"]);
    assert_eq!(
        enabled(&one),
        ["docker.service", "kubernetes-node.target", "own.timer"]
    );
}

/// (P10)
#[test]
fn hooks_run_in_order_and_block_no_boot_command() {
    let folder = with_extras();
    let node = landing(&folder, "node-2");
    let script = |name: &str| file(&node, &format!("/etc/knode/hooks/{name}"));
    let disk = "#!/bin/sh\nmount /dev/vdb /var/lib/etcd\n".to_owned();
    assert_eq!(script("before-knode-1"), (0o700, disk));
    assert_eq!(script("before-knode-2").1, "#!/bin/sh\ntrue\n");
    assert_eq!(script("after-ready-1").1, "#!/bin/sh\nid\n");
    let before = text(&node, &format!("{UNITS}/knode-before.service"));
    let first = before.find("before-knode-1").unwrap();
    assert!(first < before.find("before-knode-2").unwrap());
    assert!(before.contains("\nBefore=knode.service\n"), "{before}");
    let after = text(&node, &format!("{UNITS}/knode-after-ready.service"));
    assert!(after.contains("\nAfter=knode.service\nRequisite=knode.service\n"));
    assert_eq!(
        text(&node, &format!("{UNITS}/knode.service.d/20-hooks.conf")),
        "[Unit]\nWants=knode-before.service knode-after-ready.service\n"
    );
    // The boot starts the target alone, and does not wait.
    let document = |format| folder.user_data(&["--name", "node-1", "--format", format]);
    let coreos = Document::parse(&document("coreos"));
    let units = coreos.coreos.units.iter();
    let started: Vec<&str> = units
        .filter(|unit| unit.command.is_some())
        .map(|unit| unit.name.as_str())
        .collect();
    assert_eq!(started, ["kubernetes-node.target"]);
    let cloud_init = Document::parse(&document("cloud-init"));
    for command in &cloud_init.runcmd {
        let waits = command.contains(&"--now".to_owned());
        assert!(!waits || command.contains(&"--no-block".to_owned()));
    }
}

/// (P10)
#[test]
fn packages_are_cloud_inits_alone() {
    let folder = Folder::with(
        "packages: [nfs-common]\nnodes:\n- {name: m, role: master, packages: [nfs-common, xfsprogs]}\n",
    );
    let document = folder.user_data(&["--role", "master", "--format", "cloud-init"]);
    assert_eq!(
        Document::parse(&document).packages,
        ["nfs-common", "xfsprogs"]
    );
    assert!(document.contains("package_update: true\n"));
    for format in ["coreos", "ignition"] {
        let output = folder
            .kgen()
            .args(["--role", "master", "--format", format])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("[cluster.yaml:1:12]"), "{told}");
        assert!(
            told.contains(&format!("{format} installs no packages (nfs-common)")),
            "{told}"
        );
    }
}

#[test]
fn named_owners_are_left_to_those_who_can_wait_for_them() {
    let folder = Folder::with(&format!(
        "files: [{{path: /etc/a, owner: 'syslog:adm', content: a}}]\n{CLUSTER}"
    ));
    let document = folder.user_data(&["--name", "node-1", "--format", "cloud-init"]);
    let document = Document::parse(&document);
    let file = document
        .write_files
        .iter()
        .find(|f| f.path == "/etc/a")
        .unwrap();
    assert_eq!(
        (file.owner.as_str(), file.defer),
        ("syslog:adm", Some(true))
    );
    for format in ["coreos", "ignition"] {
        let output = folder
            .kgen()
            .args(["--name", "node-1", "--format", format])
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            told.contains("files[0]: /etc/a: syslog may not be there"),
            "{told}"
        );
    }
}

/// (P22)
#[test]
fn mirrors_come_before_an_artifacts_own_addresses() {
    let folder = Folder::with(&format!(
        "artifacts: {{mirrors: ['https://m/x/'], versions: {{etcd: v3.6.14}}}}\n{CLUSTER}"
    ));
    let master = landing(&folder, "etcd-1");
    let artifacts = node_config(&master).artifacts;
    let [etcd] = &artifacts[..] else {
        panic!("{artifacts:?}")
    };
    assert_eq!(etcd.version, "3.6.14");
    assert!(
        etcd.urls[0].starts_with("https://m/x/github.com/etcd-io/"),
        "{:?}",
        etcd.urls
    );
    assert_eq!(etcd.urls[1], etcd.urls[0].replace("m/x/", ""));
    let list = text(&master, "/etc/knode/knode.list");
    let urls: Vec<&str> = list
        .lines()
        .map(|l| l.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(
        urls,
        ["https://m/x/10.0.0.1/knode", "http://10.0.0.1/knode"]
    );
}

#[test]
fn secrets_are_shown_by_nothing() {
    let folder = with_extras();
    folder.run(&["render", "-o", "out"]);
    folder.write("token", "correct horse\n");
    folder.write("disk.sh", "#!/bin/sh\necho battery\n");
    let output = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        told.contains("node-1: /etc/token: secret changed (8 → 14 bytes)"),
        "{told}"
    );
    assert!(
        told.contains("/etc/knode/hooks/before-knode-1: secret changed"),
        "{told}"
    );
    for secret in ["hunter2", "horse", "battery"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn what_changed_besides_files_is_shown() {
    let folder = Folder::with(&format!("format: cloud-init\n{CLUSTER}"));
    folder.run(&["render", "-o", "out"]);
    folder.write(
        "cluster.yaml",
        &format!(
            "format: cloud-init\nssh: {{authorizedKeys: ['{PUBLIC_KEY}']}}\npackages: [jq]\n\
             files: [{{path: /etc/a, content: a, owner: '7'}}]\n{CLUSTER}"
        ),
    );
    let diff = |folder: &Folder| {
        let output = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let told = diff(&folder);
    for line in [
        "node-1: ssh: a key of the image's account added: ssh-ed25519 ops@example.com\n",
        "node-1: package jq: installed\n",
        "node-1: /etc/a: added (0644, 1 bytes)\n",
    ] {
        assert!(told.contains(line), "{line}{told}");
    }
    folder.run(&["render", "-o", "out"]);
    let settings = folder.read("cluster.yaml");
    folder.write("cluster.yaml", &settings.replace("'7'", "'8'"));
    assert!(diff(&folder).contains("node-1: /etc/a: owner 7:7 → 8:8\n"));
}
