//! The fuzz targets' seeds, and every input that once broke something: what the
//! fuzzers demand of any bytes holds for them on a stable compiler too.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::fs;
use std::path::Path;

fn each(kind: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(kind);
    let mut seeds = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        check(&bytes);
        // Cut anywhere, as uploads are.
        for end in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            check(&bytes[..end]);
        }
        seeds += 1;
    }
    assert!(seeds > 2, "{kind} has {seeds} seeds");
}

#[test]
fn settings() {
    each("settings", checks::settings);
}

#[test]
fn documents() {
    each("document", checks::document);
}

#[test]
fn locks() {
    each("lock", checks::lock);
}
