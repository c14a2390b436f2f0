//! Files with checksums, as sha256sum and its like write them.
//! Source: GNU coreutils manual, "md5sum invocation".

use std::fmt;

use units::types::Digest;

/// How a checksum is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// That of a checksum.
    pub fn of(digest: &Digest) -> Self {
        match digest {
            Digest::Sha256(_) => Self::Sha256,
            Digest::Sha512(_) => Self::Sha512,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        })
    }
}

/// The checksum of `file` in a file of them: lines of `HEX  NAME`, `HEX *NAME`
/// or `SHA256 (NAME) = HEX`, and, in a file for it alone (`single`), the
/// checksum without a name.
///
/// # Errors
///
/// What is wrong with the text, to be put behind its address: it is a web
/// page, has no such name, or the checksum is malformed.
pub fn find(text: &str, file: &str, algorithm: Algorithm, single: bool) -> Result<Digest, String> {
    let start = text.trim_start();
    if start.starts_with('<') {
        return Err("is a web page, not a file of checksums: a proxy or a login page?".to_owned());
    }
    let mut named = 0;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (hex, name) = match bsd(line) {
            Some(parts) => parts,
            None => match line.split_once(char::is_whitespace) {
                Some((hex, name)) => (hex, name.trim_start().trim_start_matches('*')),
                None if single => (line, file),
                None => continue,
            },
        };
        named += 1;
        if name.rsplit('/').next() == Some(file) {
            return digest(hex, algorithm);
        }
    }
    Err(match named {
        0 if start.is_empty() => "is empty".to_owned(),
        0 => "is not a file of checksums".to_owned(),
        _ => format!("does not name {file}"),
    })
}

/// `SHA256 (NAME) = HEX`.
fn bsd(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(" (")?;
    let (name, hex) = rest.split_once(") = ")?;
    Some((hex, name))
}

fn digest(hex: &str, algorithm: Algorithm) -> Result<Digest, String> {
    if hex.len() != algorithm.digits() {
        return Err(format!(
            "has no {algorithm} of {} digits",
            algorithm.digits()
        ));
    }
    format!("{algorithm}:{}", hex.to_ascii_lowercase())
        .parse()
        .map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let hex = "ab".repeat(32);
        let upper = hex.to_uppercase();
        for (text, single) in [
            (hex.clone(), true),
            (format!("{hex}\n"), true),
            (format!("{hex}  kubelet\n"), true),
            (format!("{hex} *kubelet\n"), false),
            (format!("{hex}  ./bin/kubelet\n"), false),
            (
                format!("{}  other\r\n{upper}  kubelet\r\n", "00".repeat(32)),
                false,
            ),
            (format!("SHA256 (kubelet) = {hex}\n"), false),
        ] {
            let found = find(&text, "kubelet", Algorithm::Sha256, single);
            assert_eq!(found.map(|d| d.hex()), Ok(hex.clone()), "{text}");
        }
    }

    #[test]
    fn what_is_no_checksum_is_told() {
        let hex = "ab".repeat(32);
        for (text, single, why) in [
            ("<!DOCTYPE html><html>".to_owned(), true, "a web page"),
            (String::new(), true, "is empty"),
            ("Not Found".to_owned(), true, "does not name kubelet"),
            (hex.clone(), false, "is not a file of checksums"),
            (
                format!("{hex}  kubelet.exe\n"),
                true,
                "does not name kubelet",
            ),
            ("abc  kubelet\n".to_owned(), true, "no sha256 of 64 digits"),
            (format!("{}zz  kubelet\n", &hex[2..]), true, "hexadecimal"),
        ] {
            let error = find(&text, "kubelet", Algorithm::Sha256, single).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
