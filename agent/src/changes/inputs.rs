//! What a service reads at its start, and only then. Pure, but for the few
//! files that knode writes itself.
//!
//! Not here is what programs read again by themselves: serving certificates
//! and the authority of clients (kubelet, API server, etcd), static pods'
//! manifests and registries' logins (kubelet), registries' hosts
//! (containerd).

use std::collections::BTreeMap;

use crate::error::Result;
use crate::etcd::config;
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::node_config::{ManifestEntry, Service};
use units::paths;

/// Each file that a service reads at its start, with the hex of its digest.
pub type Inputs = BTreeMap<String, String>;

/// Where units and their drop-ins are.
const UNITS: &str = "/etc/systemd/system/";

/// The document's files, and folders of them (with a slash at their end), that
/// a service reads at its start alone, beside its unit with its drop-ins.
fn of_document(service: Service) -> &'static [&'static str] {
    match service {
        Service::Containerd => &[paths::PROXY_ENVIRONMENT],
        Service::Docker => &[
            paths::PROXY_ENVIRONMENT,
            paths::DOCKER_CONFIG,
            "/etc/docker/tls/",
        ],
        // Certificates are read for each connection, the authority is not.
        Service::Etcd => &[paths::ETCD_CONFIG, "/etc/kubernetes/pki/etcd/ca.crt"],
        Service::KubeApiserver => &[
            paths::PROXY_ENVIRONMENT,
            "/etc/kubernetes/audit-policy.yaml",
            // Most of it is read again, whether anonymous requests are let in is not.
            "/etc/kubernetes/authentication.yaml",
            "/etc/kubernetes/encryption.yaml",
            "/etc/kubernetes/pki/etcd/ca.crt",
            "/etc/kubernetes/pki/sa.key",
            "/etc/kubernetes/pki/sa.pub",
        ],
        Service::KubeControllerManager => &[
            paths::PROXY_ENVIRONMENT,
            "/etc/kubernetes/controller-manager.conf",
            // Put into every namespace, and signed with.
            paths::CA_CERT,
            paths::CA_KEY,
            "/etc/kubernetes/pki/sa.key",
        ],
        Service::KubeScheduler => &["/etc/kubernetes/scheduler.conf"],
        Service::Kubelet => &[
            paths::PROXY_ENVIRONMENT,
            paths::KUBELET_CONFIG,
            paths::KUBELET_KUBECONFIG,
        ],
        Service::KubeProxy => &[paths::KUBE_PROXY_CONFIG, paths::KUBE_PROXY_KUBECONFIG],
    }
}

/// What knode writes for a service, for its start.
fn written(service: Service) -> Option<&'static str> {
    match service {
        Service::Containerd => Some(paths::CONTAINERD_CONFIG),
        Service::Kubelet => Some(paths::KUBELET_ENVIRONMENT),
        Service::KubeProxy => Some(paths::KUBE_PROXY_ENVIRONMENT),
        _ => None,
    }
}

/// Whether a path is a unit's file, or one of its drop-ins.
pub fn is_of_unit(path: &str, service: Service) -> bool {
    let below = path.strip_prefix(UNITS);
    let below = below.and_then(|below| below.strip_prefix(service.unit()));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with(".d/"))
}

/// Whether a path is one that systemd reads, and only when it is told to.
pub fn is_for_systemd(path: &str) -> bool {
    path.starts_with(UNITS)
}

fn reads(service: Service, path: &str) -> bool {
    let mut known = of_document(service).iter();
    known.any(|known| *known == path || (known.ends_with('/') && path.starts_with(known)))
}

