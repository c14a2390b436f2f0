//! The program itself: what it prints, where to, and its exit codes.

use std::process::{Command, Output};

use serde_json::Value;

fn knode(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_knode"))
        .args(arguments)
        .output()
        .expect("knode runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_machine_is_checked_for_people_and_for_programs() {
    let output = knode(&["check", "--json", "--offline"]);
    let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = findings.as_array().expect("a list");
    let failing = findings.iter().any(|f| f["verdict"] == "failure");
    assert_eq!(output.status.code(), Some(if failing { 4 } else { 0 }));
    for finding in findings {
        let well = finding["verdict"] == "ok";
        assert_eq!(finding["code"].is_null(), well, "{finding}");
        assert_eq!(finding["cure"].is_null(), well, "{finding}");
        assert!(finding["found"].is_string() && finding["wanted"].is_string());
    }
    let shown = knode(&["check", "--offline"]);
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("kernel") && shown.contains("swap"),
        "{shown}"
    );
}

#[test]
fn a_boot_is_drawn_to_a_file_or_to_standard_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (status, picture) = (path("status.json"), path("boot.svg"));
    // As an agent without `elapsed` wrote it.
    let report = r#"{"node": "node-1", "role": "node", "version": "0.1.0", "ready": true,
        "readyAfter": 2.5, "written": "2026-11-20T14:00:00Z",
        "steps": [{"name": "fetch", "state": "done", "began": 0.1, "took": 2.0}]}"#;
    std::fs::write(&status, report).expect("written");
    let output = knode(&["timeline", "--status", &status]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("node-1 (node): Ready after 2.5 s"));
    let written = knode(&[
        "timeline", "--status", &status, "-o", &picture, "--budget", "2",
    ]);
    assert!(written.status.success() && written.stdout.is_empty());
    let svg = std::fs::read_to_string(&picture).expect("there");
    assert!(svg.contains("500 ms over the budget of 2 s"), "{svg}");

    let missing = knode(&["timeline", "--status", &path("none.json")]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("E-DISK"));
}
