//! Boot images as kimage builds them, with the knode under test, and what a machine that
//! boots them is asked for.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use images::catalogue::Content;
use images::cli::Cli;

use crate::cluster::Cluster;
use crate::qemu::Machine;
use crate::{cache, rootfs};

/// The first byte of TLS.
const HANDSHAKE: u8 = 0x16;

/// Builds all images with this knode.
pub fn kimage(knode: &Path, out: &Path) -> Result<()> {
    let path = |path: &Path| path.display().to_string();
    let packages = path(&cache::directory().join("packages"));
    let (knode, out, mirror) = (path(knode), path(out), rootfs::mirror()?);
    // With less to hash than the default; machines grow it.
    let words = [
        "kimage",
        "build",
        "--kernel",
        "cloud",
        "--disk-size",
        "1024",
    ];
    let flags = ["--out", &out, "--knode", &knode, "--mirror", &mirror];
    let words = words.iter().chain(&flags).copied();
    let words = words.chain(["--packages", packages.as_str(), "--allow-expired"]);
    Cli::try_parse_from(words)?.run()?;
    Ok(())
}

/// The folder with all images, built when kimage and knode as they are have none yet.
pub fn files(knode: &Path) -> Result<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../images"));
    let mut parts = vec![Content::of(knode)?.sha256.into_bytes()];
    for folder in ["src", "files"] {
        let mut paths = Vec::new();
        for entry in fs::read_dir(root.join(folder))? {
            paths.push(entry?.path());
        }
        paths.sort();
        for path in paths {
            parts.push(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
        }
    }
    parts.push(fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/boot_images.rs"
    ))?);
    let key = cache::digest(parts.iter().map(Vec::as_slice));
    cache::once(&format!("images-{}", &key[..16]), |out| {
        discard_old()?;
        kimage(knode, out)
    })
}

/// Images are large, and every change of knode makes others: those of yesterday go.
fn discard_old() -> Result<()> {
    for entry in fs::read_dir(cache::directory())? {
        let entry = entry?;
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        let ours = entry.file_name().to_string_lossy().starts_with("images-");
        if ours && age > Duration::from_secs(24 * 60 * 60) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Stands where a cluster's master will be: who connects to its API server wants to join.
#[derive(Debug)]
pub struct AwaitedMaster(Receiver<Ipv4Addr>);

impl AwaitedMaster {
    /// Listens at the master's address, until the test's process ends.
    pub fn listen(cluster: &Cluster, address: Ipv4Addr) -> Result<Self> {
        let network = cluster.network();
        network.add_address(&format!("{address}/32"))?;
        let listener = network.inside(|| {
            TcpListener::bind((address, 6443)).with_context(|| format!("listening on {address}"))
        })?;
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut first = [0];
                let limit = stream.set_read_timeout(Some(Duration::from_secs(10)));
                // Whoever says something else, or nothing, is no client of an API server.
                if limit.is_err() || stream.read_exact(&mut first).is_err() {
                    continue;
                }
                if let (HANDSHAKE, Ok(peer)) = (first[0], stream.peer_addr())
                    && let std::net::IpAddr::V4(peer) = peer.ip()
                    && sender.send(peer).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Waits until the machine with this address asks for its master: knode runs, and it
    /// is the image's, since nobody asked for a download of it.
    pub fn is_asked_by(
        &self,
        address: Ipv4Addr,
        cluster: &Cluster,
        machine: &mut Machine,
        limit: Duration,
    ) -> Result<()> {
        machine.until("knode at its master's door", limit, |_| {
            Ok(self.0.try_iter().find(|peer| *peer == address))
        })?;
        ensure!(
            cluster.server.requests("/knode") == 0,
            "knode was not the image's"
        );
        Ok(())
    }
}
