//! Documents of coreos-cloudinit and cloud-init.

use std::collections::BTreeSet;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::document::Findings;
use super::units::{self, UnitText};
use super::{MIME_WINDOW, contains_ignoring_case};
use crate::format::Format;
use crate::yaml::{Kind, Node};

/// All keys of coreos-cloudinit.
const COREOS: [&str; 6] = [
    "coreos",
    "hostname",
    "manage_etc_hosts",
    "ssh_authorized_keys",
    "users",
    "write_files",
];
/// Keys of cloud-init. Source: its schema, cloud-init 25.1.
const CLOUD_INIT: &str = "allow_public_ssh_keys ansible apk_repos apt apt_pipelining apt_reboot_if_required \
    apt_update apt_upgrade autoinstall bootcmd byobu_by_default ca-certs ca_certs chef chpasswd cloud_config_modules \
    cloud_final_modules cloud_init_modules create_hostname_file datasource datasource_list disable_ec2_metadata \
    disable_root disable_root_opts disk_setup drivers fan final_message fqdn fs_setup groups growpart hostname \
    keyboard landscape launch-index locale locale_configfile lxd manage_etc_hosts manage_resolv_conf mcollective \
    merge_how merge_type migrate mount_default_fields mounts network no_ssh_fingerprints ntp output \
    package_reboot_if_required package_update package_upgrade packages password phone_home power_state \
    prefer_fqdn_over_hostname preserve_hostname puppet random_seed reporting resize_rootfs resolv_conf \
    rh_subscription rpi rsyslog runcmd salt_minion snap spacewalk ssh ssh_authorized_keys ssh_deletekeys ssh_fp_console_blacklist \
    ssh_genkeytypes ssh_import_id ssh_key_console_blacklist ssh_keys ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen \
    swap system_info timezone ubuntu_advantage ubuntu_pro updates user users vendor_data version wireguard \
    write_files yum_repo_dir yum_repos zypper";
/// Keys of coreos-cloudinit below the first level.
const INNER: [&str; 6] = [
    "drop_ins",
    "reboot_strategy",
    "ssh_authorized_keys",
    "write_files",
    "no_create_home",
    "primary_group",
];
/// What stands for the machine's addresses.
const ADDRESSES: [&str; 4] = [
    "$private_ipv4",
    "$public_ipv4",
    "$private_ipv6",
    "$public_ipv6",
];
/// The encodings that both know. Source: cloud-init, cc_write_files.py.
const ENCODINGS: [&str; 9] = [
    "b64",
    "base64",
    "gz",
    "gzip",
    "gz+b64",
    "gz+base64",
    "gzip+b64",
    "gzip+base64",
    "text/plain",
];

/// What can be seen in the text as it is.
pub fn text(findings: &mut Findings, text: &str, format: Format) {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let jinja = first.replace(' ', "") == "##template:jinja";
    let header = if jinja && format == Format::CloudInit {
        lines.next().unwrap_or_default()
    } else {
        first
    };
    if header != "#cloud-config" {
        findings.error(
            &(0..0),
            "the first line is not #cloud-config, so the document is ignored",
            "nothing may stand before or behind it, not even a space",
        );
    }
    let beginning = &text.as_bytes()[..text.len().min(MIME_WINDOW)];
    if contains_ignoring_case(beginning, b"mime-version:") {
        findings.error(
            &(0..0),
            "\"mime-version:\" in the first 4096 bytes makes it a MIME message",
            "encode the file in which it stands, or move that file to the end",
        );
    }
    if jinja {
        for mark in ["{{", "{%"] {
            if let Some(at) = text.find(mark) {
                findings.warning(
                    &(at..at),
                    format!("{mark} is a template's under the header ## template: jinja"),
                    "remove the header, or encode the file in which it stands",
                );
            }
        }
    }
    if format == Format::Coreos {
        for token in ADDRESSES {
            for (at, _) in text.match_indices(token) {
                if !text[..at].ends_with('\\') {
                    findings.error(
                        &(at..at),
                        format!("{token} is replaced by an address, or by nothing"),
                        "encode the file in which it stands, or write \\ before it",
                    );
                }
            }
        }
    }
}

