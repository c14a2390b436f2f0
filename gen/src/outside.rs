//! What settings refer to: files beside them, variables of the environment. The one
//! place where reading settings touches the machine.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// No file that goes into a document is larger, in bytes.
const LARGEST: u64 = 8 << 20;

/// Where files are sought.
#[derive(Debug, Clone)]
pub struct Outside {
    folder: PathBuf,
}

impl Outside {
    /// Files are sought in `folder`, unless their paths are absolute.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The bytes of a file; why there are none names it and nothing of its text.
    pub fn file(&self, file: &str) -> Result<Secret, String> {
        if file.is_empty() {
            return Err("the name of a file is missing".to_owned());
        }
        let path = self.folder.join(file);
        let shown = path.strip_prefix(".").unwrap_or(&path).display();
        let bytes = read(&path).map_err(|error| format!("reading {shown}: {error}"))?;
        if bytes.len() as u64 > LARGEST {
            return Err(format!(
                "{shown} is larger than the {LARGEST} bytes that are read; let machines fetch it"
            ));
        }
        Ok(bytes)
    }

    /// The text of a variable; why there is none names it alone.
    pub fn variable(&self, name: &str) -> Result<Secret, String> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(good) {
            return Err(
                "env: is followed by the name of a variable, as in env:PASSWORD".to_owned(),
            );
        }
        match env::var(name) {
            Ok(value) => Ok(Secret::from(value)),
            Err(VarError::NotPresent) => Err(format!("the environment has no variable {name}")),
            Err(VarError::NotUnicode(_)) => Err(format!("the variable {name} is not text")),
        }
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(Secret::new(bytes))
}
