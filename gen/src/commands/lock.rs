//! `kgen lock`: pins what machines download.

mod offline;
mod online;
mod verify;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use units::types::{Arch, Role};

use super::terminal;
use crate::artifacts::{self, Entry, Lock, Origin, Published};
use crate::cluster::Cluster;
use crate::out::{Change, PUBLIC_MODE, Stage};
use crate::report::{Finding, Report, Source};
use crate::workspace::{self, Input, Workspace};

/// What to pin, and from where.
#[derive(Debug)]
pub struct Pin<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// For which processors; none: those of the settings.
    pub archs: &'a [Arch],
    /// Which versions, `NAME=VERSION`; others are as they were.
    pub versions: &'a [String],
    /// What stands before a host: `MIRROR/HOST/PATH`.
    pub mirrors: &'a [String],
    /// Whether the network is left alone.
    pub offline: bool,
    /// Whether the bytes themselves are looked at.
    pub verify: bool,
    /// Whether the lock is printed and not written.
    pub dry_run: bool,
}

/// Writes kgen.lock.
pub fn run(args: &Pin<'_>) -> Result<()> {
    let fallback = [
        ("master".parse()?, Role::Master),
        ("node".parse()?, Role::Node),
    ];
    let workspace = Workspace::open(args.input, &fallback)?;
    let path = workspace.lock_path();
    let source = workspace::source(&path)?;
    let known = match &source {
        Some(source) => Lock::load(source)?,
        None => Lock::builtin()?,
    };
    check_mirrors(args.mirrors)?;
    let versions = versions(args.versions)?;
    let cluster = &workspace.cluster;
    let entries = if args.offline {
        offline::entries(&known, cluster, args, &versions)?
    } else {
        online::entries(&known, cluster, args, &versions)?
    };
    write(args, &path, source.as_ref(), &known, entries)
}

fn check_mirrors(mirrors: &[String]) -> Result<(), Report> {
    let mut report = Report::default();
    for mirror in mirrors {
        let rest = ["https://", "http://"]
            .iter()
            .find_map(|s| mirror.strip_prefix(s));
        if rest.is_none_or(|rest| rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_graphic())) {
            let finding = Finding::new(format!("{mirror}: is not an http or https address"));
            report.add(finding.help("files are read from MIRROR/dl.k8s.io/… and so on"));
        }
    }
    report.into_result()?;
    for mirror in mirrors.iter().filter(|m| !m.starts_with("https://")) {
        let host = mirror.trim_start_matches("http://");
        if !["127.", "[::1]", "localhost"]
            .iter()
            .any(|l| host.starts_with(l))
        {
            terminal::say(&format!(
                "kgen: {mirror} is not encrypted: whoever is on the way may change checksums too"
            ));
        }
    }
    Ok(())
}

/// `NAME=VERSION` → what was asked for.
fn versions(asked: &[String]) -> Result<BTreeMap<&str, &str>, Report> {
    let mut report = Report::default();
    let mut versions = BTreeMap::new();
    for asked in asked {
        let pair = asked.split_once('=');
        let pair = pair.map(|(name, version)| (name, version.strip_prefix('v').unwrap_or(version)));
        let good = |version: &str| {
            version.starts_with(|c: char| c.is_ascii_digit())
                && version
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b))
        };
        match pair {
            Some((name, _)) if !artifacts::is_known(name) => report.add(
                Finding::new(format!(
                    "{asked}: it is not known where {name} is published"
                ))
                .help(
                    "kubernetes, etcd, containerd, runc, cni-plugins and crictl are; write \
                     entries of others into kgen.lock yourself",
                ),
            ),
            Some((name, version)) if good(version) => {
                versions.insert(name, version);
            }
            _ => report.add(
                Finding::new(format!("{asked}: is not NAME=VERSION"))
                    .help("as in kubernetes=1.36.1 or etcd=3.6.14"),
            ),
        }
    }
    report.into_result()?;
    Ok(versions)
}

/// The version of an artifact: as asked for, else as the settings say, else
/// as the lock knows it.
fn version_of(
    name: &str,
    arch: Arch,
    known: &Lock,
    cluster: &Cluster,
    versions: &BTreeMap<&str, &str>,
) -> Option<String> {
    if let Some(version) = versions.get(name) {
        return Some((*version).to_owned());
    }
    if name.starts_with("kube") {
        let asked = versions.get("kubernetes").map(|v| (*v).to_owned());
        return Some(asked.unwrap_or_else(|| cluster.version.to_string()));
    }
    known.newest(name, arch).map(|entry| entry.version.clone())
}

/// Whether an entry is what was published, wherever it is had from; others
/// are the operator's own.
fn is_published(entry: &Entry, published: &Published) -> bool {
    let place = format!("/{}", published.place);
    entry.urls.iter().any(|url| url.ends_with(&place))
}

/// Writes the lock, or prints it, and says what has changed.
fn write(
    args: &Pin<'_>,
    path: &Path,
    source: Option<&Arc<Source>>,
    known: &Lock,
    entries: Vec<Entry>,
) -> Result<()> {
    let user = |e: &&Entry| e.origin == Origin::User;
    let same =
        |a: &Entry, b: &Entry| (&a.name, &a.version, a.arch) == (&b.name, &b.version, b.arch);
    let (mut gone, mut new, mut kept) = (Vec::new(), Vec::new(), 0);
    let mut told = Vec::new();
    for entry in entries {
        let (name, version, arch) = (entry.name.clone(), entry.version.clone(), entry.arch);
        let what = format!("{name} {version} for {arch}");
        let old = known
            .entries()
            .iter()
            .filter(user)
            .find(|e| same(e, &entry));
        match old {
            Some(old)
                if *old
                    == (Entry {
                        origin: Origin::User,
                        ..entry.clone()
                    }) =>
            {
                kept += 1
            }
            Some(old) => {
                gone.push(old);
                told.push(format!("changed {what}"));
                new.push(entry);
            }
            None => {
                told.push(format!("added {what}"));
                new.push(entry);
            }
        }
        // Of packages the newest is taken: another version would go before.
        if name.starts_with("kube") {
            continue;
        }
        for other in known.entries().iter().filter(user) {
            if (&other.name, other.arch) != (&name, arch) || other.version == version {
                continue;
            }
            let what = format!("{} {} for {}", other.name, other.version, other.arch);
            let place = artifacts::published(&other.name, &other.version, other.arch);
            if place.is_some_and(|place| is_published(other, &place)) {
                told.push(format!("removed {what}"));
                gone.push(other);
            } else {
                told.push(format!(
                    "left {what}, which is your own: the newest is taken"
                ));
            }
        }
    }
    let edited = artifacts::edit(source, &gone, &new)?;
    for line in told {
        terminal::say(&format!("kgen: {line}"));
    }
    if kept > 0 {
        let s = if kept == 1 { "y" } else { "ies" };
        terminal::say(&format!("kgen: {kept} entr{s} as before"));
    }
    let shown = path.display();
    if edited.lost_comments {
        terminal::say(&format!(
            "kgen: {shown} is not a list of one item a line: it is written anew, without its \
             comments"
        ));
    }
    if args.dry_run {
        return terminal::print(edited.text.as_bytes());
    }
    // A lock that is kept from others stays so.
    let mode = fs::metadata(path).map_or(PUBLIC_MODE, |meta| meta.permissions().mode() & 0o777);
    let mut stage = Stage::default();
    stage.write(path, edited.text, mode)?;
    if stage
        .commit()?
        .iter()
        .any(|(_, change)| *change != Change::Unchanged)
    {
        terminal::say(&format!("kgen: wrote {shown}"));
    }
    Ok(())
}