/// What can be seen in its keys and values.
pub fn tree(findings: &mut Findings, root: &Node, format: Format) {
    keys(findings, root, format);
    let users: BTreeSet<&str> = root
        .list("users")
        .iter()
        .filter_map(|u| u.string("name"))
        .collect();
    let mut texts = Vec::new();
    for file in root.list("write_files") {
        one_file(findings, file, &users, format, &mut texts);
    }
    if format == Format::Coreos {
        if let Some(coreos) = root.get("coreos") {
            hyphens(findings, coreos);
        }
        for unit in root.get("coreos").into_iter().flat_map(|c| c.list("units")) {
            one_unit(findings, unit, &mut texts);
        }
    } else {
        for command in root.list("runcmd") {
            one_command(findings, command, &texts);
        }
    }
    units::check(findings, &texts);
}

fn keys(findings: &mut Findings, root: &Node, format: Format) {
    for (key, _) in root.entries() {
        let name = key.text.as_str();
        let known = match format {
            Format::Coreos => COREOS.contains(&name),
            _ => CLOUD_INIT.split_whitespace().any(|known| known == name),
        };
        if known {
            continue;
        }
        let underscored = name.replace('-', "_");
        let help = if name != underscored {
            format!("write {underscored}")
        } else {
            format!("{format} has no such key")
        };
        findings.error(
            &key.span,
            format!("{name}: not a key of {format}, which drops or refuses it"),
            &help,
        );
    }
}

/// Keys that were hyphenated once, at any depth.
fn hyphens(findings: &mut Findings, node: &Node) {
    for (key, value) in node.entries() {
        let underscored = key.text.replace('-', "_");
        if key.text != underscored && INNER.contains(&underscored.as_str()) {
            findings.error(
                &key.span,
                format!("{}: is dropped without a word", key.text),
                &format!("write {underscored}"),
            );
        }
        hyphens(findings, value);
    }
    for item in node.items() {
        hyphens(findings, item);
    }
}

fn one_file(
    findings: &mut Findings,
    file: &Node,
    users: &BTreeSet<&str>,
    format: Format,
    texts: &mut Vec<UnitText>,
) {
    let path = file.string("path").unwrap_or_default();
    if !path.starts_with('/') {
        findings.error(
            &file.span,
            format!("write_files: {path:?} is not an absolute path"),
            "",
        );
    }
    if ["/tmp/", "/run/", "/proc/", "/sys/", "/dev/"]
        .iter()
        .any(|f| path.starts_with(f))
    {
        findings.warning(&file.span, format!("{path}: is gone after the boot"), "");
    }
    permissions(findings, file, path, format);
    owner(findings, file, path, users, format);
    let encoding = file.string("encoding");
    if let Some(encoding) = encoding.filter(|e| !ENCODINGS.contains(e)) {
        findings.error(
            &file.span,
            format!("{path}: {encoding:?} is no encoding, so the file gets the encoded text"),
            "use b64 or gz+b64",
        );
        return;
    }
    let text = file.string("content").unwrap_or_default();
    match decoded(text, encoding.unwrap_or_default()) {
        Some(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            texts.extend(UnitText::of_path(path, &text, &file.span));
        }
        None => findings.error(
            &file.span,
            format!(
                "{path}: its content is not in {}",
                encoding.unwrap_or_default()
            ),
            "",
        ),
    }
}

/// The bytes of a file; none if they cannot be decoded.
pub fn decoded(text: &str, encoding: &str) -> Option<Vec<u8>> {
    let mut bytes = text.as_bytes().to_vec();
    if encoding.contains("64") {
        bytes.retain(|b| !b.is_ascii_whitespace());
        bytes = STANDARD.decode(bytes).ok()?;
    }
    if encoding.starts_with("gz") {
        bytes = super::gunzip(&bytes)?;
    }
    Some(bytes)
}

fn permissions(findings: &mut Findings, file: &Node, path: &str, format: Format) {
    let Some(node) = file.get("permissions") else {
        return;
    };
    let Kind::Scalar { text, plain } = &node.kind else {
        findings.error(&node.span, format!("{path}: permissions are not text"), "");
        return;
    };
    let digits =
        text.len() >= 3 && text.len() <= 5 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    if !digits || (text.len() == 5 && !text.starts_with('0')) {
        findings.error(
            &node.span,
            format!("{path}: {text:?} are no permissions"),
            "write \"0644\"",
        );
    } else if *plain {
        let message = format!("{path}: the permissions {text} are not quoted");
        let help = format!("write \"0{}\"", text.trim_start_matches('0'));
        match format {
            // A number to cloud-init: 644 is the mode 01204.
            Format::CloudInit => findings.error(&node.span, message, &help),
            _ => findings.warning(&node.span, message, &help),
        }
    }
}

