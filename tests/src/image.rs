//! Container images, made here since no registry can be reached.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::artifacts::{append, architecture};
use crate::command::run;
use crate::{cache, rootfs};

const MANIFEST: &str = r#"[package]
name = "images"
edition = "2024"

[dependencies]
nix = { version = "0.31", features = ["process", "signal"] }

[[bin]]
name = "pause"
path = "pause.rs"

[[bin]]
name = "web"
path = "web.rs"

[[bin]]
name = "dns"
path = "dns.rs"

[profile.release]
opt-level = "s"
panic = "abort"
strip = true

[workspace]
"#;
const SOURCES: [(&str, &str); 3] = [
    ("dns.rs", include_str!("bin/dns.rs")),
    ("pause.rs", include_str!("bin/pause.rs")),
    ("web.rs", include_str!("bin/web.rs")),
];
const LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");

const MEDIA: &str = "application/vnd.oci.image";

/// An image with one static program in it, as an OCI archive.
#[derive(Debug, Clone)]
pub struct Image {
    reference: String,
    archive: PathBuf,
}

impl Image {
    /// What holds a pod's namespaces: `registry.k8s.io/pause:3.10.1`.
    pub fn pause() -> Result<Self> {
        Self::build("registry.k8s.io/pause:3.10.1", &["pause"])
    }

    /// A web server on port 8080 that answers with lines `hostname …`, `address …` (its
    /// own) and `client …`: `knode.test/web:1`. There is `/dns` in it, too, which asks a
    /// name server.
    pub fn web() -> Result<Self> {
        Self::build("knode.test/web:1", &["web", "dns"])
    }

    /// One of Kubernetes' own programs, which are static, as its published image has
    /// it: `/usr/local/bin/NAME`.
    pub fn of_program(reference: &str, program: &Path) -> Result<Self> {
        let name = program.file_name().context("a program without a name")?;
        let name = name.to_string_lossy();
        let inside = format!("usr/local/bin/{name}");
        Self::pack(reference, &name, &[(program.to_path_buf(), inside)])
    }

    /// Debian's etcd with the libraries that it is linked with.
    pub fn etcd(reference: &str) -> Result<Self> {
        let root = rootfs::unpacked(&["etcd-server", "etcd-client"])?;
        let loader = match architecture() {
            "arm64" => "/lib/ld-linux-aarch64.so.1",
            _ => "/lib64/ld-linux-x86-64.so.2",
        };
        let listed =
            run(Command::new("chroot")
                .arg(&root)
                .args([loader, "--list", "/usr/bin/etcd"]))?;
        let libraries = listed.split_whitespace().filter(|w| w.starts_with('/'));
        let mut files = vec![(root.join("usr/bin/etcd"), "usr/local/bin/etcd".to_owned())];
        for path in libraries {
            let inside = path.trim_start_matches('/');
            files.push((root.join(inside), inside.to_owned()));
        }
        Self::pack(reference, "etcd", &files)
    }

    /// Packs files of this machine, each with its path in the image.
    fn pack(reference: &str, name: &str, files: &[(PathBuf, String)]) -> Result<Self> {
        let mut stamp = reference.as_bytes().to_vec();
        for (path, _) in files {
            let file = fs::metadata(path).with_context(|| format!("looking at {path:?}"))?;
            stamp.extend(format!("{path:?} {} {:?}", file.len(), file.modified()?).into_bytes());
        }
        let key = cache::digest([stamp.as_slice()]);
        let archive = cache::once(&format!("image-{name}-{}.tar", &key[..16]), |target| {
            let mut contents = Vec::new();
            for (path, inside) in files {
                let content = fs::read(path).with_context(|| format!("reading {path:?}"))?;
                contents.push((inside.as_str(), content));
            }
            let entrypoint = format!("/{}", files[0].1);
            fs::write(target, archive(reference, &entrypoint, &contents)?)
                .with_context(|| format!("writing {}", target.display()))
        })?;
        Ok(Self {
            reference: reference.to_owned(),
            archive,
        })
    }

