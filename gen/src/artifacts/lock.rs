//! The lock: names, versions, addresses and checksums.

use std::cmp::Ordering;
use std::sync::Arc;

use units::node_config::Packing;
use units::types::{Arch, Digest, NodeName};

use crate::report::{Report, Source};
use crate::yaml::{self, Node, Object, Reader};

/// The version of the file's form.
const VERSION: &str = "1";

/// Where an entry was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The operator's kgen.lock.
    User,
    /// The lock inside kgen.
    Builtin,
}

/// One artifact that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `kubelet`, `etcd`, …
    pub name: String,
    /// `1.36.1`.
    pub version: String,
    /// For which processor.
    pub arch: Arch,
    /// Where it can be had, in this order.
    pub urls: Vec<String>,
    /// The checksum of the bytes as downloaded.
    pub digest: Digest,
    /// How many bytes are downloaded, where known.
    pub size: Option<u64>,
    /// How the bytes are packed.
    pub packing: Packing,
    /// Where the entry was read.
    pub origin: Origin,
}

/// Everything that can be had; the operator's entries come first.
#[derive(Debug, Clone, Default)]
pub struct Lock {
    pub(super) entries: Vec<Entry>,
    /// Where everything is looked for first.
    pub(super) mirrors: Vec<String>,
}

impl Lock {
    /// The built-in lock alone.
    pub fn builtin() -> Result<Self, Report> {
        let source = Source::new("the built-in lock", include_str!("builtin.yaml"));
        Ok(Self {
            entries: read(&source, Origin::Builtin)?,
            mirrors: Vec::new(),
        })
    }

    /// The operator's lock over the built-in one: an entry of the same name,
    /// version and processor replaces ours.
    pub fn load(source: &Arc<Source>) -> Result<Self, Report> {
        let mut entries = read(source, Origin::User)?;
        let builtin = Self::builtin()?.entries;
        let added = builtin
            .into_iter()
            .filter(|b| {
                !entries
                    .iter()
                    .any(|e| (&e.name, &e.version, e.arch) == (&b.name, &b.version, b.arch))
            })
            .collect::<Vec<_>>();
        entries.extend(added);
        Ok(Self {
            entries,
            mirrors: Vec::new(),
        })
    }

    /// Every entry, the operator's first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries of a name for a processor.
    pub fn named(&self, name: &str, arch: Arch) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |e| e.name == name && e.arch == arch)
    }

    /// The entry of exactly this version.
    pub fn exact(&self, name: &str, version: &str, arch: Arch) -> Option<&Entry> {
        self.named(name, arch).find(|e| e.version == version)
    }

    /// The newest entry of the operator's, else the newest of ours.
    pub fn newest(&self, name: &str, arch: Arch) -> Option<&Entry> {
        let newest = |origin| {
            self.named(name, arch)
                .filter(|e| e.origin == origin)
                .max_by(|a, b| compare_versions(&a.version, &b.version))
        };
        newest(Origin::User).or_else(|| newest(Origin::Builtin))
    }
}

/// Compares `3.6.14` and `3.6.9` number by number.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

fn read(source: &Arc<Source>, origin: Origin) -> Result<Vec<Entry>, Report> {
    let root = yaml::parse(source)?;
    let mut reader = Reader::new(Arc::clone(source));
    let r = &mut reader;
    let mut entries = Vec::new();
    if let Some(mut o) = r.object(&root, "") {
        let version = o.required(r, "version", Reader::text);
        if let Some(version) = version.filter(|v| v.value != VERSION) {
            let message = format!("version: this kgen reads locks of version {VERSION}");
            r.find(&version.span, message, None);
        }
        if let Some((node, path)) = o.get("artifacts") {
            entries = r.list(node, &path, |r, node, path| entry(r, node, path, origin));
        }
        o.finish(r);
    }
    reader.into_report().into_result()?;
    Ok(entries)
}

fn entry(r: &mut Reader, node: &Node, path: &str, origin: Origin) -> Option<Entry> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", |r, n, p| {
        r.parse_with(n, p, |text| {
            text.parse::<NodeName>()
                .map(|name| name.to_string())
                .map_err(|_| format!("{text:?} is not the name of an artifact"))
        })
    });
    let version = o.required(r, "version", |r, n, p| {
        r.parse_with(n, p, |text| {
            let version = text.strip_prefix('v').unwrap_or(text);
            let good = |b: u8| b.is_ascii_alphanumeric() || b"+-._~:".contains(&b);
            if !version.is_empty() && version.bytes().all(good) {
                Ok(version.to_owned())
            } else {
                Err(format!("{text:?} is not a version"))
            }
        })
    });
    let arch = o.required(r, "arch", Reader::parse::<Arch>);
    let urls = o.one_or_many(r, "url", "urls", url);
    if urls.is_empty() && o.get("url").is_none() && o.get("urls").is_none() {
        let span = o.span.clone();
        r.find(&span, format!("{path}.urls: missing"), None);
    }
    let digest = digest(r, &mut o);
    let size = o.read(r, "size", Reader::parse::<u64>);
    let packing = o.read(r, "packing", |r, n, p| {
        r.parse_with(n, p, |text| {
            let named = Packing::ALL.into_iter().find(|p| p.as_str() == text);
            named.ok_or_else(|| {
                let names = Packing::ALL.map(Packing::as_str).join(", ");
                format!("unknown packing {text:?}: use one of {names}")
            })
        })
    });
    o.finish(r);
    let packing = packing.map_or_else(|| packing_of(&urls), |p| p.value);
    Some(Entry {
        name: name?.value,
        version: version?.value,
        arch: arch?.value,
        urls,
        digest: digest?,
        size: size.map(|s| s.value),
        packing,
        origin,
    })
}

