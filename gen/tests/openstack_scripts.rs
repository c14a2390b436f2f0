//! Scripts for OpenStack end where a command fails, wherever that is: what could
//! not be looked for is not made, and what is in use is not deleted.

mod common;

use std::os::unix::fs::symlink;
use std::process::Output;

use common::Folder;
use common::openstack::{documented, rendered, small};

/// Writes down what it is asked, and fails at one thing.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/openstack.sh");

fn run(folder: &Folder, script: &str, words: &[&str], fails: &str) -> (Output, Vec<String>) {
    // A file that was just written may be busy for whoever runs it.
    if !folder.path("openstack").exists() {
        symlink(CLIENT, folder.path("openstack")).unwrap();
    }
    folder.write("asked", "");
    let path = format!(
        "{}:{}",
        folder.path("").display(),
        std::env::var("PATH").unwrap()
    );
    let output = std::process::Command::new(folder.path(&format!("out/openstack/{script}")))
        .args(words)
        .current_dir(folder.path(""))
        .env("PATH", path)
        .env("ASKED", folder.path("asked"))
        .env("CLUSTER", "demo")
        .env("FAILS", fails)
        .output()
        .unwrap();
    let asked = folder.read("asked");
    (output, asked.lines().map(str::to_owned).collect())
}

/// Runs it with each of these commands failing, the last that is asked then.
fn ends_at(folder: &Folder, script: &str, words: &[&str], commands: &[&str]) {
    let (well, asked) = run(folder, script, words, "nothing fails");
    let told = String::from_utf8_lossy(&well.stderr);
    assert!(well.status.success(), "{script}: {told}");
    for command in commands {
        let is_it = |line: &String| format!("{line} ").contains(command);
        assert!(
            asked.iter().any(is_it),
            "{command} is not asked: {asked:#?}"
        );
        let (output, asked) = run(folder, script, words, command);
        assert!(!output.status.success(), "{script} went on after {command}");
        let last = asked.last().unwrap();
        assert!(is_it(last), "{script}: after {command} came {last}");
        assert_eq!(
            asked.iter().filter(|line| is_it(line)).count(),
            1,
            "{command}"
        );
    }
}

#[test]
fn up_ends_where_a_command_fails() {
    let folder = rendered(&documented()[0]);
    let commands = [
        "network list ",
        "network create ",
        "subnet list ",
        "router list ",
        "router set ",
        "security group list ",
        "security group rule list ",
        "security group rule create ",
        "server group list ",
        "port list --tags ",
        "port create ",
        "port show ",
        "server create ",
        "floating ip list ",
        "floating ip create ",
        "floating ip set ",
        "server show ",
    ];
    ends_at(&folder, "up", &[], &commands);
    let (output, _) = run(&folder, "up", &["--all"], "nothing fails");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn up_with_a_load_balancer_ends_where_a_command_fails() {
    let folder = rendered(&documented()[1]);
    let commands = [
        "loadbalancer list ",
        "loadbalancer create ",
        "loadbalancer listener list ",
        "loadbalancer listener create ",
        "loadbalancer pool list ",
        "loadbalancer pool create ",
        "loadbalancer healthmonitor list ",
        "loadbalancer healthmonitor create ",
        "loadbalancer member list ",
        "loadbalancer member create ",
        "loadbalancer show ",
    ];
    ends_at(&folder, "up", &[], &commands);
}

#[test]
fn down_ends_where_a_command_fails_and_leaves_what_is_not_ours() {
    let folder = rendered(&documented()[0]);
    let commands = [
        "server list ",
        "network list ",
        "port list --tags ",
        "router list ",
        "security group list ",
        "floating ip list ",
        "server delete ",
        "floating ip delete ",
        "port delete ",
        "subnet list ",
        "router set --no-route ",
        "port list --router ",
        "router remove subnet ",
        "router delete ",
        "network delete ",
        "security group delete ",
        "server group list ",
        "server group delete ",
    ];
    ends_at(&folder, "down", &["--yes"], &commands);
    let (_, asked) = run(&folder, "down", &["--yes"], "nothing fails");
    assert!(
        asked.contains(&"server delete --wait s1".to_owned()),
        "{asked:#?}"
    );
    assert!(
        asked.contains(&"server group delete g1".to_owned()),
        "{asked:#?}"
    );
    let others = |line: &&String| line.contains(" s2") || line.contains(" g2");
    assert_eq!(asked.iter().find(others), None);
}

#[test]
fn a_stack_is_made_or_updated_with_all_that_it_needs() {
    let folder = rendered(&documented()[0]);
    let (output, asked) = run(&folder, "up", &["--stack"], "nothing fails");
    assert!(output.status.success());
    assert_eq!(asked[0], "floating ip show 203.0.113.10 -f value -c id");
    let create = asked.last().unwrap();
    for part in [
        "stack create --template ",
        "/out/openstack/stack.yaml --environment ",
        "/out/openstack/environment.yaml --wait --parameter api_floating_ip=n1 ",
        "--tags kgen-cluster=demo demo",
    ] {
        assert!(create.contains(part), "{part}: {create}");
    }
    let (output, asked) = run(&folder, "down", &["--stack", "--yes"], "nothing fails");
    assert!(output.status.success());
    assert_eq!(asked, ["stack delete --yes --wait demo"]);
    let (output, asked) = run(&folder, "down", &["--stack"], "nothing fails");
    assert_eq!((output.status.code(), asked.len()), (Some(1), 0));
    // More than Heat takes is told before it is asked.
    let many = small(
        "externalNetwork: public, pools: [{name: p, count: 500}]",
        "pools: [{name: p}]\n",
    );
    let folder = rendered(&many);
    let (output, asked) = run(&folder, "up", &["--stack"], "nothing fails");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), asked.len()), (Some(1), 0), "{told}");
    assert!(told.contains("Heat takes"), "{told}");
}
