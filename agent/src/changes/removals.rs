//! What is to go, since node.yaml no longer says it. Pure.

use std::collections::BTreeSet;

use super::applied::Applied;
use units::NodeConfig;
use units::node_config::Service;
use units::paths;

/// Where units are.
const UNITS: &str = "/etc/systemd/system";
/// The kinds of units that run something.
const KINDS: [&str; 5] = [".service", ".timer", ".socket", ".path", ".mount"];

/// What is to go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// Services that systemd no longer runs for knode.
    pub services: Vec<Service>,
    /// Other units that the document brought, which are stopped before their
    /// files go.
    pub units: Vec<String>,
    /// Files of the document, with the hex of the digest that they had.
    pub files: Vec<(String, String)>,
    /// Links into the store.
    pub links: Vec<String>,
}

/// What was applied and is not in `config`.
pub fn plan(applied: &Applied, config: &NodeConfig) -> Removals {
    let manifest: BTreeSet<&str> = config.manifest.iter().map(|e| e.path.as_str()).collect();
    but(applied, &config.services, &manifest, &links(config))
}

/// All that was applied.
pub fn all(applied: &Applied) -> Removals {
    but(applied, &[], &BTreeSet::new(), &BTreeSet::new())
}

/// What was applied and is not among these.
fn but(
    applied: &Applied,
    services: &[Service],
    manifest: &BTreeSet<&str>,
    links: &BTreeSet<String>,
) -> Removals {
    let gone = applied.services.keys().copied();
    let files: Vec<(String, String)> = applied
        .files
        .iter()
        .filter(|(path, _)| !manifest.contains(path.as_str()) && *path != paths::NODE_CONFIG)
        .map(|(path, digest)| (path.clone(), digest.clone()))
        .collect();
    Removals {
        units: files.iter().filter_map(|(path, _)| unit(path)).collect(),
        links: applied.links.difference(links).cloned().collect(),
        services: gone.filter(|service| !services.contains(service)).collect(),
        files,
    }
}

/// The links into the store that a node.yaml wants.
pub fn links(config: &NodeConfig) -> BTreeSet<String> {
    let files = config.artifacts.iter().flat_map(|artifact| &artifact.files);
    files.map(|file| file.path.clone()).collect()
}

/// Whether a file is within what is knode's alone: there it goes also where
/// somebody, or a renewal, changed it.
pub fn is_ours(path: &str) -> bool {
    let folders = [paths::KUBERNETES, "/etc/knode"];
    folders.iter().any(|folder| {
        let below = path.strip_prefix(folder);
        below.is_some_and(|below| below.starts_with('/'))
    })
}

/// The unit that a file is of, if it is to be stopped by its name: not knode's
/// own and not what all services are part of.
fn unit(path: &str) -> Option<String> {
    let name = path.strip_prefix(UNITS)?.strip_prefix('/')?;
    let kind = KINDS.iter().any(|kind| name.ends_with(kind));
    let own = name == "knode.service" || name == "knode-bootstrap.service";
    (kind && !own && !name.contains('/')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn sample() -> NodeConfig {
        serde_yaml::from_str(include_str!("../../../units/testdata/node-v1.yaml")).unwrap()
    }

    fn applied(config: &NodeConfig) -> Applied {
        let entries = config.manifest.iter();
        Applied {
            files: entries.map(|e| (e.path.clone(), e.digest.hex())).collect(),
            links: links(config),
            services: config
                .services
                .iter()
                .map(|service| (*service, BTreeMap::new()))
                .collect(),
            pods: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_as_before_stays() {
        let config = sample();
        assert_eq!(plan(&applied(&config), &config), Removals::default());
        // A machine of which nothing is known.
        assert_eq!(plan(&Applied::default(), &config), Removals::default());
    }

    #[test]
    fn what_is_no_longer_there_goes() {
        let mut config = sample();
        let mut before = applied(&config);
        for path in [
            "/etc/systemd/system/kube-proxy.service",
            "/etc/systemd/system/mine.timer",
            "/etc/systemd/system/kubelet.service.d/20-mine.conf",
            "/etc/systemd/system/knode.service",
            "/etc/systemd/system/kubernetes-node.target",
            "/etc/kubernetes/manifests/kube-scheduler.yaml",
        ] {
            before.files.insert(path.to_owned(), "ab".to_owned());
        }
        config
            .services
            .retain(|service| *service != Service::KubeProxy);
        let gone = config.artifacts.remove(0);
        let plan = plan(&before, &config);
        assert_eq!(plan.services, [Service::KubeProxy]);
        assert_eq!(plan.units, ["kube-proxy.service", "mine.timer"]);
        assert_eq!(plan.files.len(), 6);
        let links: Vec<String> = gone.files.iter().map(|file| file.path.clone()).collect();
        assert_eq!(plan.links, links);
    }

    /// P36: from systemd's hands to the kubelet's.
    #[test]
    fn a_service_that_moves_into_a_pod_is_stopped() {
        let mut config = sample();
        let before = applied(&config);
        let moved = config.services.remove(0);
        config.static_pods.push(moved);
        assert_eq!(plan(&before, &config).services, [moved]);
    }

    #[test]
    fn only_what_is_knodes_goes_whatever_it_holds() {
        assert!(is_ours("/etc/kubernetes/pki/ca.crt"));
        assert!(is_ours("/etc/knode/hooks/before-knode-1"));
        assert!(!is_ours("/etc/kubernetes-mine/x"));
        assert!(!is_ours("/etc/motd"));
    }
}
