//! What stops a build: a code that never changes its meaning, the cause, and a cure.

use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else than root asks.
    #[error(
        "E-IMAGE-ROOT: only root makes files with their owners; run it with sudo, or in a container"
    )]
    NotRoot,
    /// Programs are missing.
    #[error("E-IMAGE-PROGRAM: not installed: {programs}; try: apt-get install {packages}")]
    Program {
        /// Their names.
        programs: String,
        /// The packages that have them.
        packages: String,
    },
    /// The knode is not one that the images can run.
    #[error("E-IMAGE-KNODE: {}: {reason}; name a static knode for x86_64 with --knode", path.display())]
    Knode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No packages can be had.
    #[error(
        "E-IMAGE-MIRROR: {mirror}: {reason}; name a Debian mirror that has this suite with --mirror"
    )]
    Mirror {
        /// Where they were asked for.
        mirror: String,
        /// What came of it.
        reason: String,
    },
    /// The repository's signature does not hold.
    #[error(
        "E-IMAGE-UNVERIFIED: {said}; nothing of it was used. Install debian-archive-keyring, or use a \
         mirror of Debian; --allow-expired takes a snapshot's old index"
    )]
    Unverified {
        /// What apt said.
        said: String,
    },
    /// There is no room.
    #[error(
        "E-IMAGE-SPACE: {doing}: {said}; make room there, or give --out another place, or the disk image a larger --disk-size"
    )]
    Space {
        /// What was being done.
        doing: String,
        /// What the program or kernel said.
        said: String,
    },
    /// A program failed.
    #[error("E-IMAGE-FAILED: {program} ended with {status}: {said}")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The last it said.
        said: String,
    },
    /// What was built is not what was expected.
    #[error("E-IMAGE-CONTENT: {0}")]
    Content(String),
    /// A file could not be read or written.
    #[error("E-IMAGE-FILE: {doing}")]
    File {
        /// What was being done, with the path.
        doing: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Says what was being done to a path when the kernel refused.
pub(crate) fn file(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let doing = format!("{doing} {}", path.display());
    move |source| {
        if source.kind() == io::ErrorKind::StorageFull {
            let said = source.to_string();
            Error::Space { doing, said }
        } else {
            Error::File { doing, source }
        }
    }
}

/// What a failed program's words mean. `said` is all that it wrote to standard error.
pub(crate) fn of_program(program: &str, status: String, said: &str) -> Error {
    let line = |wanted: &[&str]| {
        said.lines()
            .find(|line| wanted.iter().any(|word| line.contains(word)))
            .map(|line| line.trim().to_owned())
    };
    const SPACE: [&str; 4] = [
        "No space left on device",
        "Could not allocate block",
        "Disk full",
        "Couldn't find enough free",
    ];
    const UNVERIFIED: [&str; 6] = [
        "is not signed",
        "NO_PUBKEY",
        "EXPKEYSIG",
        "BADSIG",
        "is expired",
        "is not valid yet",
    ];
    const UNREACHED: [&str; 5] = [
        "does not have a Release file",
        "Could not resolve",
        "Could not connect",
        "Failed to fetch",
        "Unable to locate package",
    ];
    if let Some(said) = line(&SPACE) {
        let doing = program.to_owned();
        return Error::Space { doing, said };
    }
    if let Some(said) = line(&UNVERIFIED) {
        return Error::Unverified { said };
    }
    if let Some(reason) = line(&UNREACHED) {
        let mirror = program.to_owned();
        return Error::Mirror { mirror, reason };
    }
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let said = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
    Error::Failed {
        program: program.to_owned(),
        status,
        said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_programs_have_their_codes() {
        let code = |said: &str| {
            let text = of_program("mmdebstrap", "exit status: 1".into(), said).to_string();
            text.split(':').next().unwrap_or_default().to_owned()
        };
        assert_eq!(
            code("E: The repository 'http://m trixie InRelease' is not signed."),
            "E-IMAGE-UNVERIFIED"
        );
        assert_eq!(
            code("W: x\nE: The repository 'http://m no Release' does not have a Release file."),
            "E-IMAGE-MIRROR"
        );
        assert_eq!(
            code("dpkg: error: cannot copy: No space left on device"),
            "E-IMAGE-SPACE"
        );
        assert_eq!(code("anything else"), "E-IMAGE-FAILED");
    }

    #[test]
    fn a_failure_shows_the_last_lines() {
        let text = of_program("x", "exit status: 2".into(), "1\n2\n3\n4\n5\n6\n").to_string();
        assert!(
            text.ends_with("exit status: 2: 2\n  3\n  4\n  5\n  6"),
            "{text}"
        );
    }
}
