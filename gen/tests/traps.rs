//! Every trap that a document of coreos-cloudinit or cloud-init can hold.

mod common;

use common::linter::{accepted, doubted, refused, validate};

/// A cloud-init document with one file.
fn with_file(file: &str) -> String {
    format!("#cloud-config\nwrite_files:\n- path: /a\n  content: x\n  {file}\n")
}

/// A cloud-init document with a unit and a command.
fn with_unit(unit: &str, commands: &str) -> String {
    let unit: String = unit.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "#cloud-config\nwrite_files:\n- path: /etc/systemd/system/a.service\n  \
         permissions: \"0644\"\n  content: |\n{unit}runcmd:\n{commands}"
    )
}

/// A coreos document with a unit.
fn coreos_unit(unit: &str, keys: &str) -> String {
    let unit: String = unit
        .lines()
        .map(|line| format!("        {line}\n"))
        .collect();
    format!(
        "#cloud-config\ncoreos:\n  units:\n    - name: a.service\n      {keys}\n      content: |\n{unit}"
    )
}

#[test]
fn hyphenated_keys() {
    accepted("#cloud-config\ncoreos: {update: {reboot_strategy: \"off\"}}\n");
    refused(
        "#cloud-config\nwrite-files: []\ncoreos:\n  units: []\n",
        "2:1",
        "write write_files",
    );
    refused(
        "#cloud-config\nwrite-files: []\n",
        "2:1",
        "not a key of cloud-init",
    );
    let unit = coreos_unit("[Service]", "drop-ins: []");
    refused(&unit, "5:7", "drop-ins: is dropped without a word");
    let update = "#cloud-config\ncoreos:\n  update:\n    reboot-strategy: off\n";
    refused(update, "4:5", "write reboot_strategy");
    refused(
        "#cloud-config\nzzz: 1\n",
        "2:1",
        "cloud-init has no such key",
    );
    let (_, told) = validate("#cloud-config\ncoreos: {}\n", &["--format", "cloud-init"]);
    assert!(told.contains("coreos: not a key of cloud-init"), "{told}");
    // Keys of cloud-init that have a hyphen are its own.
    accepted("#cloud-config\nca-certs: {}\n");
}

#[test]
fn permissions_without_quotes() {
    refused(&with_file("permissions: 0644"), "5:16", "write \"0644\"");
    refused(&with_file("permissions: 644"), "5:16", "not quoted");
    refused(&with_file("permissions: \"rw\""), "5:16", "no permissions");
    refused(&with_file("permissions: \"888\""), "5:16", "no permissions");
    accepted(&with_file("permissions: \"0644\""));
    let coreos = with_file("permissions: 0644") + "coreos:\n  units: []\n";
    doubted(&coreos, "5:16", "not quoted");
}

#[test]
fn addresses_that_are_replaced() {
    let document = "#cloud-config\nhostname: a\ncoreos:\n  units: []\nwrite_files:\n- path: /a\n  content: ip=$private_ipv4x\n";
    refused(document, "7:15", "$private_ipv4 is replaced");
    accepted(&document.replace("$private", "\\$private"));
    // cloud-init leaves it alone.
    accepted(&document.replace("coreos:\n  units: []\n", ""));
}

#[test]
fn owners_who_are_not_there() {
    refused(
        &with_file("owner: alice:alice"),
        "3:3",
        "the owner alice may not be there",
    );
    let users = "users:\n- name: alice\n";
    let (_, told) = validate(&(with_file("owner: alice") + users), &[]);
    assert!(told.contains("say defer: true"), "{told}");
    accepted(&(with_file("owner: alice\n  defer: true") + users));
    accepted(&(with_file("owner: alice") + users + "coreos:\n  units: []\n"));
    accepted(&with_file("owner: root:root"));
}

#[test]
fn templates_and_mime() {
    let jinja = "## template: jinja\n#cloud-config\nhostname: \"{{ x }}\"\n";
    doubted(jinja, "3:12", "{{ is a template's");
    accepted("#cloud-config\nhostname: \"{{ x }}\"\n");
    refused(
        "#cloud-config\nhostname: \"Mime-Version: 1\"\n",
        "1:1",
        "MIME message",
    );
    let late = format!(
        "#cloud-config\n# {}\nhostname: \"mime-version: 1\"\n",
        "x".repeat(4100)
    );
    accepted(&late);
    refused("#cloud-config \nhostname: a\n", "1:1", "the first line");
    refused("hostname: a\n", "1:1", "the first line");
}

