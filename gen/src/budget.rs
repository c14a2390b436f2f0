//! Whether a document gets through to its machine, and what to do if not.

use std::fmt::Write as _;

use anyhow::Result;
use zeroize::Zeroizing;

use crate::dialect::{self, Document};
use crate::format::Format;
use crate::plan::NodePlan;
use crate::platform::{Basis, Platform};
use crate::report::{Finding, Report};

/// So many of the largest parts of a document are told.
const PARTS: usize = 8;

/// In which form a document is sent, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The language.
    pub format: Format,
    /// What hands it to the machine.
    pub platform: Platform,
    /// Whether the whole of it is compressed.
    pub gzip: bool,
}

impl Target {
    /// Whether this language and platform take a compressed document.
    pub fn check(self) -> Result<Self, Report> {
        let mut report = Report::default();
        if self.gzip && self.format == Format::Ignition {
            let finding = Finding::new("gzip: Ignition takes no compressed documents")
                .help("what is in the document is compressed already");
            report.add(finding);
        }
        if self.gzip && !self.platform.takes_gzip() {
            let message = format!("gzip: {} takes plain text only", self.platform);
            report.add(Finding::new(message));
        }
        report.into_result()?;
        Ok(self)
    }

    /// The same with the whole document compressed, where that is possible.
    fn compressed(self) -> Option<Self> {
        let target = Self { gzip: true, ..self };
        (!self.gzip && target.check().is_ok()).then_some(target)
    }
}

/// How large a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its bytes.
    pub plain: usize,
    /// Its bytes in gzip.
    pub gzipped: usize,
}

impl Size {
    /// The size of a document.
    pub fn of(document: &str) -> Result<Self> {
        Ok(Self {
            plain: document.len(),
            gzipped: dialect::gzip(document.as_bytes())?.len(),
        })
    }

    /// What a target counts of its limit: how much, and of how much; none
    /// where nothing is counted.
    pub fn counted(self, target: Target) -> Option<(usize, usize)> {
        let limit = target.platform.limit()?;
        let sent = if target.gzip {
            self.gzipped
        } else {
            self.plain
        };
        Some((limit.basis.count(sent, self.gzipped), limit.bytes))
    }

    /// Whether the target takes it.
    pub fn fits(self, target: Target) -> bool {
        self.counted(target)
            .is_none_or(|(counted, limit)| counted <= limit)
    }

    /// How it can be made to fit: as it is, or compressed.
    pub fn fitting(self, target: Target) -> Option<Target> {
        [Some(target), target.compressed()]
            .into_iter()
            .flatten()
            .find(|target| self.fits(*target))
    }
}

/// The bytes that are sent; a finding with every large part where the target
/// does not take them.
pub fn sent(plan: &NodePlan, document: &Document, target: Target) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = if target.gzip {
        dialect::gzip(document.as_bytes())?
    } else {
        document.as_bytes().to_vec()
    };
    let bytes = Zeroizing::new(bytes);
    if target.platform.limit().is_some() {
        let size = Size::of(document)?;
        if !size.fits(target) {
            return Err(Report::from(too_large(plan, size, target)?).into());
        }
    }
    Ok(bytes)
}

fn too_large(plan: &NodePlan, size: Size, target: Target) -> Result<Finding> {
    let (counted, limit) = size.counted(target).unwrap_or_default();
    let basis = target.platform.limit().map_or(Basis::Raw, |l| l.basis);
    let of_raw = match basis {
        Basis::Raw => String::new(),
        basis => format!(" in {}", basis.as_str()),
    };
    let mut help = "its largest parts are\n".to_owned();
    for (bytes, path) in parts(plan, target.format)? {
        writeln!(help, "{:>9}  {path}", grouped(bytes))?;
    }
    help.push_str(&advice(size, target));
    Ok(Finding::new(format!(
        "user-data of {}: {} bytes{of_raw} is more than the {} that {} takes",
        plan.name,
        grouped(counted),
        grouped(limit),
        target.platform
    ))
    .help(help))
}

/// The largest parts of a document, and how many bytes each takes in it.
fn parts(plan: &NodePlan, format: Format) -> Result<Vec<(usize, &str)>> {
    let mut parts = Vec::new();
    for file in &plan.files {
        parts.push((dialect::cost(file, format)?, file.path.as_str()));
    }
    parts.sort_by(|a, b| b.cmp(a));
    parts.truncate(PARTS);
    Ok(parts)
}

fn advice(size: Size, target: Target) -> String {
    if target.compressed().and_then(|t| size.fitting(t)).is_some() {
        return format!(
            "with --gzip, or gzip: true in cluster.yaml, it is {} bytes and fits",
            grouped(size.gzipped)
        );
    }
    let mut advice = String::new();
    if target.compressed().is_some() {
        advice = format!("with --gzip it would be {} bytes, ", grouped(size.gzipped));
        advice.push_str("which is still too much; ");
    }
    advice.push_str(match target.format {
        Format::CloudInit => {
            "serve the document over HTTPS to this machine alone and send \
             \"#include https://…\" instead"
        }
        Format::Coreos => {
            "serve the document over HTTPS to this machine alone and name it on the kernel's \
             command line: cloud-config-url=https://…"
        }
        Format::Ignition => {
            "serve the document over HTTPS to this machine alone and send one that says \
             ignition.config.replace with its source and hash instead"
        }
    });
    advice
}

/// A number with a comma at every thousand.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (262_144, "262,144"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn compression_is_taken_only_where_it_is_possible() {
        let size = Size {
            plain: 20_000,
            gzipped: 10_000,
        };
        let target = |format, platform| Target {
            format,
            platform,
            gzip: false,
        };
        let fitting = |format, platform| size.fitting(target(format, platform)).map(|t| t.gzip);
        assert_eq!(fitting(Format::Coreos, Platform::Aws), Some(true));
        assert_eq!(fitting(Format::Ignition, Platform::Aws), None);
        assert_eq!(fitting(Format::Coreos, Platform::Azure), Some(false));
        assert_eq!(fitting(Format::Ignition, Platform::Generic), Some(false));
        let large = Size {
            plain: 70_000,
            gzipped: 40_000,
        };
        let digitalocean = target(Format::CloudInit, Platform::Digitalocean);
        assert_eq!(large.fitting(digitalocean), None);
    }
}
