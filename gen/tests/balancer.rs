//! Several masters and no load balancer: each machine has its own way to all
//! of them. (B7 P38)

mod common;

use std::process::Command;

use common::Folder;
use common::landing::Landing;

const MASTERS: &str = "\
serviceAccountKey: ecdsa-p256
nodes:
- {name: m-1, role: master, address: 10.0.0.1}
- {name: m-2, role: master, address: 10.0.0.2}
- {name: m-3, role: master}
- {name: node-1, role: node, address: 10.0.0.4}
pools: [{name: workers}]
";

fn landing(folder: &Folder, args: &[&str]) -> Landing {
    Landing::of(&folder.user_data(args))
}

fn server(landing: &Landing, file: &str) -> String {
    let text = landing.text(&format!("/etc/kubernetes/{file}"));
    let lines = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("server: "));
    lines.unwrap().to_owned()
}

#[test]
fn machines_reach_all_masters_through_a_port_of_their_own() {
    let folder = Folder::with(MASTERS);
    for args in [
        ["--name", "m-2"],
        ["--name", "node-1"],
        ["--pool", "workers"],
    ] {
        let machine = landing(&folder, &args);
        let config = machine.node_config();
        assert_eq!(
            config.cluster.endpoint, "https://127.0.0.1:7443",
            "{args:?}"
        );
        let balancer = config.balancer.unwrap();
        assert_eq!(balancer.listen.to_string(), "127.0.0.1:7443");
        assert_eq!(
            balancer.servers,
            ["10.0.0.1:6443", "10.0.0.2:6443", "m-3:6443"]
        );
        for file in ["kubelet.conf", "kube-proxy.conf"] {
            assert_eq!(server(&machine, file), "https://127.0.0.1:7443", "{args:?}");
        }
    }
    let pool = landing(&folder, &["--pool", "workers"]);
    assert_eq!(
        server(&pool, "bootstrap-kubelet.conf"),
        "https://127.0.0.1:7443"
    );
    // The control plane stays on its machine.
    let master = landing(&folder, &["--name", "m-2"]);
    for file in ["controller-manager.conf", "scheduler.conf"] {
        assert_eq!(server(&master, file), "https://127.0.0.1:6443");
    }
    // The operator is somewhere else.
    let admin = folder.user_data(&["kubeconfig"]);
    assert!(admin.contains("server: https://10.0.0.1:6443\n"), "{admin}");
    let told = String::from_utf8(folder.run(&["validate"]).stderr).unwrap();
    assert!(!told.contains("endpoint"), "{told}");
}

/// P12: whichever master answers, it is whom the caller meant.
#[test]
fn every_api_server_answers_to_every_masters_name_and_to_loopback() {
    let folder = Folder::with(&format!(
        "endpoint: api.example.com\nbalancer: true\n{MASTERS}"
    ));
    folder.run(&["render", "-o", "out"]);
    for name in ["m-1", "m-2", "m-3"] {
        let output = Command::new("openssl")
            .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
            .arg(folder.path(&format!("pki/nodes/{name}/apiserver.crt")))
            .output()
            .expect("openssl, which these tests need (Debian: openssl)");
        let names = String::from_utf8(output.stdout).unwrap();
        for part in [
            "DNS:m-1,",
            "DNS:m-2,",
            "DNS:m-3,",
            "IP Address:10.0.0.1,",
            "IP Address:10.0.0.2,",
            "IP Address:127.0.0.1",
            "DNS:api.example.com,",
        ] {
            assert!(
                names.replace('\n', ",").contains(part),
                "{name} lacks {part}: {names}"
            );
        }
    }
    assert!(
        folder
            .read("out/admin.conf")
            .contains("server: https://api.example.com:6443\n")
    );
}

#[test]
fn the_setting_goes_before_what_follows_from_the_others() {
    let one = "serviceAccountKey: ecdsa-p256\nnodes:\n- {name: m, role: master, address: 10.0.0.1}\n\
               - {name: n, role: node}\n";
    for (settings, endpoint, servers) in [
        (one.to_owned(), "https://10.0.0.1:6443", None),
        (
            format!("balancer: true\n{one}"),
            "https://127.0.0.1:7443",
            Some("10.0.0.1:6443"),
        ),
        (
            format!("endpoint: lb:443\nbalancer: true\n{one}"),
            "https://127.0.0.1:7443",
            Some("10.0.0.1:6443"),
        ),
        // A master behind another port listens on it.
        (
            format!("endpoint: m:443\nbalancer: true\n{one}"),
            "https://127.0.0.1:7443",
            Some("10.0.0.1:443"),
        ),
        (
            format!("endpoint: lb:443\n{MASTERS}").replace("node-1", "n"),
            "https://lb:443",
            None,
        ),
        (
            format!("balancer: false\n{MASTERS}").replace("node-1", "n"),
            "https://10.0.0.1:6443",
            None,
        ),
    ] {
        let folder = Folder::with(&settings);
        let config = landing(&folder, &["--name", "n"]).node_config();
        assert_eq!(config.cluster.endpoint, endpoint, "{settings}");
        let first = config.balancer.map(|b| b.servers[0].clone());
        assert_eq!(first.as_deref(), servers, "{settings}");
    }
    // Without it the others are lost with the first master, which is said.
    let folder = Folder::with(&format!("balancer: false\n{MASTERS}"));
    let told = String::from_utf8(folder.run(&["validate"]).stderr).unwrap();
    assert!(
        told.contains("one of 3 masters") && told.contains("balancer: true"),
        "{told}"
    );
}

#[test]
fn addresses_of_both_families_stand_as_urls_have_them() {
    let folder = Folder::with(
        "network: {podCIDR: 'fd00:1::/48', serviceCIDR: 'fd00:2::/112'}\nbalancer: true\n\
         nodes: [{name: m, role: master, addresses: [10.0.0.1, 'fd00::1']}, {name: e, role: etcd}]\n",
    );
    let config = landing(&folder, &["--role", "master"]).node_config();
    assert_eq!(config.balancer.unwrap().servers, ["[fd00::1]:6443"]);
    // A machine without kubelet has nothing to balance.
    let config = landing(&folder, &["--role", "etcd"]).node_config();
    assert!(config.balancer.is_none());
    assert_eq!(config.cluster.endpoint, "https://10.0.0.1:6443");
}
