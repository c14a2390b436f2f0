//! The lock from what is published.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use units::types::{Arch, Digest};

use super::{Pin, is_published, verify, version_of};
use crate::artifacts::{self, Algorithm, Entry, Lock, Origin, Published};
use crate::cluster::Cluster;
use crate::commands::terminal;
use crate::mirror::{Mirrors, Trouble};
use crate::report::{Finding, Report};

/// So many files are asked for at once.
const AT_ONCE: usize = 6;

/// What becomes of one artifact.
#[derive(Debug)]
struct Item {
    name: String,
    version: String,
    arch: Arch,
    /// Where it is published.
    published: Published,
    /// The entry that is there.
    old: Option<Entry>,
}

/// Entries as they are published.
pub fn entries(
    known: &Lock,
    cluster: &Cluster,
    args: &Pin<'_>,
    versions: &BTreeMap<&str, &str>,
) -> Result<Vec<Entry>> {
    let mut report = Report::default();
    let mut items = Vec::new();
    let mut wanted: BTreeSet<(String, Arch)> = artifacts::needed(cluster, args.archs)
        .into_iter()
        .map(|(name, arch)| (name.to_owned(), arch))
        .collect();
    let archs: BTreeSet<Arch> = wanted.iter().map(|(_, arch)| *arch).collect();
    for name in versions.keys().filter(|name| **name != "kubernetes") {
        wanted.extend(archs.iter().map(|arch| ((*name).to_owned(), *arch)));
    }
    for (name, arch) in wanted {
        let version = version_of(&name, arch, known, cluster, versions);
        let published = version
            .as_ref()
            .and_then(|version| artifacts::published(&name, version, arch));
        let (Some(version), Some(published)) = (version, published) else {
            let message = format!("no version of {name} for {arch} is known");
            report.add(Finding::new(message).help(format!("say which: --version {name}=…")));
            continue;
        };
        let old = known.exact(&name, &version, arch);
        let old = old.filter(|e| e.origin == Origin::User).cloned();
        if old
            .as_ref()
            .is_some_and(|old| !is_published(old, &published))
        {
            terminal::say(&format!(
                "kgen: left {name} {version} for {arch} as it is: it is not from {}",
                published.place
            ));
            continue;
        }
        items.push(Item {
            name,
            version,
            arch,
            published,
            old,
        });
    }
    report.into_result()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting to use the network")?;
    runtime.block_on(async {
        let mirrors = Mirrors::new()?;
        let resolved: Vec<_> = stream::iter(&items)
            .map(|item| resolve(&mirrors, item, args.mirrors))
            .buffered(AT_ONCE)
            .collect()
            .await;
        let entries = all_or_none(resolved)?;
        if args.verify {
            verify::all(&mirrors, &entries).await?;
        }
        Ok(entries)
    })
}

/// Every result, or everything that is wrong.
pub fn all_or_none<T>(results: Vec<Result<T, Trouble>>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut report = Report::default();
    let mut outside = Vec::new();
    for result in results {
        match result {
            Ok(value) => all.push(value),
            Err(Trouble::Refused(message)) => report.add(Finding::new(message)),
            Err(Trouble::Outside(error)) => outside.push(error),
        }
    }
    report.into_result()?;
    let more = outside.len().saturating_sub(1);
    match outside.into_iter().next() {
        None => Ok(all),
        Some(error) if more == 0 => Err(error),
        Some(error) => Err(error.context(format!("{} files could not be read", more + 1))),
    }
}

/// Tries one address after the other; the last one's trouble is told.
async fn first<T, F>(urls: &[String], get: impl Fn(String) -> F) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Trouble>>,
{
    let mut last = Trouble::Refused("there is no address".to_owned());
    for url in urls {
        match get(url.clone()).await {
            Ok(value) => return Ok(value),
            Err(trouble) => last = trouble,
        }
    }
    Err(last)
}

async fn resolve(client: &Mirrors, item: &Item, mirrors: &[String]) -> Result<Entry, Trouble> {
    let digest = digest(client, item, mirrors).await?;
    let pinned = item.old.as_ref().map(|old| &old.digest);
    if let Some(pinned) = pinned
        && Algorithm::of(pinned) == Algorithm::of(&digest)
        && *pinned != digest
    {
        return Err(Trouble::Refused(format!(
            "{} {} for {}: is pinned as {pinned}, and {} now says {digest}: releases do not \
             change; find out who changed it, or remove the entry from kgen.lock",
            item.name,
            item.version,
            item.arch,
            item.published.urls(mirrors)[0],
        )));
    }
    let urls = match &item.old {
        // What was typed stays, unless mirrors were named.
        Some(old) if mirrors.is_empty() => old.urls.clone(),
        _ => item.published.urls(mirrors),
    };
    let size = match item.old.as_ref().and_then(|old| old.size) {
        Some(size) => Some(size),
        None => {
            let client = client.clone();
            first(&urls, |url| {
                let client = client.clone();
                async move { client.size(&url).await }
            })
            .await?
        }
    };
    let packing = item.old.as_ref().map(|old| old.packing);
    Ok(Entry {
        name: item.name.clone(),
        version: item.version.clone(),
        arch: item.arch,
        packing: packing.unwrap_or_else(|| artifacts::packing_of(&urls)),
        urls,
        digest: pinned.cloned().unwrap_or(digest),
        size,
        origin: Origin::User,
    })
}

/// The published checksum: from the first file of them that is there, of the
/// kind that is pinned if there is one.
async fn digest(client: &Mirrors, item: &Item, mirrors: &[String]) -> Result<Digest, Trouble> {
    let pinned = item.old.as_ref().map(|old| Algorithm::of(&old.digest));
    let mut all: Vec<_> = item.published.sums.iter().collect();
    all.sort_by_key(|sums| pinned.is_some_and(|pinned| pinned != sums.algorithm));
    let mut last = None;
    for sums in all {
        let urls = sums.urls(mirrors);
        let found = first(&urls, |url| {
            let client = client.clone();
            async move {
                let text = client.text(&url).await?;
                let file = item.published.file();
                artifacts::find_checksum(&text, file, sums.algorithm, sums.single)
                    .map_err(|why| Trouble::Refused(format!("{url}: {why}")))
            }
        })
        .await;
        match found {
            Ok(digest) => return Ok(digest),
            // The first that was tried says best what is wrong.
            Err(trouble) => last = last.or(Some(trouble)),
        }
    }
    Err(last.unwrap_or_else(|| Trouble::Refused(format!("{}: has no checksum", item.name))))
}
