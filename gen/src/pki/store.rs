//! The folder `pki/`: read at once, written only when everything else is done.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::out::{PUBLIC_MODE, SECRET_MODE, Stage};
use crate::secret::Secret;

/// The folder and what is to be written to it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Held until the store goes: two kgen at once do not both make an
    /// authority. The lock is on the folder above, which exists.
    _lock: Arc<File>,
    stage: Stage,
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
            _lock: Arc::new(lock),
            stage: Stage::default(),
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
    pub fn put_pair(&mut self, stem: &str, certificate: String, key: &Secret) -> Result<()> {
        let crt = format!("{stem}.crt");
        // The old one goes first, so that a key is never beside a certificate
        // that is not its own, whenever the program is stopped.
        if self.path(&crt).exists() {
            self.stage.remove(self.path(&crt));
        }
        self.put_secret(&format!("{stem}.key"), key)?;
        self.put_public(&crt, certificate)
    }

    /// Notes a file with a key to be written.
    pub fn put_secret(&mut self, file: &str, content: &Secret) -> Result<()> {
        self.stage
            .write(self.path(file), content.expose(), SECRET_MODE)
    }

    /// Notes a file that everybody may read to be written.
    pub fn put_public(&mut self, file: &str, content: String) -> Result<()> {
        self.stage.write(self.path(file), content, PUBLIC_MODE)
    }

    /// Notes a file to be taken away, if it is there.
    pub fn remove(&mut self, file: &str) {
        let path = self.path(file);
        if path.exists() {
            self.stage.remove(path);
        }
    }

    /// Takes over what another thread noted.
    pub fn join(&mut self, other: Self) -> Result<()> {
        self.stage.append(other.stage)
    }

    /// Writes what was noted.
    pub fn commit(&mut self) -> Result<()> {
        std::mem::take(&mut self.stage).commit()?;
        Ok(())
    }

    /// The same folder for another thread, with a stage of its own.
    pub fn fork(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            _lock: Arc::clone(&self._lock),
            stage: Stage::default(),
        }
    }
}
