//! The root file system that all nodes share: Debian, as a cloud would offer it.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache;
use crate::command::run;

/// The Debian release that nodes run.
pub const SUITE: &str = "trixie";

/// What a node has before anything of ours gets there. etcd is not among it: its
/// binaries are served as an artifact, like upstream's ([`crate::artifacts::etcd`]).
pub const PACKAGES: [&str; 20] = [
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "dbus",
    "udev",
    "cloud-init",
    "openssh-server",
    "sudo",
    "iproute2",
    "iputils-ping",
    "nftables",
    "iptables",
    "kmod",
    "procps",
    "ca-certificates",
    "curl",
    "containerd",
    "runc",
    "containernetworking-plugins",
];

/// What the makers of cloud images do: networkd runs, and nothing identifies a machine.
const FINISH: &str = r#"
systemctl --root="$1" enable systemd-networkd.service
rm -f "$1"/etc/ssh/ssh_host_*
echo localhost >"$1/etc/hostname"
: >"$1/etc/machine-id"
"#;

/// Bit 24 of a capability set.
const CAP_SYS_RESOURCE: u32 = 24;

/// Stands in for runc where the machine lacks that capability.
const RUNC: &str = r#"#!/bin/sh
# On this machine nobody may lower an OOM score (CAP_SYS_RESOURCE is missing), and runc
# gives up where it cannot: have it ask for the neutral score instead.
last=
for word; do
    case $last in
    --bundle | -b) sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$word/config.json" ;;
    --process | -p) sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$word" ;;
    esac
    last=$word
done
exec /usr/sbin/runc.real "$@"
"#;

/// The root file system, built by mmdebstrap when this list of packages has none yet.
pub fn directory() -> Result<PathBuf> {
    with(&[])
}

/// The same with more packages than every node has.
fn with(more: &[&str]) -> Result<PathBuf> {
    cache::once(&format!("rootfs-{}", key(more)), |target| {
        let hook = format!("--customize-hook=set -e; {FINISH}");
        let packages = [&PACKAGES[..], more].concat();
        mmdebstrap(SUITE, "minbase", &packages, &[&hook], target)
    })
}

/// Only unpacks packages and what they depend on, nothing is configured. Returns the
/// folder.
pub(crate) fn unpacked(packages: &[&str]) -> Result<PathBuf> {
    unpacked_from(SUITE, packages)
}

/// The same from another release of Debian.
pub(crate) fn unpacked_from(suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let parts = packages.iter().chain([&suite]).map(|part| part.as_bytes());
    let name = format!("unpacked-{}-{}", packages[0], &cache::digest(parts)[..16]);
    cache::once(&name, |target| {
        // base-files has the links (/lib64) without which no program runs.
        let packages: Vec<_> = packages.iter().copied().chain(["base-files"]).collect();
        // A mirror that is a snapshot has an index that is long out of date; it
        // is signed all the same.
        let late = r#"--aptopt=Acquire::Check-Valid-Until "false""#;
        mmdebstrap(suite, "extract", &packages, &[late], target)
    })
}

/// OpenStack's programs, whose clients and servers are all of one release. They run as
/// they are unpacked, by `python3` in a chroot.
pub fn openstack() -> Result<PathBuf> {
    let packages = [
        "neutron-server",
        "neutron-plugin-ml2",
        "python3-heat",
        "python3-openstackclient",
        "python3-octaviaclient",
        "python3-heatclient",
    ];
    unpacked_from("bookworm", &packages)
}

/// The layers of a node's overlay, uppermost first; `more` are packages that
/// this node has besides.
pub(crate) fn layers(more: &[&str]) -> Result<Vec<PathBuf>> {
    let base = with(more)?;
    if may_lower_oom_scores()? {
        return Ok(vec![base]);
    }
    let key = cache::digest([key(more).as_bytes(), RUNC.as_bytes()]);
    let adapted = cache::once(&format!("runc-{}", &key[..16]), |target| {
        let programs = target.join("usr/sbin");
        fs::create_dir_all(&programs)?;
        fs::copy(base.join("usr/sbin/runc"), programs.join("runc.real")).context("copying runc")?;
        fs::write(programs.join("runc"), RUNC)?;
        fs::set_permissions(programs.join("runc"), Permissions::from_mode(0o755))?;
        Ok(())
    })?;
    Ok(vec![adapted, base])
}

/// Whether processes on this machine may lower their OOM score, as the kubelet's pods do.
pub fn may_lower_oom_scores() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("reading capabilities")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.context("no effective capabilities")?.trim();
    Ok(u64::from_str_radix(set, 16)? >> CAP_SYS_RESOURCE & 1 == 1)
}

fn key(more: &[&str]) -> String {
    let packages = PACKAGES.iter().chain(more).copied();
    let parts = packages.chain([SUITE, FINISH]);
    cache::digest(parts.map(str::as_bytes))[..16].to_owned()
}

fn mmdebstrap(
    suite: &str,
    variant: &str,
    packages: &[&str],
    more: &[&str],
    target: &Path,
) -> Result<()> {
    let mirror = mirror()?;
    eprintln!("mmdebstrap --variant={variant} {suite} from {mirror}");
    run(Command::new("mmdebstrap")
        .arg("--mode=root")
        .arg("--format=directory")
        .arg(format!("--variant={variant}"))
        .arg(format!("--include={}", packages.join(",")))
        .args(more)
        .arg(suite)
        .arg(target)
        .arg(mirror))?;
    Ok(())
}

/// The Debian mirror of the machine's own apt sources.
pub fn mirror() -> Result<String> {
    if let Some(mirror) = env::var("KNODE_TEST_MIRROR")
        .ok()
        .filter(|it| !it.is_empty())
    {
        return Ok(mirror);
    }
    let sources = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Component: main",
    ]))?;
    // A Debian archive is called so; beside it are security, backports and vendors.
    let mirror = sources
        .lines()
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    let mirror = mirror.context("no Debian mirror in the apt sources; set $KNODE_TEST_MIRROR")?;
    Ok(mirror.to_owned())
}
