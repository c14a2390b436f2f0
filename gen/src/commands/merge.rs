//! `kgen kubeconfig --merge`: the cluster in the operator's own kubeconfig.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::terminal;
use crate::kubeconfig::{self, Access, Merged};
use crate::out::{SECRET_MODE, Stage};
use crate::report::{Finding, Report};
use crate::workspace;

/// The file that kubectl would write to: the first of KUBECONFIG, or
/// ~/.kube/config. Source: Kubernetes documentation, "Organizing Cluster
/// Access Using kubeconfig Files".
pub fn default_file() -> Result<PathBuf> {
    let listed = env::var_os("KUBECONFIG").unwrap_or_default();
    if let Some(first) = env::split_paths(&listed).find(|path| !path.as_os_str().is_empty()) {
        return Ok(first);
    }
    match env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(Path::new(&home).join(".kube/config")),
        None => Err(Report::from(
            Finding::new("neither KUBECONFIG nor HOME says where your kubeconfig is")
                .help("name it: --merge FILE"),
        )
        .into()),
    }
}

/// Puts the cluster into `file`, after a copy of it was made beside it.
pub fn into(file: &Path, access: &Access<'_>, make_current: bool) -> Result<()> {
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
    }
    let _lock = Lock::take(&path)?;
    let source = workspace::source(&path)?;
    let source = source.filter(|source| !source.text().trim().is_empty());
    let merged = kubeconfig::merge(source.as_ref(), access, make_current)?;
    let shown = file.display();
    let Merged {
        text,
        is_current,
        lost_comments,
    } = &merged;
    if let Some(source) = &source {
        if source.text().as_bytes() == text.expose() {
            terminal::say(&format!("kgen: {shown} is as it should be"));
            return Ok(());
        }
        let backup = keep(&path, source.text().as_bytes())?;
        terminal::say(&format!("kgen: kept {shown} as {}", backup.display()));
        if *lost_comments {
            terminal::say("kgen: comments are in that copy alone");
        }
    }
    let mut stage = Stage::default();
    stage.write(path, text.expose(), SECRET_MODE)?;
    stage.commit()?;
    let context = access.context;
    terminal::say(&format!(
        "kgen: {shown} has the context {context}{}",
        if *is_current {
            ", which is the current one now".to_owned()
        } else {
            format!(": kubectl --context {context} get nodes")
        }
    ));
    Ok(())
}

/// Copies bytes to the first FILE.bak-N that is not there.
fn keep(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    for n in 1_u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".bak-{n}"));
        let backup = PathBuf::from(name);
        let mut options = OpenOptions::new();
        let new = options.write(true).create_new(true).mode(SECRET_MODE);
        let mut copy = match new.open(&backup) {
            Ok(copy) => copy,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("making {}", backup.display()));
            }
        };
        copy.write_all(bytes)
            .and_then(|()| copy.sync_all())
            .with_context(|| format!("writing {}", backup.display()))?;
        return Ok(backup);
    }
    Err(Report::from(Finding::new(format!("{}: too many copies", path.display()))).into())
}

/// FILE.lock, by which kubectl and its like keep each other away.
/// Source: client-go, tools/clientcmd/config.go.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        match File::create_new(&lock) {
            Ok(_) => Ok(Self(lock)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let finding = Finding::new(format!("{}: is there", lock.display())).help(
                    "another program is writing the kubeconfig; if none is, remove that file",
                );
                Err(Report::from(finding).into())
            }
            Err(error) => Err(error).with_context(|| format!("making {}", lock.display())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What stays behind is told, with the cure, the next time.
        drop(fs::remove_file(&self.0));
    }
}
