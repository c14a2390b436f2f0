//! Artifacts to download, packed as their upstreams pack them, from Debian's builds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::command::run;
use crate::{cache, kube, rootfs};

/// An archive and the version of what is in it.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The file, in the cache.
    pub path: PathBuf,
    /// The version, without a leading `v`.
    pub version: String,
}

/// etcd as upstream packs it: `etcd-vVERSION-linux-ARCH/{etcd,etcdctl,etcdutl}` in a
/// tar.gz of that name.
pub fn etcd() -> Result<Artifact> {
    let root = rootfs::unpacked(&["etcd-server", "etcd-client"])?;
    let said = run(Command::new("chroot")
        .arg(&root)
        .args(["/usr/bin/etcd", "--version"]))?;
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    let version = version.with_context(|| format!("no version in: {said}"))?;
    let name = format!("etcd-v{version}-linux-{}", architecture());
    let path = cache::once(&format!("{name}.tar.gz"), |target| {
        let programs = ["etcd", "etcdctl", "etcdutl"];
        let programs = programs.map(|program| root.join("usr/bin").join(program));
        pack(&name, &programs, target)
    })?;
    Ok(Artifact {
        path,
        version: version.to_owned(),
    })
}

/// kubectl: from `$KUBE_BIN_DIR`, or else Debian's.
pub fn kubectl() -> Result<PathBuf> {
    let ours = kube::directory().join("kubectl");
    if ours.is_file() {
        return Ok(ours);
    }
    Ok(rootfs::unpacked(&["kubernetes-client"])?.join("usr/bin/kubectl"))
}

/// containerd 2 as upstream packs it (`bin/…` in a tar.gz), and the runc that
/// goes with it: from the first release of Debian that has one. An error is
/// the reason for which to skip a test.
pub fn containerd_2() -> Result<(Artifact, Artifact)> {
    let root = rootfs::unpacked_from("sid", &["containerd", "runc"])?;
    let version = |program: &str, word: usize| -> Result<String> {
        let said = run(Command::new("chroot")
            .arg(&root)
            .args([program, "--version"]))?;
        let version = said.split_whitespace().nth(word);
        let version = version.with_context(|| format!("no version in: {said}"))?;
        // Debian adds its own to upstream's: 2.1.9+unknown, 1.3.6+ds1.
        let version = version.trim_start_matches('v');
        let end = version.find(['+', '~']).unwrap_or(version.len());
        Ok(version[..end].to_owned())
    };
    let (containerd, runc) = (version("/usr/bin/containerd", 2)?, version("runc", 2)?);
    ensure!(containerd.starts_with("2."), "Debian's is {containerd}");
    let name = format!("containerd-{containerd}-linux-{}.tar.gz", architecture());
    let path = cache::once(&name, |target| {
        let programs = ["containerd", "containerd-shim-runc-v2", "ctr"];
        let programs = programs.map(|program| root.join("usr/bin").join(program));
        pack("bin", &programs, target)
    })?;
    let containerd = Artifact {
        path,
        version: containerd,
    };
    let runc = Artifact {
        path: fs::canonicalize(root.join("usr/sbin/runc")).context("looking for runc")?,
        version: runc,
    };
    Ok((containerd, runc))
}

/// Debian's Docker client, to speak to daemons from outside.
pub fn docker_client() -> Result<PathBuf> {
    Ok(rootfs::unpacked(&["docker-cli"])?.join("usr/bin/docker"))
}

/// Go's name for this machine's architecture, which container images and downloads use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Packs programs into `folder/` of a tar.gz that depends on nothing but their bytes.
pub fn pack(folder: &str, programs: &[PathBuf], target: &Path) -> Result<()> {
    let file = File::create(target).with_context(|| format!("making {}", target.display()))?;
    // Not in this process: a debug build takes minutes for what gzip does in seconds.
    let mut gzip = Command::new("gzip")
        .args(["-1", "--no-name"])
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .context("starting gzip")?;
    let mut archive = tar::Builder::new(gzip.stdin.take().context("no way into gzip")?);
    for program in programs {
        let name = program.file_name().context("a program without a name")?;
        let content =
            fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        append(&mut archive, Path::new(folder).join(name), 0o755, &content)?;
    }
    drop(archive.into_inner()?);
    let status = gzip.wait().context("waiting for gzip")?;
    ensure!(status.success(), "gzip: {status}");
    Ok(())
}

/// Appends a file of root's, from the beginning of time.
pub(crate) fn append(
    archive: &mut tar::Builder<impl std::io::Write>,
    path: impl AsRef<Path>,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive
        .append_data(&mut header, path.as_ref(), content)
        .with_context(|| format!("packing {}", path.as_ref().display()))
}
