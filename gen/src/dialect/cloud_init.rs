//! cloud-init, that of Debian, Ubuntu and most others.
//!
//! Its schema is strict since 23.4, so there is nothing in a document that it
//! does not know. Files come early in the boot; the target is started in the
//! last stage without waiting, since that stage is part of the boot itself.

use anyhow::Result;
use serde::Serialize;

use super::encode::encode;
use super::{Document, yaml};
use crate::plan::{NodePlan, PlannedFile};

#[derive(Serialize)]
struct CloudConfig<'p> {
    hostname: &'p str,
    preserve_hostname: bool,
    // Before the files: an upload that was cut on its way still starts knode,
    // which says what is missing (F30).
    runcmd: Vec<Vec<&'p str>>,
    write_files: Vec<File<'p>>,
}

/// A file, as the document names it.
#[derive(Serialize)]
pub struct File<'p> {
    path: &'p str,
    permissions: String,
    owner: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    content: String,
}

/// Writes the document.
pub fn render(plan: &NodePlan) -> Result<Document> {
    yaml(&CloudConfig {
        hostname: plan.hostname.as_str(),
        preserve_hostname: false,
        runcmd: vec![
            vec!["systemctl", "daemon-reload"],
            vec!["systemctl", "enable", "--now", "--no-block", plan.target],
        ],
        write_files: plan.files.iter().map(file).collect::<Result<_>>()?,
    })
}

/// A file in this language.
pub fn file(file: &PlannedFile) -> Result<File<'_>> {
    let encoded = encode(file.content.bytes(), |_| false)?;
    Ok(File {
        path: &file.path,
        permissions: file.mode.to_string(),
        owner: "root:root",
        encoding: encoded.encoding,
        content: encoded.text,
    })
}
