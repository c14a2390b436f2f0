//! `kgen wait` where there is no cluster to be content with; tests/three_nodes.rs
//! and tests/masters.rs ask real ones. (P55, P57)

mod common;

use std::net::TcpListener;

use common::openssl::text;
use common::{CLUSTER, Folder};
use serde_json::Value;

fn wait(folder: &Folder, args: &[&str]) -> (i32, String) {
    let before = folder.tree();
    let output = folder.kgen().arg("wait").args(args).output().unwrap();
    assert_eq!(folder.tree(), before, "wait wrote something");
    (output.status.code().unwrap(), text(&output))
}

#[test]
fn a_cluster_that_is_not_there_is_waited_for_and_named() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    // Nobody listens on a port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let server = format!("127.0.0.1:{}", port.unwrap().port());
    let (status, said) = wait(&folder, &["--server", &server, "--timeout", "1s"]);
    assert_eq!(status, 3, "{said}");
    assert!(
        said.contains(&format!("NOT YET  https://{server}: ")) && said.contains("refused"),
        "{said}"
    );
    let flags = ["--server", &server, "--timeout", "0s", "--json"];
    let (status, said) = wait(&folder, &flags);
    assert_eq!(status, 3, "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["ready"], false);
    assert!(said["error"].as_str().unwrap().contains("refused"));
}

#[test]
fn what_is_typed_wrong_is_told_at_once() {
    let folder = Folder::with(CLUSTER);
    let (status, said) = wait(&folder, &[]);
    assert!(
        status == 2 && said.contains("there is no pki/ca.crt") && said.contains("kgen render"),
        "{said}"
    );
    for (flags, why) in [
        (
            ["--for", "minions"],
            "use certificates, masters, nodes, network, daemons, add-ons, pods, services",
        ),
        (["--timeout", "10"], "a number with s, m or h"),
        (["--timeout", "-1m"], "a number with s, m or h"),
        (["--timeout", "9999999999h"], "a number with s, m or h"),
        (["--timeout", "é"], "a number with s, m or h"),
    ] {
        let flags = [flags[0].to_owned() + "=" + flags[1]];
        let (status, said) = wait(&folder, &[&flags[0]]);
        assert!(status == 2 && said.contains(why), "{said}");
    }
}

/// Waiting for another cluster's API server to become this one's is in vain.
#[test]
fn another_clusters_api_server_ends_it() {
    let folder = Folder::with(CLUSTER);
    folder.run(&["render", "-o", "out"]);
    let other = Folder::with(CLUSTER);
    other.run(&["render", "-o", "out"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let server = format!("127.0.0.1:{}", port.unwrap().port());
    let pair = "pki/nodes/master/apiserver";
    let mut openssl = std::process::Command::new("openssl")
        .args(["s_server", "-www", "-accept", &server])
        .args([
            "-cert",
            &format!("{pair}.crt"),
            "-key",
            &format!("{pair}.key"),
        ])
        .current_dir(other.path(""))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl, which these tests need (Debian: openssl)");
    let began = std::time::Instant::now();
    let (status, said) = loop {
        let (status, said) = wait(&folder, &["--server", &server, "--timeout", "1s"]);
        // It listens a moment after it began.
        if !said.contains("refused") || began.elapsed().as_secs() > 20 {
            break (status, said);
        }
    };
    openssl.kill().unwrap();
    openssl.wait().unwrap();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("is no API server of pki/ca.crt"), "{said}");
}
