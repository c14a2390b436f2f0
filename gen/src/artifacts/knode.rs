//! Where a machine finds knode itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use units::types::{Arch, Digest};

use super::lock::Lock;
use crate::report::{Finding, Report};

/// Where releases of this version are published; `KGEN_RELEASE_URL` replaces
/// it at compile time, for those who build and host their own.
pub const RELEASE_URL: &str = match option_env!("KGEN_RELEASE_URL") {
    Some(url) => url,
    None => concat!(
        "https://github.com/kgen-project/kgen/releases/download/v",
        env!("CARGO_PKG_VERSION")
    ),
};

/// The checksums of the published binaries, known where a release is built.
const RELEASED: [(Arch, Option<&str>); 2] = [
    (Arch::Amd64, option_env!("KNODE_SHA256_AMD64")),
    (Arch::Arm64, option_env!("KNODE_SHA256_ARM64")),
];

/// One line of `/etc/knode/knode.list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnodeSource {
    /// For which processor.
    pub arch: Arch,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Where it can be had.
    pub url: String,
}

/// Where knode can be had: as the lock says, else where this kgen was
/// published, else a `knode` beside this program, to be found under the
/// release's address. `needed` are the processors of the machines at hand.
pub fn sources(lock: &Lock, needed: &[Arch], beside: Option<&Path>) -> Result<Vec<KnodeSource>> {
    let mut report = Report::default();
    let mut sources = Vec::new();
    for (arch, released) in RELEASED {
        if let Some(entry) = lock.newest("knode", arch) {
            match &entry.digest {
                Digest::Sha256(_) => sources.extend(entry.urls.iter().map(|url| KnodeSource {
                    arch,
                    sha256: entry.digest.hex(),
                    url: url.clone(),
                })),
                Digest::Sha512(_) => report.add(Finding::new(format!(
                    "the lock's knode for {arch} needs a sha256: machines check it with sha256sum"
                ))),
            }
            continue;
        }
        let local = match (released, beside) {
            (Some(sha256), _) => Some(sha256.to_owned()),
            (None, Some(path)) if arch == THIS => hash(path)?,
            _ => None,
        };
        match local {
            Some(sha256) => {
                let places = lock.places(&format!("{RELEASE_URL}/knode-linux-{arch}"));
                sources.extend(places.into_iter().map(|url| KnodeSource {
                    arch,
                    sha256: sha256.clone(),
                    url,
                }));
            }
            None if needed.contains(&arch) => report.add(missing(arch)),
            None => {}
        }
    }
    report.into_result()?;
    Ok(sources)
}

/// The processor that this program was built for.
const THIS: Arch = if cfg!(target_arch = "aarch64") {
    Arch::Arm64
} else {
    Arch::Amd64
};

/// The checksum of a file; none if there is no such file.
fn hash(path: &Path) -> Result<Option<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("opening {}", path.display()));
        }
    };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(units::types::to_hex(&hasher.finalize()))),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", path.display()));
            }
        }
    }
}

fn missing(arch: Arch) -> Finding {
    Finding::new(format!(
        "no lock names knode for {arch}, and this kgen knows no checksum of it"
    ))
    .help(format!(
        "put knode where machines can fetch it and add it to kgen.lock beside cluster.yaml:\n\
             version: 1\n\
             artifacts:\n\
             - name: knode\n  version: {}\n  arch: {arch}\n  urls: [\"https://…\"]\n  sha256: …",
        env!("CARGO_PKG_VERSION")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;

    #[test]
    fn the_lock_names_knode_for_every_processor() {
        let text = format!(
            "version: 1\nartifacts:\n\
             - {{name: knode, version: 0.1.0, arch: amd64, urls: ['http://a/k', 'http://b/k'], sha256: {0}}}\n\
             - {{name: knode, version: 0.1.0, arch: arm64, url: 'http://a/arm', sha256: {0}}}\n",
            "00".repeat(32)
        );
        let lock = Lock::load(&Source::new("kgen.lock", text)).unwrap();
        let sources = sources(&lock, &[Arch::Amd64], None).unwrap();
        let urls: Vec<_> = sources.iter().map(|s| s.url.as_str()).collect();
        assert_eq!(urls, ["http://a/k", "http://b/k", "http://a/arm"]);
    }

    #[test]
    fn a_knode_beside_this_program_is_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knode");
        let lock = Lock::default();
        let error = sources(&lock, &[THIS], Some(&path)).unwrap_err();
        assert!(error.downcast_ref::<Report>().is_some(), "{error}");
        std::fs::write(&path, b"abc").unwrap();
        let found = sources(&lock, &[THIS], Some(&path)).unwrap();
        assert!(
            found[0].sha256.starts_with("ba7816bf"),
            "{}",
            found[0].sha256
        );
        assert!(found[0].url.ends_with(&format!("/knode-linux-{THIS}")));
    }
}
