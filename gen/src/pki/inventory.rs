//! What is in `pki/`, as certificates and tokens themselves say; keys are not
//! read, and of tokens the secret part goes no further.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::X509Certificate;
use zeroize::Zeroizing;

use super::certificate;
use super::profile::AltName;
use super::token::Life;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A certificate.
    Certificate,
    /// A bootstrap token.
    Token,
}

/// A certificate or token in the folder.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// What it is.
    pub kind: Kind,
    /// Its file within the folder without the ending: `nodes/master/apiserver`.
    pub name: String,
    /// The file.
    pub file: String,
    /// Whom it is for.
    pub subject: String,
    /// Who signed it; nobody signs tokens.
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
    /// Of a token: whether the next render makes a new one.
    #[serde(skip)]
    due: bool,
}

impl Listed {
    /// Whether it has expired, or will within some days. Tokens live for hours:
    /// one does when the next render makes another.
    pub fn expires_within(&self, days: u32) -> bool {
        match self.kind {
            Kind::Certificate => self.left <= Duration::days(days.into()),
            Kind::Token => self.due,
        }
    }

    /// The day on which it expires.
    pub fn expires(&self) -> &str {
        self.not_after.split('T').next().unwrap_or_default()
    }
}

/// Every certificate and token in `pki/` beside the settings, by name:
/// authorities first, tokens last.
pub fn inventory(workspace: &Path, now: OffsetDateTime) -> Result<Vec<Listed>> {
    let pki = workspace.join("pki");
    let pki = pki.strip_prefix(".").unwrap_or(&pki);
    let mut files = Vec::new();
    collect(pki, "", &mut files)?;
    let mut all = Vec::new();
    for (kind, stem, ending) in files {
        let path = pki.join(format!("{stem}{ending}"));
        let read = || -> Result<Listed> {
            let text = Zeroizing::new(fs::read_to_string(&path)?);
            if kind == Kind::Token {
                return token(&Life::read(&text)?, &stem, &path, now);
            }
            let der = certificate::der(&text)?;
            listed(&certificate::parse(&der)?, &stem, &path, now)
        };
        all.push(read().with_context(|| format!("reading {}", path.display()))?);
    }
    let key = |l: &Listed| (l.kind == Kind::Token, !l.authority, l.name.clone());
    all.sort_by_key(key);
    Ok(all)
}

type Found = (Kind, String, &'static str);

fn collect(folder: &Path, prefix: &str, files: &mut Vec<Found>) -> Result<()> {
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
            collect(&path, &format!("{prefix}{name}/"), files)?;
            continue;
        }
        for (kind, ending) in [(Kind::Certificate, ".crt"), (Kind::Token, ".token")] {
            if let Some(stem) = name.strip_suffix(ending) {
                files.push((kind, format!("{prefix}{stem}"), ending));
            }
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
        kind: Kind::Certificate,
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
        due: false,
    })
}

fn token(life: &Life, stem: &str, path: &Path, now: OffsetDateTime) -> Result<Listed> {
    Ok(Listed {
        kind: Kind::Token,
        name: stem.to_owned(),
        file: path.display().to_string(),
        subject: life.user(),
        issuer: String::new(),
        authority: false,
        not_before: life.created.format(&Rfc3339)?,
        not_after: life.expires.format(&Rfc3339)?,
        days_left: (life.expires - now).whole_seconds().div_euclid(86_400),
        names: Vec::new(),
        left: life.expires - now,
        due: life.is_due(now),
    })
}

fn shown(name: &AltName) -> String {
    match name {
        AltName::Dns(name) => name.clone(),
        AltName::Address(address) => address.to_string(),
    }
}
