//! What is in `pki/`, as the certificates themselves say; keys are not read.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::X509Certificate;

use super::certificate;
use super::profile::AltName;

/// A certificate in the folder.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its file within the folder without the ending: `nodes/master/apiserver`.
    pub name: String,
    /// The file.
    pub file: String,
    /// Whom it is for.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Whether it is an authority's.
    pub authority: bool,
    /// From when it holds, RFC 3339.
    pub not_before: String,
    /// Until when it holds, RFC 3339.
    pub not_after: String,
    /// Whole days until then; negative once it is over.
    pub days_left: i64,
    /// The names and addresses that it answers to.
    pub names: Vec<String>,
    #[serde(skip)]
    left: Duration,
}

impl Listed {
    /// Whether it has expired, or will within some days.
    pub fn expires_within(&self, days: u32) -> bool {
        self.left <= Duration::days(days.into())
    }

    /// The day on which it expires.
    pub fn expires(&self) -> &str {
        self.not_after.split('T').next().unwrap_or_default()
    }
}

/// Every certificate in `pki/` beside the settings, by name: authorities
/// first.
pub fn inventory(workspace: &Path, now: OffsetDateTime) -> Result<Vec<Listed>> {
    let pki = workspace.join("pki");
    let pki = pki.strip_prefix(".").unwrap_or(&pki);
    let mut stems = Vec::new();
    collect(pki, "", &mut stems)?;
    let mut all = Vec::new();
    for stem in stems {
        let path = pki.join(format!("{stem}.crt"));
        let read = || -> Result<Listed> {
            let text = fs::read_to_string(&path)?;
            let der = certificate::der(&text)?;
            listed(&certificate::parse(&der)?, &stem, &path, now)
        };
        all.push(read().with_context(|| format!("reading {}", path.display()))?);
    }
    all.sort_by(|a, b| (!a.authority, &a.name).cmp(&(!b.authority, &b.name)));
    Ok(all)
}

fn collect(folder: &Path, prefix: &str, stems: &mut Vec<String>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), stems)?;
        } else if let Some(stem) = name.strip_suffix(".crt") {
            stems.push(format!("{prefix}{stem}"));
        }
    }
    Ok(())
}

fn listed(
    certificate: &X509Certificate<'_>,
    stem: &str,
    path: &Path,
    now: OffsetDateTime,
) -> Result<Listed> {
    let validity = certificate.validity();
    let (begins, expires) = (validity.not_before, validity.not_after.to_datetime());
    let names = certificate::alt_names(certificate).unwrap_or_default();
    Ok(Listed {
        name: stem.to_owned(),
        file: path.display().to_string(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        authority: certificate.is_ca(),
        not_before: begins.to_datetime().format(&Rfc3339)?,
        not_after: expires.format(&Rfc3339)?,
        days_left: (expires - now).whole_seconds().div_euclid(86_400),
        names: names.iter().map(shown).collect(),
        left: expires - now,
    })
}

fn shown(name: &AltName) -> String {
    match name {
        AltName::Dns(name) => name.clone(),
        AltName::Address(address) => address.to_string(),
    }
}
