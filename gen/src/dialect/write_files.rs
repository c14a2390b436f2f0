//! `write_files`, which both YAML languages have alike: the last part of a
//! document, written file by file.

use anyhow::Result;
use serde::Serialize;
use zeroize::Zeroizing;

use super::encode::encode;
use super::{Document, body, memo};
use crate::format::Format;
use crate::plan::PlannedFile;

/// What gzip begins with, in base64.
const GZIP: &str = "H4sI";

/// A file, as the document names it.
#[derive(Serialize)]
struct File<'p> {
    path: &'p str,
    permissions: String,
    owner: String,
    // Written in the last stage, before the target is started, when accounts
    // are there that packages or the document make.
    #[serde(skip_serializing_if = "Option::is_none")]
    defer: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'p str>,
}

/// The document that begins with `head` and brings `files`.
pub fn append<'p>(
    head: &str,
    files: impl Iterator<Item = &'p PlannedFile>,
    format: Format,
) -> Result<Document> {
    let entries: Vec<Zeroizing<String>> = files
        .map(|file| entry(file, format))
        .collect::<Result<_>>()?;
    const KEY: &str = "write_files:\n";
    let size: usize = entries.iter().map(|entry| entry.len()).sum();
    // Made in one piece: what grows leaves copies of keys behind.
    let mut document = Document::new(String::with_capacity(head.len() + KEY.len() + size));
    document.push_str(head);
    document.push_str(KEY);
    for entry in &entries {
        document.push_str(entry);
    }
    Ok(document)
}

/// One item of the list.
pub fn entry(file: &PlannedFile, format: Format) -> Result<Zeroizing<String>> {
    memo::text(file, format, |file| {
        let encoded = encode(file.content.bytes(), |text| is_replaced(text, format))?;
        // What begins as gzip does is a plain scalar in every YAML; looking at each
        // of its characters would be most of the work.
        let packed = encoded.text.starts_with(GZIP);
        let mut entry = body(&[File {
            path: &file.path,
            permissions: file.mode.to_string(),
            owner: file.owned_by(),
            defer: (format == Format::CloudInit && is_late(file)).then_some(true),
            encoding: encoded.encoding,
            content: (!packed).then_some(&encoded.text),
        }])?;
        if packed {
            entry = [&entry, "  content: ", &encoded.text, "\n"].concat();
        }
        Ok(entry)
    })
    .map(Zeroizing::new)
}

/// Whether coreos-cloudinit would put the machine's addresses into a text: it
/// does so anywhere in the document, even within a longer word.
fn is_replaced(text: &str, format: Format) -> bool {
    format == Format::Coreos
        && ["$private_ipv", "$public_ipv"]
            .iter()
            .any(|token| text.contains(token))
}

/// Whether the owner is named, and so perhaps not there from the beginning.
fn is_late(file: &PlannedFile) -> bool {
    let mut names = file.owner.iter().flat_map(|owner| owner.names());
    names.any(|name| name != "root")
}
