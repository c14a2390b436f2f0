//! Which documents may give way to the one before them (B12). Pure.
//!
//! A document goes back as a whole or not at all, and only where all that
//! differs is what kubelet, containerd and kube-proxy are told. Neither goes
//! back what the control plane is, reads or wrote, nor who the machine is and
//! whom it trusts: an older one of that may be worse than the trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::inputs;
use units::NodeConfig;
use units::node_config::{ManifestEntry, Service};
use units::paths;

/// The services whose configuration goes back.
pub const SERVICES: [Service; 3] = [Service::Containerd, Service::Kubelet, Service::KubeProxy];

/// What differs between two documents, by path: the hex of the digest that
/// the file has in the second one; none where that lacks it.
pub type Difference = BTreeMap<String, Option<String>>;

/// Whether a file of a document may come back: of what runs pods alone, and
/// nothing that says who the machine is.
pub fn goes_back(path: &str) -> bool {
    let of_registries = path
        .strip_prefix(paths::REGISTRIES_DIR)
        .is_some_and(|rest| rest.starts_with('/'));
    path == paths::KUBELET_CONFIG
        || path == paths::KUBE_PROXY_CONFIG
        || of_registries
        || SERVICES.iter().any(|one| inputs::is_of_unit(path, *one))
}

/// The files that differ in bytes or mode, come, or are gone.
pub fn differing(good: &NodeConfig, bad: &NodeConfig) -> Difference {
    let by_path = |config: &NodeConfig| -> BTreeMap<String, ManifestEntry> {
        let entries = config.manifest.iter();
        entries.map(|e| (e.path.clone(), e.clone())).collect()
    };
    let (good, bad) = (by_path(good), by_path(bad));
    let paths: BTreeSet<&String> = good.keys().chain(bad.keys()).collect();
    paths
        .into_iter()
        .filter(|path| good.get(*path) != bad.get(*path))
        .map(|path| (path.clone(), bad.get(path).map(|e| e.digest.hex())))
        .collect()
}

/// What keeps `bad` from giving way to `good`; nothing if it may.
pub fn obstacle(good: &NodeConfig, bad: &NodeConfig) -> Option<String> {
    if let Some(path) = differing(good, bad).into_keys().find(|p| !goes_back(p)) {
        return Some(format!("{path} differs"));
    }
    let control_plane = |config: &NodeConfig| -> BTreeSet<Service> {
        let services = config.services.iter().copied();
        services.filter(|one| !SERVICES.contains(one)).collect()
    };
    let place = |config: &NodeConfig| {
        let mut cluster = config.cluster.clone();
        // Of a node's programs; those of masters are compared as such.
        cluster.kubernetes_version.clear();
        let node = &config.node;
        let of_node = (node.name.clone(), node.role, node.addresses.clone());
        let more = (node.pod_cidrs.clone(), config.bootstrap.clone());
        (cluster, of_node, more, config.balancer.clone())
    };
    let differs = [
        (
            "its services of the control plane",
            control_plane(good) != control_plane(bad) || good.static_pods != bad.static_pods,
        ),
        (
            "the control plane's program",
            programs(good) != programs(bad),
        ),
        (
            "the machine's place in the cluster",
            place(good) != place(bad),
        ),
    ];
    let mut differs = differs.into_iter();
    differs.find_map(|(what, differs)| differs.then(|| format!("{what} differs")))
}

/// The control plane's programs, with the hex of their artifacts' digests.
fn programs(config: &NodeConfig) -> BTreeSet<(String, String)> {
    let control_plane = [
        Service::Etcd,
        Service::KubeApiserver,
        Service::KubeControllerManager,
        Service::KubeScheduler,
    ];
    let links = control_plane.map(|one| Path::new(paths::KUBERNETES_BIN).join(one.to_string()));
    let mut all = BTreeSet::new();
    for artifact in &config.artifacts {
        for file in &artifact.files {
            if links.iter().any(|link| link == Path::new(&file.path)) {
                all.insert((file.path.clone(), artifact.digest.hex()));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::store::sha256;
    use units::types::FileMode;

    fn sample() -> NodeConfig {
        serde_yaml::from_str(include_str!("../../../units/testdata/node-v1.yaml")).unwrap()
    }

    fn with(path: &str, text: &str) -> NodeConfig {
        let mut config = sample();
        config.manifest.retain(|entry| entry.path != path);
        config.manifest.push(ManifestEntry {
            path: path.to_owned(),
            mode: FileMode::PUBLIC,
            digest: sha256(text.as_bytes()),
        });
        config
    }

    #[test]
    fn what_runs_pods_is_told_goes_back() {
        for path in [
            paths::KUBELET_CONFIG,
            paths::KUBE_PROXY_CONFIG,
            "/etc/systemd/system/kubelet.service",
            "/etc/systemd/system/containerd.service.d/20-mine.conf",
            "/etc/containerd/certs.d/docker.io/hosts.toml",
        ] {
            let (good, bad) = (with(path, "a"), with(path, "b"));
            assert_eq!(obstacle(&good, &bad), None, "{path}");
            let digest = Some(sha256(b"b").hex());
            assert_eq!(
                differing(&good, &bad),
                Difference::from([(path.to_owned(), digest)])
            );
        }
        let (good, mut bad) = (sample(), sample());
        bad.node.labels.clear();
        bad.runtime = None;
        bad.cluster.kubernetes_version = "1.99.0".to_owned();
        assert_eq!(obstacle(&good, &bad), None);
    }

    /// What a newer one wrote into etcd, an older one need not understand; and
    /// secrets are written with the newest key.
    #[test]
    fn the_control_plane_identities_and_what_others_own_do_not() {
        for path in [
            "/etc/kubernetes/encryption.yaml",
            paths::ETCD_CONFIG,
            paths::CA_CERT,
            paths::KUBELET_KUBECONFIG,
            paths::BOOTSTRAP_KUBECONFIG,
            "/etc/kubernetes/manifests/etcd.yaml",
            "/etc/kubernetes/kubelet.yaml/x",
            "/etc/systemd/system/kube-apiserver.service.d/10-kgen.conf",
            "/etc/knode/knode.list",
            "/etc/knode/proxy.env",
            "/etc/knode/objects/mine.yaml",
            "/etc/docker/tls/server.key",
            "/etc/containerd/certs.d.mine",
            "/etc/mine",
        ] {
            let told = obstacle(&with(path, "a"), &with(path, "b"));
            assert_eq!(told, Some(format!("{path} differs")));
        }
        let refused = |change: &dyn Fn(&mut NodeConfig)| {
            let (good, mut bad) = (sample(), sample());
            change(&mut bad);
            assert_ne!(good, bad, "the sample has it");
            obstacle(&good, &bad).expect("it stays")
        };
        refused(&|bad| bad.services.push(Service::Etcd));
        refused(&|bad| bad.static_pods.push(Service::Etcd));
        refused(&|bad| bad.node.addresses = vec!["10.9.9.9".parse().unwrap()]);
        refused(&|bad| bad.cluster.endpoint = "https://10.9.9.9:6443".to_owned());
        let told = refused(&|bad| {
            let mut artifact = bad.artifacts[0].clone();
            artifact.files.truncate(1);
            artifact.files[0].path = "/opt/kubernetes/bin/kube-apiserver".to_owned();
            bad.artifacts.push(artifact);
        });
        assert_eq!(told, "the control plane's program differs");
    }
}