fn owner(findings: &mut Findings, file: &Node, path: &str, users: &BTreeSet<&str>, format: Format) {
    let Some(owner) = file.string("owner") else {
        return;
    };
    let user = owner.split(':').next().unwrap_or_default();
    let there = user == "root"
        || user.bytes().all(|b| b.is_ascii_digit())
        || (format == Format::Coreos && (user == "core" || users.contains(user)));
    if there || file.string("defer") == Some("true") {
        return;
    }
    let help = if users.contains(user) {
        "users are made after files: say defer: true"
    } else {
        "an owner who is not there stops everything after it: all later files are skipped"
    };
    let message = format!("{path}: the owner {user} may not be there when files are written");
    findings.error(&file.span, message, help);
}

fn one_unit(findings: &mut Findings, unit: &Node, texts: &mut Vec<UnitText>) {
    let name = unit.string("name").unwrap_or_default();
    let text = |text: &str, drop_in| UnitText {
        unit: name.to_owned(),
        drop_in,
        text: text.to_owned(),
        at: unit.span.clone(),
    };
    for drop_in in unit.list("drop_ins") {
        texts.extend(drop_in.string("content").map(|content| text(content, true)));
    }
    let Some(content) = unit.string("content") else {
        return;
    };
    let own = text(content, false);
    if unit.string("enable") == Some("true") && !own.can_be_enabled() {
        super::cannot_be_enabled(findings, &unit.span, name);
    }
    let starts = unit.string("command").is_some_and(|c| c.contains("start"));
    if starts {
        blocks(findings, &unit.span, &own, "user-config.target");
    }
    texts.push(own);
}

/// A unit that is started while the boot waits for it.
fn blocks(findings: &mut Findings, at: &Range<usize>, unit: &UnitText, stage: &str) {
    let name = &unit.unit;
    let waits = unit.values("After").iter().any(|v| {
        v.split_whitespace()
            .any(|after| after.starts_with(stage) || after == "multi-user.target")
    });
    let slow = unit
        .values("Type")
        .iter()
        .any(|t| ["oneshot", "notify", "notify-reload", "forking"].contains(&t.as_str()));
    if waits {
        findings.error(
            at,
            format!("{name}: is started while the boot waits for it, and waits for the boot"),
            "neither ever ends; take the After= away, or start it without waiting",
        );
    } else if slow {
        findings.warning(
            at,
            format!("{name}: the boot waits until it has started"),
            "start a target that wants it, or use systemctl --no-block",
        );
    }
}

fn one_command(findings: &mut Findings, command: &Node, texts: &[UnitText]) {
    let words: Vec<&str> = match &command.kind {
        Kind::Scalar { text, .. } => {
            findings.warning(
                &command.span,
                "runcmd: a command as one text is a shell's line, whose failure nobody sees",
                "write a list of words",
            );
            text.split_whitespace().collect()
        }
        _ => command.items().iter().filter_map(Node::text).collect(),
    };
    let Some(at) = words
        .iter()
        .position(|w| *w == "systemctl" || w.ends_with("/systemctl"))
    else {
        return;
    };
    let words = &words[at + 1..];
    let has = |word: &str| words.contains(&word);
    let named = |unit: &&UnitText| !unit.drop_in && has(&unit.unit);
    if has("enable") {
        for unit in texts.iter().filter(named).filter(|u| !u.can_be_enabled()) {
            super::cannot_be_enabled(findings, &command.span, &unit.unit);
        }
    }
    let starts = has("start") || has("restart") || (has("enable") && has("--now"));
    if starts && !has("--no-block") {
        let before = findings.len();
        for unit in texts.iter().filter(named) {
            blocks(findings, &command.span, unit, "cloud-");
        }
        if findings.len() == before {
            findings.warning(
                &command.span,
                "runcmd: the boot waits until systemctl has started it",
                "add --no-block",
            );
        }
    }
}
