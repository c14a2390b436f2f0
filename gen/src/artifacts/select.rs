//! Which entries of the lock a machine downloads: a pure choice.

use units::node_config::{Artifact, ArtifactFile, RuntimeSource};
use units::paths;
use units::types::{Arch, Role};

use super::catalogue::{self, Binary, Package};
use super::lock::{Entry, Lock, Origin};
use crate::report::{Finding, Report};

/// What a machine needs programs for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'v> {
    /// What it does.
    pub role: Role,
    /// Whether a member of etcd runs on it.
    pub etcd: bool,
    /// Whether the kubelet runs the control plane, from images.
    pub static_pods: bool,
    /// Its processor.
    pub arch: Arch,
    /// The cluster's Kubernetes version.
    pub kubernetes: &'v str,
    /// Where its containerd comes from.
    pub runtime: RuntimeSource,
}

impl Wanted<'_> {
    /// Whether the machine gets its control plane as images.
    fn in_pods(&self) -> bool {
        self.static_pods && self.role == Role::Master
    }
}

/// The downloads of a machine, or everything that the lock lacks.
pub fn select(lock: &Lock, wanted: Wanted<'_>) -> Result<Vec<Artifact>, Report> {
    let mut report = Report::default();
    let mut artifacts = kubernetes(lock, wanted, &mut report);
    let etcd = wanted.etcd && !wanted.in_pods();
    for package in catalogue::packages(wanted.role, etcd, wanted.runtime) {
        artifacts.extend(one_package(lock, wanted, package, &mut report));
    }
    report.into_result()?;
    Ok(artifacts)
}

/// The release's programs: each by itself where all of them can be had so;
/// otherwise the archive, which then spares the separate downloads. A single
/// program that the operator's lock names is taken in any case.
fn kubernetes(lock: &Lock, wanted: Wanted<'_>, report: &mut Report) -> Vec<Artifact> {
    let (binaries, (archive_name, folder)) = if wanted.in_pods() {
        (
            catalogue::WITHOUT_CONTROL_PLANE,
            catalogue::archive(Role::Node),
        )
    } else {
        (
            catalogue::binaries(wanted.role),
            catalogue::archive(wanted.role),
        )
    };
    let single = |b: &Binary| {
        lock.exact(b.name, wanted.kubernetes, wanted.arch)
            .filter(|e| !e.packing.is_archive())
    };
    let all_single = binaries.iter().all(|b| !b.required || single(b).is_some());
    let archive = lock.exact(archive_name, wanted.kubernetes, wanted.arch);
    let mut artifacts = Vec::new();
    let mut from_archive = Vec::new();
    for binary in binaries {
        let path = format!("{}/{}", paths::KUBERNETES_BIN, binary.name);
        match single(binary) {
            Some(entry) if all_single || entry.origin == Origin::User || archive.is_none() => {
                artifacts.push(artifact(entry, vec![ArtifactFile { member: None, path }]));
            }
            _ if !all_single && archive.is_some() => from_archive.push(ArtifactFile {
                member: Some(format!("{folder}/{}", binary.name)),
                path,
            }),
            _ if binary.required => report.add(missing(
                &[binary.name, archive_name],
                Some(wanted.kubernetes),
                wanted.arch,
            )),
            _ => {}
        }
    }
    if let Some(entry) = archive
        && !from_archive.is_empty()
    {
        artifacts.push(artifact(entry, from_archive));
    }
    artifacts
}

fn one_package(
    lock: &Lock,
    wanted: Wanted<'_>,
    package: Package,
    report: &mut Report,
) -> Option<Artifact> {
    let Some(entry) = lock.newest(package.name, wanted.arch) else {
        if package.required {
            report.add(missing(&[package.name], None, wanted.arch));
        }
        return None;
    };
    if !package.takes(entry.packing) {
        let message = format!(
            "the lock's {} {} for {} has to be a tar.gz archive with {}",
            entry.name,
            entry.version,
            entry.arch,
            package.programs.join(", ")
        );
        report.add(Finding::new(message).help("name the archive, or say packing: tar.gz"));
        return None;
    }
    let files = package
        .programs
        .iter()
        .map(|program| ArtifactFile {
            member: entry
                .packing
                .is_archive()
                .then(|| package.member(program, &entry.version, entry.arch.as_str())),
            path: format!("{}/{program}", package.folder),
        })
        .collect();
    Some(artifact(entry, files))
}

fn artifact(entry: &Entry, files: Vec<ArtifactFile>) -> Artifact {
    Artifact {
        name: entry.name.clone(),
        version: entry.version.clone(),
        urls: entry.urls.clone(),
        digest: entry.digest.clone(),
        size: entry.size,
        packing: entry.packing,
        files,
    }
}

