//! What has to hold for any bytes at all. The fuzz targets run these for ever, and
//! gen/tests/fuzz_seeds.rs runs them on the seeds at every test.

use std::sync::Arc;

use kgen::artifacts::Lock;
use kgen::cluster::Cluster;
use kgen::format::Format;
use kgen::landing::Landing;
use kgen::lint;
use kgen::report::{Report, Source};
use kgen::settings;

/// The text, where it is one; files that are not are refused before they are read.
fn source(bytes: &[u8]) -> Option<Arc<Source>> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(Source::new("input", text))
}

/// Findings can be shown, on a terminal and elsewhere.
fn shown(report: &Report) {
    assert!(!report.is_empty(), "refused without a word");
    for colour in [true, false] {
        assert!(report.render(colour).contains("finding"));
    }
}

/// Settings are a cluster, or there are findings.
pub fn settings(bytes: &[u8]) {
    let Some(source) = source(bytes) else { return };
    match settings::load(&source) {
        Ok(checked) => {
            let cluster = Cluster::new(&checked);
            assert!(!cluster.machines.is_empty());
            assert!(format!("{cluster:?}").len() > 1);
        }
        Err(report) => shown(&report),
    }
}

/// A lock is read, or there are findings.
pub fn lock(bytes: &[u8]) {
    let Some(source) = source(bytes) else { return };
    if let Err(report) = Lock::load(&source) {
        shown(&report);
    }
}

/// Every language's linter has an answer, and a document that nobody finds
/// anything in can be read back.
pub fn document(bytes: &[u8]) {
    if lint::is_gzip(bytes) {
        lint::gunzip(bytes);
    }
    let Some(source) = source(bytes) else { return };
    for format in Format::ALL {
        let report = lint::document(&source, format);
        assert_eq!(report.is_empty(), report.render(false).is_empty());
    }
    lint::language(source.text());
    if let Err(report) = Landing::read(&source) {
        shown(&report);
    }
}
