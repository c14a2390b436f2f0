//! How two documents differ in what they bring, with nothing secret in it.

use std::collections::BTreeSet;

use crate::landing::Landing;
use crate::system::Owner;

/// Lines around a difference that are shown too.
const CONTEXT: usize = 2;
/// Longer texts are not compared line by line.
const LINES: usize = 2000;

/// The differences between what is there and what would be, as text; empty if
/// there are none. The contents of `secrets`, by path, are not shown.
pub fn between(old: &Landing, new: &Landing, secrets: &BTreeSet<String>) -> String {
    let (before, after) = (old, new);
    let mut text = String::new();
    let mut tell = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if old.hostname != new.hostname {
        tell(format!("host name: {} → {}", old.hostname, new.hostname));
    }
    for unit in old.enabled.difference(&new.enabled) {
        tell(format!("{unit}: no longer enabled"));
    }
    for unit in new.enabled.difference(&old.enabled) {
        tell(format!("{unit}: enabled"));
    }
    let accounts: BTreeSet<&String> = old.keys.keys().chain(new.keys.keys()).collect();
    for account in accounts {
        let of = |landing: &Landing| landing.keys.get(account).cloned().unwrap_or_default();
        let (was, is) = (of(old), of(new));
        let shown = if account.is_empty() {
            "the image's account"
        } else {
            account
        };
        for key in was.iter().filter(|key| !is.contains(key)) {
            tell(format!("ssh: a key of {shown} removed: {}", comment(key)));
        }
        for key in is.iter().filter(|key| !was.contains(key)) {
            tell(format!("ssh: a key of {shown} added: {}", comment(key)));
        }
    }
    for package in old.packages.iter().filter(|p| !new.packages.contains(p)) {
        tell(format!("package {package}: no longer installed"));
    }
    for package in new.packages.iter().filter(|p| !old.packages.contains(p)) {
        tell(format!("package {package}: installed"));
    }
    let paths: BTreeSet<&String> = old.files.keys().chain(new.files.keys()).collect();
    for path in paths {
        let hidden = |mode: u32, bytes: &[u8]| {
            secrets.contains(path) || looks_secret(mode, bytes) && !new.files.contains_key(path)
        };
        match (old.files.get(path), new.files.get(path)) {
            (Some((mode, bytes)), None) => {
                let secret = if hidden(*mode, bytes) { "secret " } else { "" };
                tell(format!("{path}: {secret}removed ({} bytes)", bytes.len()));
            }
            (None, Some((mode, bytes))) => {
                tell(format!("{path}: added ({mode:04o}, {} bytes)", bytes.len()));
            }
            (Some((was, old)), Some((is, new))) => {
                if was != is {
                    tell(format!("{path}: mode {was:04o} → {is:04o}"));
                }
                let owner = |landing: &Landing| match landing.owners.get(path) {
                    Some(owner) => owner.clone(),
                    None => Owner::ROOT.to_owned(),
                };
                let (owned, owns) = (owner(before), owner(after));
                if owned != owns {
                    tell(format!("{path}: owner {owned} → {owns}"));
                }
                let lines = if old == new {
                    String::new()
                } else if hidden(*is, new) || looks_secret(0, old) {
                    format!(
                        "{path}: secret changed ({} → {} bytes)",
                        old.len(),
                        new.len()
                    )
                } else {
                    contents(path, old, new)
                };
                if !lines.is_empty() {
                    tell(lines);
                }
            }
            (None, None) => {}
        }
    }
    text
}

/// What a key says of itself: its type and comment.
fn comment(key: &str) -> String {
    let mut words: Vec<&str> = key.split_whitespace().collect();
    if words.len() > 1 {
        words.remove(1);
    }
    words.join(" ")
}

/// Whether a file of which nothing is known is not to be shown.
fn looks_secret(mode: u32, bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    mode & 0o077 == 0 && mode != 0
        || text.contains("PRIVATE KEY")
        || text.contains("client-key-data")
}

fn contents(path: &str, old: &[u8], new: &[u8]) -> String {
    let (Ok(old), Ok(new)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return format!("{path}: changed ({} → {} bytes)", old.len(), new.len());
    };
    if new.starts_with("-----BEGIN CERTIFICATE") {
        return format!("{path}: another certificate");
    }
    let (old, new) = (without_manifest(path, old), without_manifest(path, new));
    if old == new {
        return String::new();
    }
    if old.len().max(new.len()) > LINES {
        return format!("{path}: changed ({} → {} lines)", old.len(), new.len());
    }
    format!("{path}:\n{}", lines(&old, &new))
}

/// node.yaml without the checksums of the other files, which are compared
/// themselves.
fn without_manifest<'t>(path: &str, text: &'t str) -> Vec<&'t str> {
    let mut within = false;
    let is_node = path == units::paths::NODE_CONFIG;
    text.lines()
        .filter(|line| {
            if !line.starts_with([' ', '-']) {
                within = is_node && line.starts_with("manifest:");
            }
            !within
        })
        .collect()
}

/// The lines that differ, with those around them.
fn lines(old: &[&str], new: &[&str]) -> String {
    let script = script(old, new);
    let near = |i: usize| {
        let around = i.saturating_sub(CONTEXT)..(i + CONTEXT + 1).min(script.len());
        script[around].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut skipped = false;
    for (i, (mark, line)) in script.iter().enumerate() {
        if !near(i) {
            skipped = true;
            continue;
        }
        if skipped && !text.is_empty() {
            text.push_str("  ⋮\n");
        }
        skipped = false;
        text.push_str(&format!("{mark} {line}\n"));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Every line of both: kept, taken away (`-`) or added (`+`), by the longest
/// common subsequence.
fn script<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(char, &'t str)> {
    let (n, m) = (old.len(), new.len());
    let mut longest = vec![vec![0_u32; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            longest[i][j] = if old[i] == new[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut script = Vec::with_capacity(n + m);
    while i < n || j < m {
        if i < n && j < m && old[i] == new[j] {
            script.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == m || (i < n && longest[i + 1][j] >= longest[i][j + 1]) {
            script.push(('-', old[i]));
            i += 1;
        } else {
            script.push(('+', new[j]));
            j += 1;
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_shown_with_those_around_them() {
        let old: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        let mut new = old.clone();
        new[1] = "x".to_owned();
        new.remove(10);
        let old: Vec<&str> = old.iter().map(String::as_str).collect();
        let new: Vec<&str> = new.iter().map(String::as_str).collect();
        let text = lines(&old, &new);
        assert_eq!(text, "  0\n- 1\n+ x\n  2\n  3\n  ⋮\n  8\n  9\n- 10\n  11");
    }

    #[test]
    fn the_manifest_is_left_out_of_node_yaml_alone() {
        let text = "a: 1\nmanifest:\n- path: x\n  mode: y\nb: 2\n";
        let path = units::paths::NODE_CONFIG;
        assert_eq!(without_manifest(path, text), ["a: 1", "b: 2"]);
        assert_eq!(without_manifest("/a", text).len(), 5);
    }
}