fn missing(names: &[&str], version: Option<&str>, arch: Arch) -> Finding {
    let what = names.join(" or ");
    let version = version.map_or(String::new(), |v| format!(" {v}"));
    Finding::new(format!("no lock names {what}{version} for {arch}")).help(format!(
        "add it to kgen.lock beside cluster.yaml:\n\
         version: 1\n\
         artifacts:\n\
         - name: {}\n  version: {}\n  arch: {arch}\n  urls: [\"https://…\"]\n  sha256: …",
        names[0],
        if version.is_empty() {
            "…"
        } else {
            version.trim()
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;

    fn wanted(role: Role, runtime: RuntimeSource) -> Wanted<'static> {
        Wanted {
            role,
            etcd: role != Role::Node,
            static_pods: false,
            arch: Arch::Amd64,
            kubernetes: "1.36.1",
            runtime,
        }
    }

    fn names(artifacts: &[Artifact]) -> Vec<&str> {
        artifacts.iter().map(|a| a.name.as_str()).collect()
    }

    fn lock(names: &[(&str, &str, &str)]) -> Lock {
        let mut text = "version: 1\nartifacts:\n".to_owned();
        for (name, version, url) in names {
            text.push_str(&format!(
                "- {{name: {name}, version: {version}, arch: amd64, url: '{url}', sha256: {}}}\n",
                "00".repeat(32)
            ));
        }
        Lock::load(&Source::new("kgen.lock", text)).unwrap()
    }

    #[test]
    fn an_archive_spares_the_single_downloads() {
        let lock = Lock::builtin().unwrap();
        let master = select(&lock, wanted(Role::Master, RuntimeSource::Artifact)).unwrap();
        assert_eq!(
            names(&master),
            [
                "kubernetes-server",
                "etcd",
                "containerd",
                "runc",
                "cni-plugins"
            ]
        );
        assert_eq!(master[0].files.len(), 6);
        let member = master[0].files[0].member.as_deref();
        assert_eq!(member, Some("kubernetes/server/bin/kube-apiserver"));
        let node = select(&lock, wanted(Role::Node, RuntimeSource::Distribution)).unwrap();
        assert_eq!(names(&node), ["kubernetes-node", "cni-plugins"]);
        let etcd = select(&lock, wanted(Role::Etcd, RuntimeSource::Artifact)).unwrap();
        assert_eq!(names(&etcd), ["etcd"]);
        let member = etcd[0].files[0].member.as_deref();
        assert_eq!(member, Some("etcd-v3.6.14-linux-amd64/etcd"));
    }

    /// P36: what runs from images is not downloaded as programs.
    #[test]
    fn static_pods_need_no_programs() {
        let lock = Lock::builtin().unwrap();
        let mut master = wanted(Role::Master, RuntimeSource::Distribution);
        master.static_pods = true;
        let artifacts = select(&lock, master).unwrap();
        assert_eq!(names(&artifacts), ["kubernetes-node", "cni-plugins"]);
        let files = artifacts[0].files.iter().map(|f| f.path.as_str());
        assert_eq!(
            files.collect::<Vec<_>>(),
            ["kubelet", "kube-proxy", "kubectl"].map(|p| format!("/opt/kubernetes/bin/{p}"))
        );
        let mut etcd = wanted(Role::Etcd, RuntimeSource::Distribution);
        etcd.static_pods = true;
        assert_eq!(names(&select(&lock, etcd).unwrap()), ["etcd"]);
    }

    #[test]
    fn single_programs_are_preferred_where_all_can_be_had() {
        let lock = lock(&[
            ("kubelet", "1.36.1", "http://m/kubelet"),
            ("kube-proxy", "1.36.1", "http://m/kube-proxy"),
        ]);
        let node = select(&lock, wanted(Role::Node, RuntimeSource::Distribution)).unwrap();
        assert_eq!(names(&node), ["kubelet", "kube-proxy", "cni-plugins"]);
        // The operator's kubelet is taken beside the archive as well.
        let master = select(&lock, wanted(Role::Master, RuntimeSource::Distribution)).unwrap();
        assert_eq!(
            names(&master),
            [
                "kubelet",
                "kube-proxy",
                "kubernetes-server",
                "etcd",
                "cni-plugins"
            ]
        );
        assert_eq!(master[2].files.len(), 4);
    }

    #[test]
    fn what_is_missing_is_named_all_at_once() {
        let mut other = wanted(Role::Node, RuntimeSource::Artifact);
        other.kubernetes = "1.35.0";
        let report = select(&Lock::default(), other).unwrap_err();
        let text = report.to_string();
        for part in [
            "kubelet or kubernetes-node 1.35.0 for amd64",
            "containerd",
            "cni-plugins",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(report.findings().len(), 5);
    }

    #[test]
    fn a_plain_file_is_no_archive() {
        let lock = lock(&[("containerd", "9.0.0", "http://m/containerd")]);
        let error = select(&lock, wanted(Role::Node, RuntimeSource::Artifact)).unwrap_err();
        assert!(error.to_string().contains("has to be a tar.gz"), "{error}");
    }
}