    /// The name by which pods ask for it.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The archive, in the cache: `ctr -n k8s.io images import FILE`.
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// Packs programs of ours; the first is the one that is started.
    fn build(reference: &str, names: &[&str]) -> Result<Self> {
        let folder = programs()?;
        let read = |name: &&str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let contents: Vec<Vec<u8>> = names.iter().map(read).collect::<Result<_>>()?;
        let parts = contents.iter().map(Vec::as_slice);
        let key = cache::digest(parts.chain([reference.as_bytes()]));
        let name = format!("image-{}-{}.tar", names[0], &key[..16]);
        let archive = cache::once(&name, |target| {
            let files: Vec<_> = names.iter().copied().zip(contents).collect();
            fs::write(
                target,
                archive(reference, &format!("/{}", names[0]), &files)?,
            )
            .with_context(|| format!("writing {}", target.display()))
        })?;
        Ok(Self {
            reference: reference.to_owned(),
            archive,
        })
    }
}

/// The folder with the static programs, built by cargo from this crate's own sources
/// with nothing of the workspace but its lock file.
fn programs() -> Result<PathBuf> {
    let compiler = run(Command::new(env_or("RUSTC", "rustc")).arg("-vV"))?;
    let host = compiler
        .lines()
        .find_map(|line| line.strip_prefix("host: "));
    let host = host.context("the compiler names no host")?;
    let parts = SOURCES.iter().flat_map(|(_, text)| [text.as_bytes()]);
    let parts = parts.chain([MANIFEST.as_bytes(), compiler.as_bytes()]);
    cache::once(
        &format!("programs-{}", &cache::digest(parts)[..16]),
        |target| {
            let work = tempfile::tempdir().context("making a folder to build in")?;
            for (name, text) in SOURCES.iter().chain(&[("Cargo.toml", MANIFEST)]) {
                fs::write(work.path().join(name), text)?;
            }
            fs::copy(LOCK, work.path().join("Cargo.lock"))
                .with_context(|| format!("copying {LOCK}"))?;
            let built = work.path().join("target");
            run(Command::new(env_or("CARGO", "cargo"))
                .current_dir(work.path())
                // An explicit target keeps the flags away from build scripts.
                .args(["build", "--release", "--jobs=1", "--target", host])
                .env("RUSTFLAGS", "-C target-feature=+crt-static")
                .env_remove("CARGO_ENCODED_RUSTFLAGS")
                .env("CARGO_TARGET_DIR", &built))?;
            fs::create_dir(target)?;
            for program in ["pause", "web", "dns"] {
                let from = built.join(host).join("release").join(program);
                fs::copy(&from, target.join(program))
                    .with_context(|| format!("taking {}", from.display()))?;
            }
            Ok(())
        },
    )
}

fn env_or(variable: &str, default: &str) -> String {
    env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// An OCI image layout in a tar. The same program makes the same bytes.
fn archive(reference: &str, entrypoint: &str, files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, content) in files {
        append(&mut layer, path, 0o755, content)?;
    }
    let layer = layer.into_inner()?;
    let platform = json!({"architecture": architecture(), "os": "linux"});
    let config = bytes(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    }));
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": format!("{MEDIA}.manifest.v1+json"),
        "config": descriptor("config.v1+json", &config),
        "layers": [descriptor("layer.v1.tar", &layer)],
    }));
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["annotations"] = json!({"io.containerd.image.name": reference});
    entry["platform"] = platform;
    let index = bytes(&json!({"schemaVersion": 2, "manifests": [entry]}));

    let mut archive = tar::Builder::new(Vec::new());
    append(
        &mut archive,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    append(&mut archive, "index.json", 0o644, &index)?;
    for blob in [config, manifest, layer] {
        let name = digest(&blob).replace(':', "/");
        append(&mut archive, format!("blobs/{name}"), 0o644, &blob)?;
    }
    Ok(archive.into_inner()?)
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": format!("{MEDIA}.{kind}"), "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", cache::hex(&sha2::Sha256::digest(blob)))
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
