//! The lock from what is known already.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use units::types::Arch;

use super::{Pin, is_published};
use crate::artifacts::{self, Entry, Lock, Wanted};
use crate::cluster::Cluster;
use crate::report::{Finding, Report};

/// Entries from what is known: nothing else is asked.
pub fn entries(
    known: &Lock,
    cluster: &Cluster,
    args: &Pin<'_>,
    versions: &BTreeMap<&str, &str>,
) -> Result<Vec<Entry>> {
    let kubernetes = cluster.version.to_string();
    let kubernetes = versions.get("kubernetes").copied().unwrap_or(&kubernetes);
    let mut report = Report::default();
    let mut chosen: BTreeMap<(String, Arch), Entry> = BTreeMap::new();
    for machine in &cluster.machines {
        let own = [machine.arch];
        for arch in if args.archs.is_empty() {
            &own
        } else {
            args.archs
        } {
            let wanted = Wanted {
                role: machine.role,
                etcd: cluster.runs_etcd(machine),
                static_pods: cluster.static_pods,
                arch: *arch,
                kubernetes,
                runtime: cluster.runtime_source,
            };
            match artifacts::select(known, wanted) {
                Ok(artifacts) => {
                    for artifact in artifacts {
                        let entry = known.exact(&artifact.name, &artifact.version, *arch);
                        chosen.extend(entry.map(|e| ((artifact.name, *arch), e.clone())));
                    }
                }
                Err(lacks) => lacks.findings().iter().for_each(|f| report.add(f.clone())),
            }
        }
    }
    let archs: BTreeSet<Arch> = chosen.keys().map(|(_, arch)| *arch).collect();
    for (name, version) in versions.iter().filter(|(name, _)| **name != "kubernetes") {
        for arch in &archs {
            match known.exact(name, version, *arch) {
                Some(entry) => {
                    chosen.insert(((*name).to_owned(), *arch), entry.clone());
                }
                None => report.add(
                    Finding::new(format!("no lock names {name} {version} for {arch}"))
                        .help("kgen lock without --offline asks where it is published"),
                ),
            }
        }
    }
    report.into_result()?;
    let mut entries: Vec<Entry> = chosen.into_values().collect();
    for entry in &mut entries {
        let place = artifacts::published(&entry.name, &entry.version, entry.arch);
        if let Some(place) = place.filter(|p| !args.mirrors.is_empty() && is_published(entry, p)) {
            entry.urls = place.urls(args.mirrors);
        }
    }
    Ok(entries)
}
