//! Mirrors and versions of the settings, laid over the lock.

use std::collections::BTreeSet;

use units::types::Arch;

use super::lock::Lock;
use crate::cluster::ArtifactSources;
use crate::report::Report;

impl Lock {
    /// The lock with those entries alone that the settings ask for, at the
    /// mirrors first. `archs` are the processors of the machines at hand.
    ///
    /// # Errors
    ///
    /// Every version that no entry has, with those that are pinned.
    pub fn narrowed(mut self, sources: &ArtifactSources, archs: &[Arch]) -> Result<Self, Report> {
        let mut report = Report::default();
        for (name, asked) in &sources.versions {
            for arch in archs {
                if self.exact(name, &asked.version, *arch).is_some() {
                    continue;
                }
                let pinned: BTreeSet<&str> = self
                    .named(name, *arch)
                    .map(|entry| entry.version.as_str())
                    .collect();
                let pinned: Vec<&str> = pinned.into_iter().collect();
                let help = match pinned[..] {
                    [] => "add an entry to kgen.lock".to_owned(),
                    _ => format!("pinned: {}; add others to kgen.lock", pinned.join(", ")),
                };
                let message = format!("no lock names {name} {} for {arch}", asked.version);
                report.add(asked.origin.finding(message).help(help));
            }
        }
        report.into_result()?;
        self.entries.retain(|entry| {
            let asked = sources.versions.get(entry.name.as_str());
            asked.is_none_or(|asked| asked.version == entry.version)
        });
        self.mirrors.clone_from(&sources.mirrors);
        for entry in &mut self.entries {
            let urls = entry
                .urls
                .iter()
                .flat_map(|url| mirrored(&sources.mirrors, url));
            let own = entry.urls.iter().cloned();
            let all: Vec<String> = urls.chain(own).collect();
            entry.urls = all;
        }
        Ok(self)
    }

    /// Where something can be had that no entry names: at the mirrors, then at
    /// `url` itself.
    pub fn places(&self, url: &str) -> Vec<String> {
        let mut places: Vec<String> = mirrored(&self.mirrors, url).collect();
        places.push(url.to_owned());
        places
    }
}

/// A URL at every mirror: `MIRROR/HOST[:PORT]/PATH`, without the scheme.
fn mirrored<'m>(mirrors: &'m [String], url: &str) -> impl Iterator<Item = String> + use<'m> {
    let rest = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .to_owned();
    mirrors.iter().map(move |mirror| format!("{mirror}/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first_in_their_order() {
        let sources = ArtifactSources {
            mirrors: vec!["https://a/m".to_owned(), "http://b:81".to_owned()],
            ..ArtifactSources::default()
        };
        let lock = Lock::builtin().unwrap();
        let lock = lock.narrowed(&sources, &[Arch::Amd64]).unwrap();
        let etcd = lock.newest("etcd", Arch::Amd64).unwrap();
        let path =
            "github.com/etcd-io/etcd/releases/download/v3.6.14/etcd-v3.6.14-linux-amd64.tar.gz";
        assert_eq!(
            etcd.urls[..3],
            [
                format!("https://a/m/{path}"),
                format!("http://b:81/{path}"),
                format!("https://{path}")
            ]
        );
        assert_eq!(
            lock.places("http://c:8080/knode"),
            [
                "https://a/m/c:8080/knode",
                "http://b:81/c:8080/knode",
                "http://c:8080/knode"
            ]
        );
    }
}
