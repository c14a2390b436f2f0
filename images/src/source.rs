//! Where packages come from, and the date of their index, which is the date of all
//! that is built from them.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use time::PrimitiveDateTime;
use time::macros::format_description;

use crate::cli::Build;
use crate::error::{Error, Result, file};
use crate::programs::{program, run};
use crate::progress::Progress;

const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// What is built from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// As mmdebstrap takes them: addresses, or lines of sources.list.
    pub mirrors: Vec<String>,
    /// The index's date, in seconds since 1970.
    pub epoch: i64,
}

impl Source {
    /// Asks the first mirror for the suite's date, if the environment has none:
    /// `$SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub(crate) fn find(build: &Build, work: &Path, progress: &Progress) -> Result<Self> {
        let mirrors = if build.mirror.is_empty() {
            vec![machines_mirror(progress)?]
        } else {
            build.mirror.clone()
        };
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(text) if !text.is_empty() => text.parse().map_err(|_| {
                Error::Content(format!(
                    "$SOURCE_DATE_EPOCH is no number of seconds: {text}"
                ))
            })?,
            _ => index_date(address(&mirrors[0]), &build.suite, work, progress)?,
        };
        Ok(Self { mirrors, epoch })
    }
}

/// The Debian mirror of this machine's apt.
fn machines_mirror(progress: &Progress) -> Result<String> {
    let unknown = |reason: String| Error::Mirror {
        mirror: "this machine's apt".to_owned(),
        reason,
    };
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)"]);
    apt.args(["Created-By: Packages", "Component: main"]);
    let sources = run(&mut apt, progress).map_err(|error| unknown(error.to_string()))?;
    // A Debian archive is called so; beside it are security, backports and vendors.
    let mirror = sources
        .lines()
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    let none = || unknown("it has no mirror of Debian".to_owned());
    mirror.map(str::to_owned).ok_or_else(none)
}

/// The address in a mirror's words: itself, or that of a line of sources.list.
fn address(mirror: &str) -> &str {
    mirror
        .split_whitespace()
        .find(|word| word.contains("://") || word.contains(":/"))
        .unwrap_or(mirror)
}

fn index_date(mirror: &str, suite: &str, work: &Path, progress: &Progress) -> Result<i64> {
    let url = format!("{}/dists/{suite}/InRelease", mirror.trim_end_matches('/'));
    let path = work.join("InRelease");
    let refused = |reason: String| Error::Mirror {
        mirror: url.clone(),
        reason,
    };
    let mut helper = program(APT_HELPER, 0);
    helper.arg("download-file").arg(&url).arg(&path);
    run(&mut helper, progress).map_err(|error| refused(error.to_string()))?;
    let text = fs::read_to_string(&path).map_err(file("reading", &path))?;
    date(&text).ok_or_else(|| refused("it has no date".to_owned()))
}

/// The `Date` of an InRelease file.
fn date(release: &str) -> Option<i64> {
    let text = release
        .lines()
        .find_map(|line| line.strip_prefix("Date: "))?;
    let format = format_description!(
        "[weekday repr:short], [day padding:none] [month repr:short] [year] [hour padding:none]:[minute]:[second] UTC"
    );
    let date = PrimitiveDateTime::parse(text.trim(), &format).ok()?;
    Some(date.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_index() {
        let release = "Origin: Debian\nDate: Sat, 12 Sep 2026 07:55:41 UTC\nCodename: trixie\n";
        assert_eq!(date(release), Some(1_789_199_741));
        assert_eq!(date("Date: tomorrow\n"), None);
        assert_eq!(date("Origin: Debian\n"), None);
    }

    #[test]
    fn a_line_of_sources_has_an_address() {
        let line = "deb [trusted=no] http://mirror/debian trixie main";
        assert_eq!(address(line), "http://mirror/debian");
        assert_eq!(address("http://mirror/debian"), "http://mirror/debian");
    }
}
