//! Docker daemons over TLS, and the way in for the operator. (P19)

mod common;

use std::path::Path;
use std::process::Command;

use common::openssl::openssl;
use common::{CLUSTER, Document, Folder};
use serde_json::{Value, json};

const DOCKER: &str = "docker: {expose: true}\n";

fn exposed() -> Folder {
    let settings = CLUSTER.replace(", address: 10.0.0.12", "");
    let folder = Folder::with(&format!("{DOCKER}{settings}"));
    folder.run(&["render", "-o", "out"]);
    folder
}

fn document(folder: &Folder, name: &str) -> Document {
    Document::parse(&folder.user_data(&["--name", name]))
}

#[test]
fn machines_with_pods_run_the_daemon_with_keys_of_their_own() {
    let folder = exposed();
    for name in ["master", "node-1", "node-2"] {
        let document = document(&folder, name);
        let files = document.files();
        let config: Value =
            serde_json::from_str(&document.text("/etc/docker/daemon.json")).unwrap();
        assert_eq!(config["hosts"], json!(["fd://", "tcp://0.0.0.0:2376"]));
        assert_eq!(config["tlsverify"], true);
        assert_eq!(config["exec-opts"], json!(["native.cgroupdriver=systemd"]));
        for key in ["tlscacert", "tlscert", "tlskey"] {
            let path = config[key].as_str().unwrap();
            let mode = if key == "tlskey" { "0600" } else { "0644" };
            assert_eq!(files[path].0, mode, "{path}");
        }
        // -H on the command line and hosts in the file contradict each other.
        let unit = document.text("/etc/systemd/system/docker.service.d/10-kgen.conf");
        let expected =
            "[Unit]\nStartLimitIntervalSec=0\n\n[Service]\nExecStart=\nExecStart=dockerd\n";
        assert_eq!(unit, expected);
        let node: Value = serde_yaml::from_str(&document.text("/etc/knode/node.yaml")).unwrap();
        let services = node["services"].as_array().unwrap();
        assert!(services.contains(&json!("docker")), "{node}");
        // No machine could make itself a client.
        let keys: Vec<&String> = files.keys().filter(|p| p.contains("docker")).collect();
        assert_eq!(keys.len(), 5, "{keys:?}");
        assert!(!keys.iter().any(|path| path.contains("ca.key")));
    }
    let etcd = document(&folder, "etcd-1");
    assert!(!etcd.files().keys().any(|path| path.contains("docker")));
}

/// The daemon's authority is none of the cluster's: no kubelet is let in.
#[test]
fn clients_and_daemons_believe_each_other_and_nobody_else() {
    let folder = exposed();
    let verify = |args: &[&str]| openssl(&folder, &[&["verify", "-x509_strict"], args].concat());
    let server = "pki/nodes/node-1/docker/server.crt";
    for (args, holds) in [
        (
            &["-purpose", "sslserver", "-verify_ip", "10.0.0.11", server][..],
            true,
        ),
        (
            &[
                "-purpose",
                "sslserver",
                "-verify_hostname",
                "node-1",
                server,
            ],
            true,
        ),
        (&["-purpose", "sslclient", server], false),
        (&["-purpose", "sslclient", "out/docker/cert.pem"], true),
        (&["-purpose", "sslserver", "out/docker/cert.pem"], false),
        (&["pki/nodes/node-1/kubelet-client.crt"], false),
        (&["pki/admin.crt"], false),
        (
            &[
                "-verify_hostname",
                "node-2",
                "pki/nodes/node-2/docker/server.crt",
            ],
            true,
        ),
    ] {
        let (held, told) = verify(&[&["-CAfile", "out/docker/ca.pem"], args].concat());
        assert_eq!(held, holds, "{args:?}: {told}");
    }
    let (held, _) = verify(&["-CAfile", "pki/ca.crt", "out/docker/cert.pem"]);
    assert!(!held);
    // They are renewed with the others.
    let before = folder.read("out/docker/cert.pem");
    folder.run(&["certs", "renew", "docker/client", "docker/server"]);
    folder.run(&["render", "-o", "out"]);
    assert_ne!(folder.read("out/docker/cert.pem"), before);
}

#[test]
fn a_shell_is_told_where_and_how() {
    let folder = exposed();
    for (name, host) in [("node-1", "10.0.0.11"), ("node-2", "node-2")] {
        let script = format!(
            ". out/{name}/docker.env; printf '%s %s %s' \"$DOCKER_HOST\" \"$DOCKER_TLS_VERIFY\" \
             \"$DOCKER_CERT_PATH\""
        );
        let output = Command::new("sh")
            .args(["-euc", &script])
            .current_dir(folder.path(""))
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = told.split(' ').collect();
        assert_eq!(words[..2], [format!("tcp://{host}:2376").as_str(), "1"]);
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            assert!(Path::new(words[2]).join(file).exists(), "{told}");
        }
    }
    let tree = folder.tree();
    assert_eq!(tree["out/docker/key.pem"].1, 0o600);
    assert!(!tree.contains_key("out/etcd-1/docker.env"));
}

#[test]
fn without_being_asked_for_there_is_none_of_it() {
    for settings in [
        "",
        "docker: {expose: false, port: 1}\n",
        "docker: {port: 2376}\n",
    ] {
        let folder = Folder::with(&format!("{settings}{CLUSTER}"));
        folder.run(&["render", "-o", "out"]);
        let all: Vec<String> = folder.tree().into_keys().collect();
        assert!(!all.iter().any(|path| path.contains("docker")), "{all:?}");
        let files = document(&folder, "node-1").files();
        assert!(!files.keys().any(|path| path.contains("docker")));
    }
    let folder = Folder::with(&format!("docker: {{expose: 1, port: 0, x: 1}}\n{CLUSTER}"));
    let output = folder.kgen().args(["--name", "node-1"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    for why in ["docker.expose", "docker.port", "docker.x: unknown key"] {
        assert!(told.contains(why), "{told}");
    }
}

/// The three languages bring the same, and no reader stumbles over it.
#[test]
fn every_language_takes_it() {
    let folder = Folder::with(&format!("{DOCKER}{CLUSTER}"));
    for format in ["coreos", "cloud-init", "ignition"] {
        folder.run(&["validate", "--strict", "--format", format]);
    }
}
