//! `artifacts`: mirrors of what machines download, and versions.

use std::collections::BTreeMap;
use std::ops::Range;

use super::keys::number;
use super::registries::public_url;
use crate::system::Origin;
use crate::yaml::{Node, Reader};

/// Where downloads come from, and which of the pinned ones are taken.
#[derive(Debug, Clone, Default)]
pub struct ArtifactSources {
    /// Tried before an artifact's own addresses, in this order; without a
    /// slash at the end.
    pub mirrors: Vec<String>,
    /// The port at which machines offer each other what they downloaded; none:
    /// they do not.
    pub neighbours: Option<u16>,
    /// Where that was typed.
    pub neighbours_span: Range<usize>,
    /// The versions that are taken, by the name of the artifact.
    pub versions: BTreeMap<&'static str, Pinned>,
}

/// A version that was asked for.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// `3.6.14`.
    pub version: String,
    /// Where it was typed.
    pub origin: Origin,
}

/// The port of neighbours, unless another is named.
const NEIGHBOURS_PORT: u16 = 7444;

/// What has versions of its own; Kubernetes' are `kubernetesVersion`.
const NAMES: [&str; 5] = ["etcd", "containerd", "runc", "cni-plugins", "crictl"];

/// Reads the mapping.
pub fn read(r: &mut Reader, node: &Node, path: &str) -> Option<ArtifactSources> {
    let mut o = r.object(node, path)?;
    let mirrors = match o.get("mirrors") {
        Some((node, path)) => r.list(node, &path, |r, n, p| {
            public_url(r, n, p).map(|mirror| mirror.value)
        }),
        None => Vec::new(),
    };
    let neighbours = o.read(r, "neighbours", Reader::boolean);
    let port = o.read(r, "neighboursPort", |r, n, p| number(r, n, p, 1..=65_535));
    let typed = port.as_ref().map(|port| port.span.clone());
    let typed = typed.or_else(|| neighbours.as_ref().map(|typed| typed.span.clone()));
    let port = port.map_or(NEIGHBOURS_PORT, |port| port.value);
    let mut versions = BTreeMap::new();
    if let Some((node, path)) = o.get("versions")
        && let Some(mut o) = r.object(node, &path)
    {
        for name in NAMES {
            if let Some(version) = o.read(r, name, Reader::text) {
                let origin = Origin {
                    path: version.path,
                    place: r.place(&version.span),
                };
                let version = match version.value.strip_prefix('v') {
                    Some(version) => version.to_owned(),
                    None => version.value,
                };
                versions.insert(name, Pinned { version, origin });
            }
        }
        o.finish(r);
    }
    o.finish(r);
    Some(ArtifactSources {
        mirrors,
        neighbours: neighbours.is_some_and(|at| at.value).then_some(port),
        neighbours_span: typed.unwrap_or_default(),
        versions,
    })
}