#[test]
fn starts_that_the_boot_waits_for() {
    let plain = "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target";
    let start = "- [systemctl, enable, --now, a.service]\n";
    doubted(&with_unit(plain, start), "11:3", "add --no-block");
    doubted(
        &with_unit(plain, "- systemctl start --no-block a.service\n"),
        "11:3",
        "as one text",
    );
    accepted(&with_unit(
        plain,
        "- [systemctl, enable, --now, --no-block, a.service]\n",
    ));
    accepted(&with_unit(plain, "- [systemctl, enable, a.service]\n"));
    let deadlock = format!("[Unit]\nAfter=cloud-final.service\n{plain}");
    refused(&with_unit(&deadlock, start), "13:3", "waits for the boot");
    let oneshot = plain.replace("ExecStart", "Type=oneshot\nExecStart");
    doubted(
        &coreos_unit(&oneshot, "command: start"),
        "4:7",
        "the boot waits until it has started",
    );
    let deadlock = format!("[Unit]\nAfter=network.target user-config.target\n{plain}");
    refused(
        &coreos_unit(&deadlock, "command: restart"),
        "4:7",
        "waits for the boot",
    );
    accepted(&coreos_unit(plain, "command: start"));
}

#[test]
fn units_that_cannot_be_enabled() {
    let bare = "[Service]\nExecStart=/bin/a";
    let why = "a.service: is enabled, but has no [Install]";
    refused(&coreos_unit(bare, "enable: true"), "4:7", why);
    refused(
        &with_unit(bare, "- [systemctl, enable, a.service]\n"),
        "9:3",
        why,
    );
    accepted(&coreos_unit(bare, "enable: false"));
}

#[test]
fn conditions_that_hide_a_failed_download() {
    let unit = "[Unit]\nConditionFileIsExecutable=/opt/bin/a\n[Service]\nExecStart=/opt/bin/a";
    doubted(
        &coreos_unit(unit, "enable: false"),
        "4:7",
        "hides a failed download",
    );
    doubted(
        &with_unit(unit, "- [\"true\"]\n"),
        "3:3",
        "hides a failed download",
    );
}

#[test]
fn percent_and_dollar_signs_in_units() {
    let unit = |line: &str| coreos_unit(&format!("[Service]\n{line}"), "enable: false");
    refused(
        &unit("ExecStart=/bin/a --max=50%"),
        "4:7",
        "has \"%\", which is no specifier",
    );
    refused(&unit("Documentation=https://a/b%20c"), "4:7", "has \"%2\"");
    doubted(&unit("ExecStart=/bin/date +%H"), "4:7", "a date's %");
    accepted(&unit("ExecStart=/bin/a %n 50%%"));
    doubted(
        &unit("ExecStart=/bin/sh -c 'echo $A ${B}'"),
        "4:7",
        "nothing sets $A",
    );
    doubted(
        &unit("ExecStart=/bin/sh -c 'echo $A ${B}'"),
        "4:7",
        "nothing sets $B",
    );
    doubted(
        &unit("ExecStart=/bin/awk '{print $1}'"),
        "4:7",
        "nothing sets $1",
    );
    accepted(&unit("ExecStart=/bin/sh -c 'echo $$A $HOME $(id)'"));
    accepted(&unit(
        "Environment=A=1 \"B=2 3\"\n        ExecStart=/bin/a $A $B",
    ));
    accepted(&unit("EnvironmentFile=/run/a\n        ExecStart=/bin/a $A"));
}

#[test]
fn what_a_file_is_encoded_in() {
    refused(&with_file("encoding: base32"), "3:3", "no encoding");
    refused(&with_file("encoding: b64"), "3:3", "is not in b64");
    refused(&with_file("encoding: gz+b64"), "3:3", "is not in gz+b64");
    let path = with_file("permissions: \"0644\"").replace("/a", "a");
    refused(&path, "3:3", "not an absolute path");
    doubted(
        &with_file("permissions: \"0644\"").replace("/a", "/run/a"),
        "3:3",
        "is gone",
    );
    refused("#cloud-config\na: [\n", "2:4", "not valid YAML");
}
