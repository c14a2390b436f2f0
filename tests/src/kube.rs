//! The Kubernetes binaries that no package registry has.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache;
use crate::command::run;

/// The first minor version of Kubernetes 1 that we support.
const OLDEST_MINOR: u32 = 34;

/// What a cluster needs. kubectl may come from Debian ([`crate::artifacts::kubectl`]).
pub const PROGRAMS: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

/// A folder that has all the binaries.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
    version: String,
}

impl Binaries {
    /// Looks into `$KUBE_BIN_DIR`. An error is the reason for which to skip a test.
    pub fn find() -> Result<Self> {
        Self::in_folder(directory(), "KUBE_BIN_DIR")
    }

    /// Those of an older version, in `$KUBE_BIN_DIR_OLD`, to upgrade from.
    pub fn find_older() -> Result<Self> {
        let variable = "KUBE_BIN_DIR_OLD";
        let default = "/opt/kubernetes/previous/bin";
        Self::in_folder(cache::from_environment(variable, default), variable)
    }

    fn in_folder(directory: PathBuf, variable: &str) -> Result<Self> {
        for program in PROGRAMS {
            let path = directory.join(program);
            ensure!(path.is_file(), "no {} (${variable})", path.display());
        }
        let version = run(Command::new(directory.join("kubelet")).arg("--version"))?;
        let version = version.trim().trim_start_matches("Kubernetes v").to_owned();
        let mut parts = version.split('.').map(str::parse);
        let supported = matches!(
            (parts.next(), parts.next()),
            (Some(Ok(1)), Some(Ok(minor))) if minor >= OLDEST_MINOR
        );
        ensure!(
            supported,
            "{} has Kubernetes {version}, older than 1.{OLDEST_MINOR}",
            directory.display()
        );
        Ok(Self { directory, version })
    }

    /// The same with a kubelet that says this version and ends at once with
    /// everything else.
    pub fn with_a_kubelet_that_ends(&self) -> Result<Self> {
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || exec echo Kubernetes v{}\n\
             echo this kubelet cannot run here >&2\nexit 3\n",
            self.version
        );
        let place = self.directory.to_string_lossy();
        let key = &cache::digest([script.as_bytes(), place.as_bytes()])[..16];
        let directory = cache::once(&format!("kubelet-that-ends-{key}"), |target| {
            fs::create_dir(target)?;
            for program in PROGRAMS.into_iter().filter(|name| *name != "kubelet") {
                symlink(self.program(program), target.join(program))?;
            }
            let kubelet = target.join("kubelet");
            fs::write(&kubelet, &script)?;
            Ok(fs::set_permissions(
                &kubelet,
                Permissions::from_mode(0o755),
            )?)
        })?;
        Self::in_folder(directory, "KUBE_BIN_DIR")
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of one of [`PROGRAMS`].
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The kubelet's version, without a leading `v`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Packs them as the official server archive does:
    /// `kubernetes/server/bin/…` in `kubernetes-server-linux-ARCH.tar.gz`.
    pub fn archive(&self) -> Result<PathBuf> {
        let mut programs: Vec<_> = PROGRAMS.iter().map(|name| self.program(name)).collect();
        programs.push(crate::artifacts::kubectl()?);
        let mut stamp = Vec::new();
        for program in &programs {
            let file = program
                .metadata()
                .with_context(|| format!("looking at {}", program.display()))?;
            let line = format!(
                "{} {} {:?}\n",
                program.display(),
                file.len(),
                file.modified()?
            );
            stamp.extend(line.into_bytes());
        }
        let key = &cache::digest([stamp.as_slice()])[..16];
        cache::once(&format!("kubernetes-server-{key}.tar.gz"), |target| {
            crate::artifacts::pack("kubernetes/server/bin", &programs, target)
        })
    }
}

/// Where the binaries are looked for: `$KUBE_BIN_DIR`, by default `/opt/kubernetes/bin`.
pub fn directory() -> PathBuf {
    cache::from_environment("KUBE_BIN_DIR", "/opt/kubernetes/bin")
}
