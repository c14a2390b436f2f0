//! Whether kernels and initrds are those that were built: kimage writes a
//! catalogue of its images beside them, with the size and the SHA-256 of each.
//!
//! Only what is needed here is read of it; tests/docs.rs compares it with what
//! kimage writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use units::types::to_hex;

use crate::report::{Finding, Report};

/// The file's name.
pub const NAME: &str = "catalogue.json";
/// The form that is read.
const VERSION: u32 = 1;
/// So much of a file is read at once.
const CHUNK: usize = 256 << 10;

/// What was built, and where it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Content {
    architecture: String,
    kernel: String,
    knode: Built,
    files: BTreeMap<String, Built>,
}

/// A file as it was built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Built {
    /// In bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// Read before all else: another form may have other keys.
#[derive(Debug, Deserialize)]
struct Form {
    version: u32,
}

/// What was found out about images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Names and sizes of those that are as they were built.
    pub good: Vec<(String, u64)>,
    /// Files of which the catalogue does not know.
    pub unknown: Vec<PathBuf>,
}

impl Catalogue {
    /// The catalogue in a folder of images; none where nobody wrote one.
    ///
    /// # Errors
    ///
    /// One that cannot be read or understood: what is there was to be checked.
    pub fn read(folder: &Path) -> Result<Option<Self>, Report> {
        let path = folder.join(NAME);
        let wrong = |why: String| -> Report {
            let finding = Finding::new(format!("{}: {why}", path.display()));
            finding.help(CURE).into()
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
        };
        let strange = |error: serde_json::Error| wrong(format!("is no catalogue: {error}"));
        let form: Form = serde_json::from_slice(&text).map_err(strange)?;
        if form.version != VERSION {
            let version = form.version;
            return Err(wrong(format!(
                "is of the form {version}, which this kgen does not know"
            )));
        }
        let content = serde_json::from_slice(&text).map_err(strange)?;
        Ok(Some(Self { path, content }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's version, and what it is for.
    pub fn kernel(&self) -> String {
        format!("{} for {}", self.content.kernel, self.content.architecture)
    }

    /// Reads files through, all at once, and compares them with what was built.
    ///
    /// # Errors
    ///
    /// All that differ, are not there or cannot be read.
    pub fn check(&self, files: &[&Path]) -> Result<Checked, Report> {
        let mut checked = Checked::default();
        let known = files.iter().filter_map(|file| {
            let name = file.file_name()?.to_str()?;
            let built = self.content.files.get(name);
            if built.is_none() {
                checked.unknown.push((*file).to_owned());
            }
            Some((*file, name, built?))
        });
        let known: Vec<(&Path, &str, &Built)> = known.collect();
        let compared: Vec<Result<(), String>> = thread::scope(|threads| {
            let begun: Vec<_> = known
                .iter()
                .map(|(file, _, built)| threads.spawn(|| compare(file, built)))
                .collect();
            let ended = begun.into_iter().map(|thread| {
                let panicked = |_| Err("hashing it panicked".to_owned());
                thread.join().unwrap_or_else(panicked)
            });
            ended.collect()
        });
        let mut report = Report::default();
        for ((file, name, built), compared) in known.iter().zip(compared) {
            match compared {
                Ok(()) => checked.good.push(((*name).to_owned(), built.size)),
                Err(why) => {
                    let (file, path) = (file.display(), self.path.display());
                    let finding = format!("{file} is not as {path} says: {why}");
                    report.add(Finding::new(finding).help(CURE));
                }
            }
        }
        report.into_result()?;
        Ok(checked)
    }

    /// Whether machines find the knode that their documents name in the image,
    /// and so download none; `named` are checksums by processor. Nothing where
    /// no document is for the image's processor.
    pub fn has_knode(
        &self,
        named: &BTreeMap<String, BTreeSet<String>>,
    ) -> Option<Result<(), Finding>> {
        let Content {
            architecture,
            knode,
            ..
        } = &self.content;
        let named = named.get(architecture)?;
        if named.contains(&knode.sha256) {
            return Some(Ok(()));
        }
        let names: Vec<&str> = named.iter().map(String::as_str).collect();
        let finding = format!(
            "the knode in the images is not the one that documents name, so each machine downloads \
             it: sha256 {} and {}",
            knode.sha256,
            names.join(", ")
        );
        let help = "kimage build --knode puts the named one into the images; kgen render names the \
                    one that is beside kgen or in kgen.lock";
        Some(Err(Finding::new(finding).warning().help(help)))
    }
}

/// What to do about images that are not those of a catalogue.
const CURE: &str = "kimage build writes all of them anew; copy the images and catalogue.json of one \
                    build together, or take catalogue.json away where images are your own";

/// In words: how a file differs from what was built.
fn compare(path: &Path, built: &Built) -> Result<(), String> {
    let unread = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        _ => format!("it cannot be read: {error}"),
    };
    let mut file = File::open(path).map_err(unread)?;
    let size = file.metadata().map_err(unread)?.len();
    if size != built.size {
        return Err(format!("it has {size} bytes, and had {}", built.size));
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unread(error)),
        }
    }
    let found = to_hex(&hash.finalize());
    match found == built.sha256 {
        true => Ok(()),
        false => Err(format!("its sha256 is {found}, and was {}", built.sha256)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn catalogue(folder: &Path) -> Result<Option<Catalogue>, Report> {
        let text = format!(
            r#"{{"version":1,"suite":"trixie","architecture":"amd64","snapshot":"2026-09-12T07:55:41Z",
            "kernel":"6.12","knode":{{"size":1,"sha256":"{ABC}"}},"packages":{{"runc":"1"}},
            "files":{{"vmlinuz":{{"size":3,"sha256":"{ABC}"}},"initrd.img":{{"size":3,"sha256":"{ABC}"}}}}}}"#
        );
        fs::write(folder.join(NAME), text).unwrap();
        Catalogue::read(folder)
    }

