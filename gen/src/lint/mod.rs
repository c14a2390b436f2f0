//! A second look: what a plan's or a document's reader would misunderstand
//! without a word.
//!
//! [`plan`] and [`ours`] look at everything that is rendered, [`document`] at
//! any document, thoroughly.

pub(crate) mod cloud_config;
mod document;
pub(crate) mod ignition;
mod units;

use std::io::Read as _;
use std::ops::Range;

use flate2::read::GzDecoder;

use crate::dialect::IGNITION_VERSION;
use crate::format::Format;
use crate::plan::{Content, NodePlan};
use crate::report::{Finding, Report};

use document::Findings;
pub use document::{document, language};

/// What nobody unpacks.
const LARGEST: u64 = 64 << 20;
/// cloud-init looks for MIME in this many bytes at the beginning.
const MIME_WINDOW: usize = 4096;

/// Everything in a plan that no reader would do as meant.
pub fn plan(plan: &NodePlan) -> Result<(), Report> {
    let mut report = Report::default();
    for file in &plan.files {
        let path = &file.path;
        if !path.starts_with('/') || path.contains("/../") {
            report.add(Finding::new(format!("{path}: not an absolute path")));
        }
        if ["/tmp/", "/run/", "/proc/", "/sys/", "/dev/"]
            .iter()
            .any(|volatile| path.starts_with(volatile))
        {
            report.add(Finding::new(format!(
                "{path}: would be gone after a reboot"
            )));
        }
        if matches!(file.content, Content::Secret(_)) && file.mode.bits() & 0o077 != 0 {
            report.add(Finding::new(format!(
                "{path}: a secret with mode {}",
                file.mode
            )));
        }
        if path.ends_with(&format!("/{}", plan.target)) && !has_install_section(&file.content) {
            report.add(Finding::new(format!(
                "{path}: enabled, but has no [Install]"
            )));
        }
    }
    report.into_result()
}

/// Everything in a document that its reader would take for something else.
pub fn ours(text: &str, format: Format) -> Result<(), Report> {
    let mut report = Report::default();
    let mut find = |message: &str| report.add(Finding::new(format!("user-data: {message}")));
    if format == Format::Ignition {
        let beginning = format!("{{\"ignition\":{{\"version\":\"{IGNITION_VERSION}\"}}");
        if !text.starts_with(&beginning) {
            find("the version of Ignition's language does not come first");
        }
        return report.into_result();
    }
    if !text.starts_with("#cloud-config\n") {
        find("the first line is not #cloud-config, so it would be ignored");
    }
    let beginning = &text.as_bytes()[..text.len().min(MIME_WINDOW)];
    if contains_ignoring_case(beginning, b"mime-version:") {
        find("\"mime-version:\" near the beginning makes it a MIME message");
    }
    let known: &[&str] = match format {
        Format::Coreos => &[
            "hostname",
            "write_files",
            "coreos",
            "ssh_authorized_keys",
            "users",
        ],
        Format::CloudInit | Format::Ignition => &[
            "hostname",
            "preserve_hostname",
            "write_files",
            "runcmd",
            "ssh_authorized_keys",
            "users",
            "packages",
            "package_update",
        ],
    };
    for line in text.lines().skip(1) {
        let Some((key, _)) = line.split_once(':') else {
            continue;
        };
        let is_key = key.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_key && !known.contains(&key) {
            find(&format!("{key} is not a key of {format}"));
        }
    }
    if format == Format::Coreos {
        if ["$private_ipv", "$public_ipv"]
            .iter()
            .any(|t| text.contains(t))
        {
            find("$private_ipv4 and its like would be replaced by an address");
        }
        if text.lines().any(is_hyphenated) {
            find("hyphenated keys are dropped by coreos-cloudinit");
        }
    }
    report.into_result()
}

/// Whether bytes begin as gzip does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Unpacks gzip, up to a size that no machine would be sent.
pub fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut reader = GzDecoder::new(bytes).take(LARGEST);
    reader.read_to_end(&mut plain).ok()?;
    (plain.len() as u64 != LARGEST).then_some(plain)
}

/// A unit that would be enabled without effect.
fn cannot_be_enabled(findings: &mut Findings, at: &Range<usize>, name: &str) {
    findings.error(
        at,
        format!("{name}: is enabled, but has no [Install]"),
        "say in [Install] what wants it, as in WantedBy=multi-user.target",
    );
}

/// The keys that were hyphenated once.
fn is_hyphenated(line: &str) -> bool {
    // Structure is indented by two at most; deeper lines are files' contents.
    let key = line.trim_start_matches([' ', '-']);
    line.len() - key.len() <= 4
        && [
            "drop-ins:",
            "write-files:",
            "ssh-authorized-keys:",
            "reboot-strategy:",
        ]
        .iter()
        .any(|hyphenated| key.starts_with(hyphenated))
}

fn has_install_section(content: &Content) -> bool {
    std::str::from_utf8(content.bytes())
        .is_ok_and(|text| text.lines().any(|line| line == "[Install]"))
}

fn contains_ignoring_case(bytes: &[u8], needle: &[u8]) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window.eq_ignore_ascii_case(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_would_be_misread_are_refused() {
        let good = "#cloud-config\nhostname: a\nwrite_files:\n- path: /a\n  content: |\n    b: c\n";
        for format in [Format::Coreos, Format::CloudInit] {
            ours(good, format).unwrap();
        }
        for (text, why) in [
            ("hostname: a\n", "first line"),
            ("#cloud-config\nhostname: a\nMIME-Version: 1\n", "MIME"),
            (
                "#cloud-config\nwrite-files: []\n",
                "write-files is not a key",
            ),
            (
                "#cloud-config\ncoreos:\n  units:\n  - drop-ins: []\n",
                "hyphenated",
            ),
            ("#cloud-config\nhostname: $private_ipv4\n", "replaced"),
        ] {
            let error = ours(text, Format::Coreos).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(ours("#cloud-config\ncoreos: {}\n", Format::CloudInit).is_err());
    }
}