/// What a service that systemd runs would read now. Of the document's files
/// that is what the manifest says: what a file is that somebody else changed,
/// or that is on its way, does not count.
///
/// # Errors
///
/// [`crate::error::Code::Disk`]: what knode wrote cannot be read.
pub fn of(service: Service, manifest: &[ManifestEntry], root: &Root) -> Result<Inputs> {
    let mut inputs = in_manifest(manifest, |path| {
        is_of_unit(path, service) || reads(service, path)
    });
    if let Some(path) = written(service)
        && let Some(bytes) = root.read_if_exists(path)?
    {
        inputs.insert(path.to_owned(), sha256(&bytes).hex());
    }
    what_counts(&mut inputs, root)?;
    Ok(inputs)
}

/// The same for a service in a static pod: its manifest is the kubelet's to
/// follow, so only the files that it mounts are here.
///
/// # Errors
///
/// As [`of`].
pub fn of_pod(service: Service, manifest: &[ManifestEntry], root: &Root) -> Result<Inputs> {
    let mut inputs = in_manifest(manifest, |path| {
        path != paths::PROXY_ENVIRONMENT && reads(service, path)
    });
    what_counts(&mut inputs, root)?;
    Ok(inputs)
}

/// Of etcd.yaml only what a member with data reads counts, or a ring that grows
/// would be restarted as a whole.
fn what_counts(inputs: &mut Inputs, root: &Root) -> Result<()> {
    if let Some(digest) = inputs.get_mut(paths::ETCD_CONFIG)
        && let Some(bytes) = root.read_if_exists(paths::ETCD_CONFIG)?
        && let Some(counts) = config::of_running(&String::from_utf8_lossy(&bytes))
    {
        *digest = sha256(&counts).hex();
    }
    Ok(())
}

fn in_manifest(manifest: &[ManifestEntry], wanted: impl Fn(&str) -> bool) -> Inputs {
    let entries = manifest.iter().filter(|entry| wanted(&entry.path));
    entries
        .map(|entry| (entry.path.clone(), entry.digest.hex()))
        .collect()
}