    #[test]
    fn what_is_as_it_was_built_is_good() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Catalogue::read(folder.path()).unwrap(), None);
        let catalogue = catalogue(folder.path()).unwrap().unwrap();
        let [kernel, initrd, other] =
            ["vmlinuz", "initrd.img", "other"].map(|name| folder.path().join(name));
        fs::write(&kernel, "abc").unwrap();
        fs::write(&initrd, "abc").unwrap();
        let checked = catalogue.check(&[&initrd, &other, &kernel]).unwrap();
        let good = [("initrd.img".to_owned(), 3), ("vmlinuz".to_owned(), 3)];
        assert_eq!(checked.good, good);
        assert_eq!(checked.unknown, [other]);
        // All that differ are told, each with its way to.
        fs::write(&kernel, "abd").unwrap();
        fs::write(&initrd, "abcd").unwrap();
        let told = |report: Report| {
            let findings = report.findings().iter().map(|f| f.message.clone());
            findings.collect::<Vec<_>>()
        };
        let found = told(catalogue.check(&[&kernel, &initrd]).unwrap_err());
        assert!(found[0].ends_with(&format!("and was {ABC}")), "{found:?}");
        assert!(found[1].ends_with("it has 4 bytes, and had 3"), "{found:?}");
        fs::remove_file(&kernel).unwrap();
        fs::remove_file(&initrd).unwrap();
        fs::create_dir(&initrd).unwrap();
        let found = told(catalogue.check(&[&kernel, &initrd]).unwrap_err());
        assert!(found[0].ends_with("it is not there"), "{found:?}");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        for (text, part) in [
            ("", "is no catalogue"),
            (r#"{"version":1}"#, "missing field"),
            (r#"{"version":2,"images":[]}"#, "is of the form 2"),
        ] {
            fs::write(&path, text).unwrap();
            let report = Catalogue::read(folder.path()).unwrap_err();
            let message = &report.findings()[0].message;
            assert!(message.contains(part), "{message}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let report = Catalogue::read(folder.path()).unwrap_err();
        assert!(report.findings()[0].message.contains("cannot be read"));
    }

    #[test]
    fn another_knode_is_worth_a_second_thought() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = catalogue(folder.path()).unwrap().unwrap();
        let named = |arch: &str, sums: &[&str]| {
            let sums = sums.iter().map(|sum| (*sum).to_owned()).collect();
            catalogue.has_knode(&BTreeMap::from([(arch.to_owned(), sums)]))
        };
        let other = "00".repeat(32);
        assert!(named("amd64", &[ABC, &other]).unwrap().is_ok());
        let finding = named("amd64", &[&other]).unwrap().unwrap_err();
        assert!(finding.warning, "{finding}");
        assert!(finding.message.contains(&other) && finding.message.contains(ABC));
        assert!(named("arm64", &[&other]).is_none());
    }
}
