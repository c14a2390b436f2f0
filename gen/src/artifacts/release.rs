//! Where releases are published, and their checksums beside them: a pure
//! table.
//!
//! Sources: "Download Kubernetes" (kubernetes.io) for dl.k8s.io, and the
//! release pages of the other projects.

use std::collections::BTreeSet;

use units::types::{Arch, Role};

use super::catalogue;
use super::checksum::Algorithm;
use crate::cluster::Cluster;

/// The programs of a Kubernetes release, and its archives.
const KUBERNETES: [&str; 8] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kubernetes-node",
    "kubernetes-server",
];
/// What is published by itself.
const PACKAGES: [&str; 5] = ["cni-plugins", "containerd", "crictl", "etcd", "runc"];

/// Whether it is known where artifacts of this name are published.
/// `kubernetes` stands for the programs of a release.
pub fn is_known(name: &str) -> bool {
    name == "kubernetes" || KUBERNETES.contains(&name) || PACKAGES.contains(&name)
}

/// One published file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its address without the scheme: `dl.k8s.io/v1.36.1/bin/linux/amd64/kubelet`.
    pub place: String,
    /// The files with its checksum, the best first.
    pub sums: Vec<Sums>,
}

/// A file with checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Its address without the scheme.
    pub place: String,
    /// Of which kind they are.
    pub algorithm: Algorithm,
    /// Whether it is for one file alone, and may then leave out the name.
    pub single: bool,
}

impl Published {
    /// The file's own name.
    pub fn file(&self) -> &str {
        self.place.rsplit('/').next().unwrap_or(&self.place)
    }

    /// Its addresses: with every mirror before the host, or where it was
    /// published.
    pub fn urls(&self, mirrors: &[String]) -> Vec<String> {
        urls(&self.place, mirrors)
    }
}

impl Sums {
    /// Its addresses, as those of the file itself.
    pub fn urls(&self, mirrors: &[String]) -> Vec<String> {
        urls(&self.place, mirrors)
    }
}

fn urls(place: &str, mirrors: &[String]) -> Vec<String> {
    if mirrors.is_empty() {
        return vec![format!("https://{place}")];
    }
    mirrors
        .iter()
        .map(|mirror| format!("{}/{place}", mirror.trim_end_matches('/')))
        .collect()
}

/// Where an artifact is published; none for names that are not known.
pub fn published(name: &str, version: &str, arch: Arch) -> Option<Published> {
    let github = |project: &str, file: String| {
        format!("github.com/{project}/releases/download/v{version}/{file}")
    };
    // A file of checksums beside the artifact, or one for the whole release.
    let beside = |place: &str, endings: &[(&str, Algorithm)]| -> Vec<Sums> {
        let sums = endings.iter().map(|(ending, algorithm)| Sums {
            place: format!("{place}.{ending}"),
            algorithm: *algorithm,
            single: true,
        });
        sums.collect()
    };
    let of_release = |place: String| {
        vec![Sums {
            place,
            algorithm: Algorithm::Sha256,
            single: false,
        }]
    };
    let both = [("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)];
    let (place, sums) = match name {
        "kubernetes-server" | "kubernetes-node" => {
            let place = format!("dl.k8s.io/v{version}/{name}-linux-{arch}.tar.gz");
            let sums = beside(&place, &both);
            (place, sums)
        }
        _ if KUBERNETES.contains(&name) => {
            let place = format!("dl.k8s.io/v{version}/bin/linux/{arch}/{name}");
            let sums = beside(&place, &both);
            (place, sums)
        }
        "etcd" => (
            github(
                "etcd-io/etcd",
                format!("etcd-v{version}-linux-{arch}.tar.gz"),
            ),
            of_release(github("etcd-io/etcd", "SHA256SUMS".to_owned())),
        ),
        "containerd" => {
            let file = format!("containerd-{version}-linux-{arch}.tar.gz");
            let place = github("containerd/containerd", file);
            let sums = beside(&place, &[("sha256sum", Algorithm::Sha256)]);
            (place, sums)
        }
        "runc" => (
            github("opencontainers/runc", format!("runc.{arch}")),
            of_release(github("opencontainers/runc", "runc.sha256sum".to_owned())),
        ),
        "cni-plugins" => {
            let file = format!("cni-plugins-linux-{arch}-v{version}.tgz");
            let place = github("containernetworking/plugins", file);
            let sums = beside(&place, &both);
            (place, sums)
        }
        "crictl" => {
            let file = format!("crictl-v{version}-linux-{arch}.tar.gz");
            let place = github("kubernetes-sigs/cri-tools", file);
            let sums = beside(&place, &both);
            (place, sums)
        }
        _ => return None,
    };
    Some(Published { place, sums })
}

/// The artifacts that the machines of a cluster need, by name, as single
/// programs; on the processors of the settings or on those that are named.
pub fn needed(cluster: &Cluster, archs: &[Arch]) -> BTreeSet<(&'static str, Arch)> {
    let mut needed = BTreeSet::new();
    for machine in &cluster.machines {
        let own = [machine.arch];
        let archs = if archs.is_empty() { &own[..] } else { archs };
        let role: Role = machine.role;
        let packages =
            catalogue::packages(role, cluster.runs_etcd(machine), cluster.runtime_source);
        let programs = catalogue::binaries(role).iter().map(|b| b.name);
        for name in programs.chain(packages.iter().map(|p| p.name)) {
            needed.extend(archs.iter().map(|arch| (name, *arch)));
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::Lock;

    /// What is in the built-in lock was published where this table says.
    #[test]
    fn the_table_says_where_the_built_in_lock_says() {
        for entry in Lock::builtin().unwrap().entries() {
            let found = published(&entry.name, &entry.version, entry.arch).unwrap();
            assert_eq!(found.urls(&[]), entry.urls);
        }
        assert!(published("knode", "0.1.0", Arch::Amd64).is_none());
        for name in KUBERNETES.iter().chain(&PACKAGES) {
            assert!(published(name, "1.0.0", Arch::Arm64).is_some(), "{name}");
        }
    }

    #[test]
    fn mirrors_stand_before_the_host() {
        let mirrors = ["http://m:1/a/".to_owned(), "https://n".to_owned()];
        let runc = published("runc", "1.4.3", Arch::Amd64).unwrap();
        let place = "github.com/opencontainers/runc/releases/download/v1.4.3/runc.amd64";
        assert_eq!(
            runc.urls(&mirrors),
            [
                format!("http://m:1/a/{place}"),
                format!("https://n/{place}")
            ]
        );
        assert_eq!(runc.file(), "runc.amd64");
    }
}