/// The files that differ: other bytes, come, or gone.
pub fn differing(before: &Inputs, now: &Inputs) -> Vec<String> {
    let paths = before.keys().chain(now.keys());
    let mut differing: Vec<String> = paths
        .filter(|path| before.get(*path) != now.get(*path))
        .cloned()
        .collect();
    differing.sort();
    differing.dedup();
    differing
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::types::FileMode;

    fn manifest(files: &[(&str, &str)]) -> Vec<ManifestEntry> {
        let entry = |(path, text): &(&str, &str)| ManifestEntry {
            path: (*path).to_owned(),
            mode: FileMode::PUBLIC,
            digest: sha256(text.as_bytes()),
        };
        files.iter().map(entry).collect()
    }

    /// Which services read a file of this path at their start.
    fn readers(path: &str) -> Vec<Service> {
        let root = Root::new("/nowhere");
        let all = [
            Service::Containerd,
            Service::Docker,
            Service::Etcd,
            Service::KubeApiserver,
            Service::KubeControllerManager,
            Service::KubeScheduler,
            Service::Kubelet,
            Service::KubeProxy,
        ];
        let manifest = manifest(&[(path, "text")]);
        let reads = |service: &Service| !of(*service, &manifest, &root).unwrap().is_empty();
        all.into_iter().filter(reads).collect()
    }

    /// What changes → what restarts, as docs/changes.md has it.
    #[test]
    fn a_file_concerns_those_that_read_it_at_their_start() {
        use Service::*;
        for (path, services) in [
            (paths::KUBELET_CONFIG, &[Kubelet][..]),
            (paths::KUBELET_KUBECONFIG, &[Kubelet]),
            ("/etc/systemd/system/kubelet.service", &[Kubelet]),
            (
                "/etc/systemd/system/kubelet.service.d/20-mine.conf",
                &[Kubelet],
            ),
            (paths::KUBE_PROXY_CONFIG, &[KubeProxy]),
            (
                "/etc/kubernetes/pki/sa.key",
                &[KubeApiserver, KubeControllerManager],
            ),
            ("/etc/kubernetes/pki/etcd/ca.crt", &[Etcd, KubeApiserver]),
            (
                paths::PROXY_ENVIRONMENT,
                &[
                    Containerd,
                    Docker,
                    KubeApiserver,
                    KubeControllerManager,
                    Kubelet,
                ],
            ),
            (paths::DOCKER_CONFIG, &[Docker]),
            ("/etc/docker/tls/server.crt", &[Docker]),
            // Read again by themselves.
            ("/etc/kubernetes/pki/kubelet.crt", &[]),
            ("/etc/kubernetes/pki/apiserver.crt", &[]),
            ("/etc/kubernetes/manifests/kube-scheduler.yaml", &[]),
            ("/etc/containerd/certs.d/docker.io/hosts.toml", &[]),
            (paths::REGISTRY_LOGINS, &[]),
            // Others' units.
            ("/etc/systemd/system/kubelet.service.bak", &[]),
            ("/etc/systemd/system/knode.service", &[]),
        ] {
            assert_eq!(readers(path), services, "{path}");
        }
    }

    #[test]
    fn what_knode_wrote_counts_as_it_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.create_dir(paths::RUN_DIR, 0o755).unwrap();
        let look = || of(Service::Kubelet, &[], &root).unwrap();
        let none = look();
        assert!(none.is_empty());
        root.write_atomic(paths::KUBELET_ENVIRONMENT, b"1", 0o644)
            .unwrap();
        let one = look();
        assert_eq!(differing(&none, &one), [paths::KUBELET_ENVIRONMENT]);
        root.write_atomic(paths::KUBELET_ENVIRONMENT, b"2", 0o644)
            .unwrap();
        assert_eq!(differing(&one, &look()), [paths::KUBELET_ENVIRONMENT]);
    }

    /// A ring that grows restarts nobody who is in it.
    #[test]
    fn of_etcds_configuration_counts_what_a_running_member_reads() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.create_dir(paths::KUBERNETES, 0o755).unwrap();
        let read = |text: &str| {
            root.write_atomic(paths::ETCD_CONFIG, text.as_bytes(), 0o644)
                .unwrap();
            let manifest = manifest(&[(paths::ETCD_CONFIG, text)]);
            let [service, pod] = [
                of(Service::Etcd, &manifest, &root).unwrap(),
                of_pod(Service::Etcd, &manifest, &root).unwrap(),
            ];
            assert_eq!(service, pod);
            service
        };
        let before = read("name: a\ninitial-cluster: a=https://a:2380\n");
        let grown = read("name: a\ninitial-cluster: a=https://a:2380,b=https://b:2380\n");
        assert!(differing(&before, &grown).is_empty());
        let other = read("name: a\nquota-backend-bytes: 1\n");
        assert_eq!(differing(&before, &other), [paths::ETCD_CONFIG]);
    }

    #[test]
    fn other_bytes_new_files_and_lost_files_differ() {
        let before = in_manifest(&manifest(&[("/a", "1"), ("/b", "1"), ("/c", "1")]), |_| {
            true
        });
        let now = in_manifest(&manifest(&[("/b", "1"), ("/c", "2"), ("/d", "1")]), |_| {
            true
        });
        assert_eq!(differing(&before, &now), ["/a", "/c", "/d"]);
        assert!(differing(&now, &now).is_empty());
    }

    #[test]
    fn a_pod_is_concerned_by_what_it_mounts() {
        let manifest = manifest(&[
            ("/etc/systemd/system/kube-apiserver.service", "unit"),
            ("/etc/kubernetes/manifests/kube-apiserver.yaml", "pod"),
            ("/etc/kubernetes/audit-policy.yaml", "policy"),
            (paths::PROXY_ENVIRONMENT, "proxy"),
        ]);
        let root = Root::new("/nowhere");
        let inputs = of_pod(Service::KubeApiserver, &manifest, &root).unwrap();
        let paths: Vec<&String> = inputs.keys().collect();
        assert_eq!(paths, ["/etc/kubernetes/audit-policy.yaml"]);
    }
}
