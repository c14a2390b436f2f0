//! Ignition documents.

use ::units::types::to_hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

use super::document::Findings;
use super::units::{self, UnitText};
use crate::yaml::{Kind, Node};

/// Modes that nobody means in decimal.
const OCTAL: [&str; 14] = [
    "400", "440", "444", "500", "550", "555", "600", "640", "644", "700", "750", "755", "1777",
    "777",
];

/// Looks at the whole document.
pub fn tree(findings: &mut Findings, root: &Node) {
    known(
        findings,
        root,
        &[
            "ignition",
            "kernelArguments",
            "passwd",
            "storage",
            "systemd",
        ],
    );
    version(findings, root);
    let storage = root.get("storage");
    let mut texts = Vec::new();
    for file in storage.into_iter().flat_map(|s| s.list("files")) {
        known(
            findings,
            file,
            &[
                "path",
                "mode",
                "overwrite",
                "contents",
                "append",
                "user",
                "group",
            ],
        );
        let path = file.string("path").unwrap_or_default();
        place(findings, file, path);
        mode(findings, file);
        if file.string("overwrite") != Some("true") {
            findings.warning(
                &file.span,
                format!("{path}: overwrite is not true"),
                "a file that is there already makes the machine's boot fail",
            );
        }
        if let Some(text) = file
            .get("contents")
            .and_then(|c| contents(findings, c, path))
        {
            texts.extend(UnitText::of_path(path, &text, &file.span));
        }
    }
    for folder in storage.into_iter().flat_map(|s| s.list("directories")) {
        place(findings, folder, folder.string("path").unwrap_or_default());
        mode(findings, folder);
    }
    for unit in root
        .get("systemd")
        .into_iter()
        .flat_map(|s| s.list("units"))
    {
        one_unit(findings, unit, &mut texts);
    }
    units::check(findings, &texts);
}

fn version(findings: &mut Findings, root: &Node) {
    let Some(version) = root.get("ignition").and_then(|i| i.string("version")) else {
        findings.error(&root.span, "ignition.version is missing", "");
        return;
    };
    match version {
        "3.0.0" | "3.1.0" | "3.2.0" | "3.3.0" => {}
        "3.4.0" | "3.5.0" | "3.6.0" => findings.warning(
            &root.span,
            format!("ignition.version {version} is not understood by older systems"),
            "3.3.0 is, by all that have had Ignition 2.11",
        ),
        _ => findings.error(
            &root.span,
            format!("ignition.version {version:?} is not one of 3.0.0 to 3.6.0"),
            "",
        ),
    }
}

fn known(findings: &mut Findings, node: &Node, keys: &[&str]) {
    for (key, _) in node.entries() {
        if !keys.contains(&key.text.as_str()) {
            let help = format!("known keys here: {}", keys.join(", "));
            findings.error(
                &key.span,
                format!("{}: unknown key, which Ignition passes over", key.text),
                &help,
            );
        }
    }
}

fn place(findings: &mut Findings, node: &Node, path: &str) {
    if let Some(folder) = ["/run/", "/tmp/", "/proc/", "/sys/", "/dev/"]
        .iter()
        .find(|folder| path.starts_with(*folder))
    {
        findings.error(
            &node.span,
            format!("{path}: {folder} is not the machine's own when Ignition runs"),
            "",
        );
    } else if path.starts_with("/usr/") {
        findings.warning(
            &node.span,
            format!("{path}: /usr is read-only on systems with Ignition"),
            "/opt and /etc are not",
        );
    } else if !path.starts_with('/') {
        findings.error(&node.span, format!("{path:?}: not an absolute path"), "");
    }
}

fn mode(findings: &mut Findings, node: &Node) {
    let Some(Kind::Scalar { text, plain }) = node.get("mode").map(|mode| &mode.kind) else {
        return;
    };
    let path = node.string("path").unwrap_or_default();
    let number = text.parse::<u32>().ok();
    if !plain || number.is_none_or(|n| n > 0o7777) {
        findings.error(
            &node.span,
            format!("{path}: the mode {text:?} is not a number up to 4095"),
            "modes are decimal numbers: 420 is 0644, 384 is 0600",
        );
    } else if OCTAL.contains(&text.as_str()) {
        let (typed, meant) = (number.unwrap_or_default(), u32::from_str_radix(text, 8));
        findings.error(
            &node.span,
            format!("{path}: the mode {text} is decimal, octal {typed:o}"),
            &format!("write {} for {text}", meant.unwrap_or_default()),
        );
    }
}

/// The text of a file, where it is in the document and is text.
fn contents(findings: &mut Findings, node: &Node, path: &str) -> Option<String> {
    known(
        findings,
        node,
        &["source", "compression", "verification", "httpHeaders"],
    );
    let source = node.string("source")?;
    let hash = node.get("verification").and_then(|v| v.string("hash"));
    let Some(url) = source.strip_prefix("data:") else {
        if hash.is_none() {
            findings.warning(
                &node.span,
                format!("{path}: is fetched without verification.hash"),
                "whoever controls the network or the server controls the machine",
            );
        }
        return None;
    };
    let Some(mut bytes) = data(url) else {
        findings.error(&node.span, format!("{path}: is not a data URL"), "");
        return None;
    };
    if node.string("compression") == Some("gzip") {
        let Some(plain) = super::gunzip(&bytes) else {
            findings.error(&node.span, format!("{path}: is not in gzip"), "");
            return None;
        };
        bytes = plain;
    }
    let (is, algorithm) = match hash.map(|hash| (hash, hash.split_once('-'))) {
        None => return String::from_utf8(bytes).ok(),
        Some((_, Some(("sha256", hex)))) => (to_hex(&Sha256::digest(&bytes)) == hex, "sha256"),
        Some((_, Some(("sha512", hex)))) => (to_hex(&Sha512::digest(&bytes)) == hex, "sha512"),
        Some(_) => (false, "hash"),
    };
    if !is {
        findings.error(
            &node.span,
            format!("{path}: its {algorithm} is another than verification.hash"),
            "write sha256-HEX or sha512-HEX of the uncompressed bytes",
        );
    }
    String::from_utf8(bytes).ok()
}

/// The bytes of what follows `data:`.
pub fn data(url: &str) -> Option<Vec<u8>> {
    let (header, body) = url.split_once(',')?;
    if header.ends_with(";base64") {
        return STANDARD.decode(body).ok();
    }
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(bytes)
}

fn one_unit(findings: &mut Findings, unit: &Node, texts: &mut Vec<UnitText>) {
    known(
        findings,
        unit,
        &["name", "enabled", "mask", "contents", "dropins"],
    );
    let name = unit.string("name").unwrap_or_default();
    if [".network", ".netdev", ".link"]
        .iter()
        .any(|kind| name.ends_with(kind))
    {
        findings.error(
            &unit.span,
            format!("{name}: is no unit of systemd's"),
            "make it a file in /etc/systemd/network",
        );
    }
    let text = |node: &Node, text: &str, drop_in| UnitText {
        unit: name.to_owned(),
        drop_in,
        text: text.to_owned(),
        at: node.span.clone(),
    };
    if let Some(contents) = unit.string("contents") {
        let own = text(unit, contents, false);
        if unit.string("enabled") == Some("true") && !own.can_be_enabled() {
            super::cannot_be_enabled(findings, &unit.span, name);
        }
        texts.push(own);
    }
    for drop_in in unit.list("dropins") {
        known(findings, drop_in, &["name", "contents"]);
        texts.extend(drop_in.string("contents").map(|c| text(drop_in, c, true)));
    }
}