fn url(r: &mut Reader, node: &Node, path: &str) -> Option<String> {
    let url = r.parse_with(node, path, |text| {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        match rest {
            Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(text.to_owned())
            }
            _ => Err(format!("{text:?} is not an http or https address")),
        }
    });
    url.map(|u| u.value)
}

fn digest(r: &mut Reader, o: &mut Object<'_>) -> Option<Digest> {
    let mut read = |key: &'static str| {
        let (node, path) = o.get(key)?;
        Some(r.parse_with(node, &path, |hex| format!("{key}:{hex}").parse::<Digest>()))
    };
    let (sha256, sha512) = (read("sha256"), read("sha512"));
    match (sha256, sha512) {
        // Both: the longer one; each was looked at.
        (sha256, Some(sha512)) => sha512.or(sha256.flatten()).map(|d| d.value),
        (Some(sha256), None) => sha256.map(|d| d.value),
        (None, None) => {
            let span = o.span.clone();
            r.find(
                &span,
                format!("{}: neither sha256 nor sha512", o.path),
                None,
            );
            None
        }
    }
}

/// How the bytes are packed, by the ending of the first address.
pub fn packing_of(urls: &[String]) -> Packing {
    const ENDINGS: [(&str, Packing); 8] = [
        (".tar.gz", Packing::TarGz),
        (".tgz", Packing::TarGz),
        (".tar.xz", Packing::TarXz),
        (".tar.zst", Packing::TarZst),
        (".tar", Packing::Tar),
        (".gz", Packing::Gz),
        (".xz", Packing::Xz),
        (".zst", Packing::Zst),
    ];
    let url = urls.first().map_or("", String::as_str);
    let path = url.split(['?', '#']).next().unwrap_or(url);
    ENDINGS
        .into_iter()
        .find(|(ending, _)| path.ends_with(ending))
        .map_or(Packing::Plain, |(_, packing)| packing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_lock_is_good_and_pins_the_default_version() {
        let lock = Lock::builtin().unwrap();
        let version = crate::settings::DEFAULT_VERSION.to_string();
        for arch in [Arch::Amd64, Arch::Arm64] {
            for name in ["kubernetes-server", "kubernetes-node", "kubelet", "kubectl"] {
                assert!(lock.exact(name, &version, arch).is_some(), "{name}");
            }
            for name in ["etcd", "containerd", "runc", "cni-plugins", "crictl"] {
                assert!(lock.newest(name, arch).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn the_operators_entries_take_precedence() {
        let hash = "ab".repeat(32);
        let text = format!(
            "version: 1\nartifacts:\n\
             - {{name: etcd, version: 3.5.16, arch: amd64, url: 'http://m/etcd.tgz', sha256: {hash}}}\n\
             - {{name: etcd, version: 3.5.9, arch: amd64, url: 'http://m/etcd.tgz', sha256: {hash}}}\n\
             - {{name: kubelet, version: 1.36.1, arch: amd64, url: 'http://m/kubelet', sha256: {hash}}}\n"
        );
        let lock = Lock::load(&Source::new("kgen.lock", text)).unwrap();
        let etcd = lock.newest("etcd", Arch::Amd64).unwrap();
        assert_eq!(
            (etcd.version.as_str(), etcd.packing),
            ("3.5.16", Packing::TarGz)
        );
        let arm = lock.newest("etcd", Arch::Arm64).unwrap();
        assert_eq!(arm.origin, Origin::Builtin);
        let kubelet = lock.exact("kubelet", "1.36.1", Arch::Amd64).unwrap();
        assert_eq!(kubelet.urls, ["http://m/kubelet"]);
    }

    #[test]
    fn malformed_entries_are_told_with_their_place() {
        let text = "version: 1\nartifacts:\n- name: etcd\n  version: 3.5.16\n  arch: amd64\n  \
                    urls: [ftp://m/etcd]\n  sha256: abc\n";
        let report = Lock::load(&Source::new("kgen.lock", text)).unwrap_err();
        let text = report.to_string();
        assert!(
            text.contains("kgen.lock:7:11: artifacts[0].sha256: malformed"),
            "{text}"
        );
        assert!(
            text.contains("kgen.lock:6:10: artifacts[0].urls[0]"),
            "{text}"
        );
        assert_eq!(report.findings().len(), 2, "{text}");
    }
}
