//! knode's way to systemd (agent/tests/sys_bus.rs) against a real systemd, in a node.

use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::command;
use tests::network::Network;
use tests::node::{Meta, Node};
use tests::report;

const LIMIT: Duration = Duration::from_secs(120);
const PROGRAM: &str = "/root/sys_bus";

#[test]
fn bus_in_node() -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip("bus_in_node", &reason);
        return Ok(());
    }
    let program = test_program()?;
    let network = Network::new("10.99.0.1/24".parse()?)?;
    let mut node = Node::new(&network, "bus", Ipv4Addr::new(10, 99, 0, 11))?;
    // The disk is mounted before the machine is on.
    let copy = node.disk().join(PROGRAM.trim_start_matches('/'));
    fs::copy(&program, &copy).with_context(|| format!("copying {}", program.display()))?;
    node.boot(b"#cloud-config\n", &Meta::new("bus"))?;
    node.wait_for_system(LIMIT)?;
    let list = node.exec(&[PROGRAM, "--ignored", "--list"])?.ok()?;
    let expected = list.lines().filter(|line| line.ends_with(": test")).count();
    ensure!(expected > 0, "no test needs a node: {list}");
    let arguments = [PROGRAM, "--include-ignored", "--test-threads=1"];
    let outcome = node.exec_within(&arguments, b"", Duration::from_secs(300))?;
    ensure!(
        outcome.success(),
        "exit status {}:\n{}\n{}",
        outcome.code(),
        outcome.stdout,
        outcome.stderr
    );
    let last = outcome.stdout.lines().rev();
    let summary = last
        .into_iter()
        .find(|line| line.starts_with("test result"));
    let summary = summary.context("no summary of the tests")?;
    let passed: usize = summary
        .split_whitespace()
        .zip(summary.split_whitespace().skip(1))
        .find_map(|(number, word)| word.starts_with("passed").then(|| number.parse().ok())?)
        .with_context(|| summary.to_owned())?;
    ensure!(passed >= expected, "{summary}; {expected} need a node");
    println!("in the node: {summary}");
    let failed = node.failed_units()?;
    ensure!(failed.is_empty(), "left behind: {failed:?}");
    Ok(())
}

/// The executable of the agent's test, as cargo has built it with the rest of the
/// workspace.
fn test_program() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let messages = command::run(
        Command::new(cargo)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["test", "--workspace", "--test=sys_bus", "--no-run"])
            .args(["--locked", "--message-format=json"]),
    )?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "sys_bus")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo named no executable of sys_bus")
}
