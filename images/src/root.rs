//! The root file system: Debian packages, and what images' makers do to them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::{Build, Kind};
use crate::error::{Error, Result, file};
use crate::packages;
use crate::programs::{program, run};
use crate::progress::Progress;
use crate::source::Source;

const FINISH: &str = include_str!("../files/finish.sh");

/// What nobody reads on a node. Licences stay.
const LEFT_OUT: [&str; 5] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// Makes the initrd by which a disk boots, when all packages are there, and the link
/// beside that of the kernel. The netboot image has its own.
const INITRD: &str = r#"--customize-hook=chroot "$1" update-initramfs -c -k all && ln -s "$(cd "$1" && ls boot/initrd.img-*)" "$1/initrd.img""#;

/// A root file system that is finished, and gone when this is.
pub(crate) struct Root {
    folder: PathBuf,
    epoch: i64,
}

impl Root {
    /// Builds it in `work`.
    pub(crate) fn build(
        build: &Build,
        source: &Source,
        work: &Path,
        progress: &Progress,
    ) -> Result<Self> {
        let root = Self {
            folder: work.join("root"),
            epoch: source.epoch,
        };
        let mut mmdebstrap = program("mmdebstrap", source.epoch);
        // A build that the power leaves is begun anew: no package needs to be on the disk
        // before the next. And the kernel's package makes an initrd that the triggers at the
        // end make once more.
        mmdebstrap
            .env("DPKG_FORCE", "unsafe-io")
            .env("INITRD", "No");
        let included = packages::list(build.arch, build.kernel).join(",");
        mmdebstrap
            .args(["--mode=root", "--format=directory", "--variant=minbase"])
            .arg(format!("--architectures={}", build.arch.name()))
            .arg(format!("--include={included}"))
            .args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
        if build.kind.iter().any(|kind| *kind != Kind::Netboot) {
            mmdebstrap.arg(INITRD);
        }
        if build.allow_expired {
            mmdebstrap.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        }
        if let Some(kept) = &build.packages {
            fs::create_dir_all(kept).map_err(file("making", kept))?;
            let kept = kept.canonicalize().map_err(file("finding", kept))?;
            mmdebstrap.args(keeping(&kept));
        }
        mmdebstrap
            .arg(&build.suite)
            .arg(&root.folder)
            .args(&source.mirrors);
        run(&mut mmdebstrap, progress)?;
        Ok(root)
    }

    /// Puts knode in, and takes out what belongs to one machine or one moment.
    pub(crate) fn finish(&self, knode: &Path, work: &Path, progress: &Progress) -> Result<()> {
        let script = work.join("finish.sh");
        fs::write(&script, FINISH).map_err(file("writing", &script))?;
        let mut finish = program("sh", self.epoch);
        finish.arg(&script).arg(&self.folder).arg(knode);
        run(finish.arg(self.epoch.to_string()), progress)?;
        Ok(())
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The version of its only kernel.
    pub(crate) fn kernel(&self) -> Result<String> {
        let modules = self.folder.join("usr/lib/modules");
        let mut versions = Vec::new();
        for entry in fs::read_dir(&modules).map_err(file("reading", &modules))? {
            let entry = entry.map_err(file("reading", &modules))?;
            versions.push(entry.file_name().to_string_lossy().into_owned());
        }
        match versions.as_slice() {
            [version] => Ok(version.clone()),
            _ => Err(Error::Content(format!(
                "the packages bring {} kernels, one is needed: {}",
                versions.len(),
                versions.join(" ")
            ))),
        }
    }

    /// What is installed: `name version` lines, sorted.
    pub(crate) fn installed(&self, progress: &Progress) -> Result<String> {
        let mut query = program("dpkg-query", self.epoch);
        query
            .arg(format!(
                "--admindir={}",
                self.folder.join("var/lib/dpkg").display()
            ))
            .args(["--show", "--showformat", "${Package} ${Version}\n"]);
        run(&mut query, progress)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mut remove = program("rm", self.epoch);
        remove.args(["-rf", "--one-file-system"]).arg(&self.folder);
        // What is left is found and removed by the next build.
        drop(remove.status());
    }
}

/// Flags that make mmdebstrap take packages from a folder and leave them there.
fn keeping(folder: &Path) -> Vec<String> {
    let quoted = format!("'{}'", folder.to_string_lossy().replace('\'', r"'\''"));
    let archives = r#""$1"/var/cache/apt/archives"#;
    vec![
        "--skip=download/empty".to_owned(),
        "--skip=essential/unlink".to_owned(),
        format!(
            "--setup-hook=mkdir -p {archives} && find {quoted} -name '*.deb' -exec cp -t {archives} {{}} +"
        ),
        format!(
            "--customize-hook=find {archives} -maxdepth 1 -name '*.deb' -exec cp -u -t {quoted} {{}} +"
        ),
    ]
}
