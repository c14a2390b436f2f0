//! User-data as text that gets damaged on its way, as uploads do.

use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::json;

/// A document of kgen's.
#[derive(Debug, Clone)]
pub struct Document(String);

/// One file of a document.
#[derive(Debug, Deserialize)]
struct Entry {
    permissions: String,
    encoding: Option<String>,
    content: String,
}

impl Document {
    /// A document as kgen printed it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The content of a file.
    pub fn content(&self, path: &str) -> Result<String> {
        let entry = self.entry(path)?;
        let packed = || {
            STANDARD
                .decode(&entry.content)
                .with_context(|| format!("{path} is not base64"))
        };
        let bytes = match entry.encoding.as_deref() {
            None => entry.content.into_bytes(),
            Some("b64") => packed()?,
            Some("gz+b64") => {
                let mut bytes = Vec::new();
                GzDecoder::new(&packed()?[..])
                    .read_to_end(&mut bytes)
                    .with_context(|| format!("{path} is not gzip"))?;
                bytes
            }
            Some(other) => bail!("{path} has the encoding {other}"),
        };
        String::from_utf8(bytes).with_context(|| format!("{path} is not text"))
    }

    /// All files as a tar archive with their modes, in the order of `paths`.
    pub fn archive(&self, paths: &[&str]) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for path in paths {
            let content = self.content(path)?;
            let mode = u32::from_str_radix(&self.entry(path)?.permissions, 8);
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(content.len())?);
            header.set_mode(mode.with_context(|| format!("the mode of {path}"))?);
            archive.append_data(
                &mut header,
                path.trim_start_matches('/'),
                content.as_bytes(),
            )?;
        }
        Ok(archive.into_inner()?)
    }

    /// Gives a file another content.
    pub fn replace(&mut self, path: &str, content: &str) -> Result<()> {
        let permissions = self.entry(path)?.permissions;
        let entry = json!({
            "path": path,
            "permissions": permissions,
            "owner": "root:root",
            "content": content,
        });
        let place = self.place(path)?;
        // JSON is YAML.
        self.0.replace_range(place, &format!("- {entry}\n"));
        Ok(())
    }

    fn entry(&self, path: &str) -> Result<Entry> {
        let text = &self.0[self.place(path)?];
        let mut entries: Vec<Entry> =
            serde_yaml::from_str(text).with_context(|| format!("reading the entry of {path}"))?;
        entries.pop().with_context(|| format!("no entry of {path}"))
    }

    /// Where the entry of a file is in the text.
    fn place(&self, path: &str) -> Result<Range<usize>> {
        let first = format!("\n- path: {path}\n");
        let start = self.0.find(&first);
        let start = start.with_context(|| format!("the document has no {path}"))? + 1;
        let mut end = start + first.len() - 1;
        for line in self.0[end..].split_inclusive('\n') {
            if !line.starts_with("  ") {
                break;
            }
            end += line.len();
        }
        ensure!(end > start, "an empty entry");
        Ok(start..end)
    }
}
