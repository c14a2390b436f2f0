//! The folder `pki/`: read at once, written only when everything else is done.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::out::{self, Job, PUBLIC_MODE, SECRET_MODE};
use crate::secret::Secret;

/// The folder and what is to be written to it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Held until the store goes: two kgen at once do not both make an
    /// authority. The lock is on the folder above, which exists.
    _lock: File,
    pending: Vec<Write>,
}

#[derive(Debug)]
struct Write {
    file: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Public(String),
    Secret(Secret),
    /// The file goes, so that a key is never beside a certificate that is not
    /// its own, whenever the program is stopped.
    Remove,
}

impl Store {
    /// Opens `pki` in `workspace`, which need not be there yet, and waits until
    /// no other kgen has it open.
    pub fn open(workspace: &Path) -> Result<Self> {
        let lock = File::open(workspace)
            .with_context(|| format!("opening the folder {}", workspace.display()))?;
        lock.lock()
            .with_context(|| format!("locking the folder {}", workspace.display()))?;
        let folder = workspace.join("pki");
        Ok(Self {
            folder: folder.strip_prefix(".").unwrap_or(&folder).to_owned(),
            _lock: lock,
            pending: Vec::new(),
        })
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a file in the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The text of a file; none if there is no such file.
    pub fn text(&self, file: &str) -> Result<Option<String>> {
        let path = self.path(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The text of a file with a key, and whether others may read it.
    pub fn secret(&self, file: &str) -> Result<Option<(Secret, bool)>> {
        let Some(text) = self.text(file)? else {
            return Ok(None);
        };
        let path = self.path(file);
        let mode = fs::metadata(&path)
            .with_context(|| format!("looking at {}", path.display()))?
            .permissions()
            .mode();
        Ok(Some((Secret::from(text), mode & 0o077 != 0)))
    }

    /// Notes a certificate and its key to be written.
    pub fn put_pair(&mut self, stem: &str, certificate: String, key: Secret) {
        let crt = format!("{stem}.crt");
        if self.path(&crt).exists() {
            self.put(crt.clone(), Content::Remove);
        }
        self.put(format!("{stem}.key"), Content::Secret(key));
        self.put(crt, Content::Public(certificate));
    }

    /// Notes a file with a key to be written.
    pub fn put_secret(&mut self, file: &str, content: Secret) {
        self.put(file.to_owned(), Content::Secret(content));
    }

    /// Notes a file that everybody may read to be written.
    pub fn put_public(&mut self, file: &str, content: String) {
        self.put(file.to_owned(), Content::Public(content));
    }

    fn put(&mut self, file: String, content: Content) {
        self.pending.push(Write { file, content });
    }

    /// Writes what was noted.
    pub fn commit(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let jobs: Vec<Job<'_>> = pending
            .iter()
            .map(|write| {
                let path = self.path(&write.file);
                let (bytes, mode) = match &write.content {
                    Content::Public(text) => (text.as_bytes(), PUBLIC_MODE),
                    Content::Secret(secret) => (secret.expose(), SECRET_MODE),
                    Content::Remove => return Job::Remove { path },
                };
                Job::Write { path, bytes, mode }
            })
            .collect();
        out::apply(&jobs)?;
        Ok(())
    }
}
