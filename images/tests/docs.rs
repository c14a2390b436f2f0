//! docs/images.md is true: its commands are understood, its codes are all there are.

use std::collections::BTreeSet;
use std::fs;

use clap::Parser;
use images::cli::Cli;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images.md");
    fs::read_to_string(path).expect("docs/images.md")
}

#[test]
fn commands_are_understood() {
    let page = page();
    let mut found = 0;
    for line in page.lines() {
        let typed = line.split(" #").next().unwrap_or(line).trim();
        let words = typed
            .strip_prefix("kimage ")
            .or_else(|| typed.strip_prefix("cargo run --package images -- "));
        let Some(words) = words else { continue };
        let words = ["kimage"].into_iter().chain(words.split_whitespace());
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{line}: {error}");
        }
        found += 1;
    }
    assert!(found >= 6, "only {found} commands");
}

/// What looks like a code.
fn codes(text: &str) -> BTreeSet<String> {
    let parts = text.split("E-IMAGE-").skip(1);
    parts
        .map(|rest| rest.split(|it: char| !it.is_ascii_uppercase()).next())
        .map(|name| name.unwrap_or_default().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn every_code_is_in_the_table() {
    let errors = include_str!("../src/error.rs");
    let init = include_str!("../files/init");
    let all: BTreeSet<_> = codes(errors).into_iter().chain(codes(init)).collect();
    let page = page();
    let rows: String = page
        .lines()
        .filter(|line| line.starts_with("| `E-"))
        .collect();
    assert_eq!(codes(&rows), all);
}
