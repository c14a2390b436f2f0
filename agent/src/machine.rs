//! What the steps of one machine share: its NodeConfig, the ways to its
//! effects, and the facts that some steps find and others need.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};

use crate::credentials;
use crate::error::Result;
use crate::status::Status;
use crate::sys::api::Api;
use crate::sys::etcd::Gateway;
use crate::sys::http::{self, Client, Pem};
use crate::sys::kept::{self, Kept};
use crate::sys::kubeconfig::{Kubeconfig, User};
use crate::sys::pki;
use crate::sys::root::Root;
use units::NodeConfig;
use units::node_config::{Peer, Service};
use units::paths;
use units::types::NodeName;

/// The controller manager's identity, on masters.
const CONTROLLER_MANAGER: &str = "/etc/kubernetes/controller-manager.conf";
/// For how long an administrator's certificate is good.
const ADMINISTRATOR: Duration = Duration::from_secs(600);
/// A connection is made anew at last after this time: name servers change, and
/// so does which of a balancer's servers is the nearest.
const KEPT: Duration = Duration::from_secs(3600);

/// A fact that becomes known: `None` until then.
pub type Fact<T> = watch::Sender<Option<T>>;

/// The machine as its steps see it.
#[derive(Debug)]
pub struct Machine {
    /// What this machine is.
    pub config: NodeConfig,
    /// What its Node is called.
    pub name: NodeName,
    /// The way to its files.
    pub root: Root,
    /// Where steps tell what they do.
    pub status: Status,
    /// Its addresses, one a family, the first one preferred.
    pub addresses: Fact<Vec<IpAddr>>,
    /// Its own pod ranges, one a family.
    pub pod_cidrs: Fact<Vec<IpNet>>,
    /// Other machines with pods, found among the Nodes.
    pub peers: Fact<Vec<Peer>>,
    /// Paths of artifacts' files that are in place, verified.
    pub installed: watch::Sender<BTreeSet<String>>,
    /// Services that run with what this node.yaml says, as far as they read it
    /// at their start.
    pub(crate) settled: Mutex<BTreeSet<Service>>,
    /// Tells whoever follows node.yaml that this one was refused.
    pub(crate) refused: Arc<Notify>,
    /// Connections to the API server, one an identity.
    apis: Kept<Api>,
    gateways: Kept<Gateway>,
    locals: Kept<Local>,
}

/// A client for this machine's loopback, which does not get lost.
#[derive(Debug, Clone)]
struct Local(Client);

impl kept::Client for Local {
    fn is_lost(&self) -> bool {
        false
    }
}

impl Machine {
    /// A machine of which only its NodeConfig, resolved to this name, is known.
    pub fn new(config: NodeConfig, name: NodeName, root: Root, status: Status) -> Self {
        let known = config.node.pod_cidrs.clone();
        Self {
            config,
            name,
            root,
            status,
            addresses: watch::Sender::new(None),
            pod_cidrs: watch::Sender::new((!known.is_empty()).then_some(known)),
            peers: watch::Sender::new(None),
            installed: watch::Sender::new(BTreeSet::new()),
            settled: Mutex::default(),
            refused: Arc::default(),
            apis: Kept::default(),
            gateways: Kept::default(),
            locals: Kept::default(),
        }
    }

    /// The same machine with another NodeConfig. What was found out and does
    /// not depend on it is still known: peers' routes stay while they are
    /// listed anew.
    #[must_use]
    pub fn with(&self, config: NodeConfig, name: NodeName) -> Self {
        let mut new = Self::new(config, name, self.root.clone(), self.status.clone());
        new.refused = Arc::clone(&self.refused);
        let (before, now) = (&self.config.node, &new.config.node);
        let same_way = self.config.cluster.endpoint == new.config.cluster.endpoint;
        if before.addresses == now.addresses && (same_way || !now.addresses.is_empty()) {
            new.addresses.send_replace(self.addresses.borrow().clone());
        }
        // Given by the controller manager.
        let given = before.pod_cidrs.is_empty() && now.pod_cidrs.is_empty();
        if given && self.name == new.name {
            new.pod_cidrs.send_replace(self.pod_cidrs.borrow().clone());
        }
        new.peers.send_replace(self.peers.borrow().clone());
        new
    }

    /// Whether the machine runs this service.
    pub fn runs(&self, service: Service) -> bool {
        self.config.services.contains(&service)
    }

    /// Whether the kubelet runs this as a static pod.
    pub fn in_pod(&self, service: Service) -> bool {
        self.config.static_pods.contains(&service)
    }

    /// Waits until those of `paths` that come as artifacts are in place; what
    /// the machine brought itself is not waited for. So a service starts as
    /// soon as its own program is there, while others are on their way.
    pub async fn until_installed(&self, step: &str, paths: &[&str]) {
        let mut installed = self.installed.subscribe();
        for path in paths {
            let files = self.config.artifacts.iter().flat_map(|a| &a.files);
            if !files.into_iter().any(|file| file.path == *path) {
                continue;
            }
            if !installed.borrow().contains(*path) {
                self.status
                    .detail(step, format!("waiting for {path} to be fetched"));
            }
            // The sender lives as long as the machine does.
            if installed
                .wait_for(|there| there.contains(*path))
                .await
                .is_err()
            {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The API without an identity, at the server that the kubelet uses: all it
    /// answers is whether it is ready.
    ///
    /// # Errors
    ///
    /// The kubeconfig or the authority is missing or unusable.
    pub fn anonymous_api(&self) -> Result<Api> {
        let authority = self.root.read(paths::CA_CERT)?;
        let text = self.root.read_to_string(paths::KUBELET_KUBECONFIG)?;
        let origin = kept::origin([authority.as_slice(), text.as_bytes()]);
        self.apis.get("anonymous", origin, || {
            let server = Kubeconfig::parse(&text)?.server;
            Ok((Api::new(&server, &authority, None)?, KEPT))
        })
    }

    /// A client for health checks on this machine's loopback.
    ///
    /// # Errors
    ///
    /// As [`http::local_client`].
    pub fn local_client(&self) -> Result<Client> {
        let made = || Ok((Local(http::local_client()?), KEPT));
        let kept = self.locals.get("health", kept::origin([]), made)?;
        Ok(kept.0)
    }

    /// The API with the kubelet's identity, which may see and change this
    /// machine's own Node alone.
    ///
    /// # Errors
    ///
    /// There is no usable identity.
    pub fn kubelet_api(&self) -> Result<Api> {
        let root = &self.root;
        let origin = kept::origin([
            root.read(paths::CA_CERT)?.as_slice(),
            &root.read(paths::KUBELET_KUBECONFIG)?,
            &root
                .read_if_exists(paths::KUBELET_ROTATED)?
                .unwrap_or_default(),
        ]);
        self.apis.get("kubelet", origin, || {
            let now = OffsetDateTime::now_utc();
            let own = credentials::kubelet(root, &self.name, now)?;
            let left = Duration::try_from(own.facts.not_after - now).unwrap_or_default();
            let api = Api::new(&own.server, &own.authority, Some(own.identity))?;
            Ok((api, left.min(KEPT)))
        })
    }

    /// The API as system:masters, by a certificate that this master's CA key
    /// signs for ten minutes; it is made anew after half of them and never
    /// stored.
    ///
    /// # Errors
    ///
    /// This machine has no usable CA key: it is no master.
    pub fn administrator_api(&self) -> Result<Api> {
        let root = &self.root;
        let authority = root.read(paths::CA_CERT)?;
        let key = Pem(root.read(paths::CA_KEY)?);
        // This master's own API server, also where its kubelet has a balancer.
        let own = match root.exists(CONTROLLER_MANAGER)? {
            true => CONTROLLER_MANAGER,
            false => paths::KUBELET_KUBECONFIG,
        };
        let config = root.read_to_string(own)?;
        let origin = kept::origin([authority.as_slice(), &key.0, config.as_bytes()]);
        self.apis.get("administrator", origin, || {
            let user = format!("knode:{}", self.name);
            let identity =
                pki::client_identity(&authority, &key, &user, "system:masters", ADMINISTRATOR)?;
            let server = Kubeconfig::parse(&config)?.server;
            let api = Api::new(&server, &authority, Some(identity))?;
            Ok((api, ADMINISTRATOR / 2))
        })
    }

    /// The ring's members with this machine's certificate for asking etcd.
    ///
    /// # Errors
    ///
    /// As [`Gateway::new`].
    pub fn etcd_gateway(&self) -> Result<Gateway> {
        let origin = Gateway::origin(&self.root)?;
        self.gateways
            .get("etcd", origin, || Ok((Gateway::new(&self.root)?, KEPT)))
    }

    /// The API with kube-proxy's identity, which may see all Nodes.
    ///
    /// # Errors
    ///
    /// The kubeconfig is missing or unusable.
    pub fn proxy_api(&self) -> Result<Api> {
        let text = self.root.read_to_string(paths::KUBE_PROXY_KUBECONFIG)?;
        let config = Kubeconfig::parse(&text)?;
        let identity = match config.user {
            User::Token(_) => Pem(Vec::new()),
            _ => config.identity(&self.root)?,
        };
        let origin = kept::origin([text.as_bytes(), &identity.0]);
        self.apis
            .get("kube-proxy", origin, || Ok((config.api(&self.root)?, KEPT)))
    }
}

/// Waits until a fact is known.
pub async fn known<T: Clone>(fact: &Fact<T>) -> T {
    let mut receiver = fact.subscribe();
    loop {
        if let Some(value) = receiver.borrow_and_update().clone() {
            return value;
        }
        // The sender lives in the machine, as long as any step does.
        if receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_node_yaml_keeps_what_does_not_depend_on_it() {
        let sample = include_str!("../../units/testdata/node-v1.yaml");
        let mut config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        config.node.addresses.clear();
        config.node.pod_cidrs.clear();
        let name: NodeName = "node-1".parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let status = Status::new(root.clone(), []);
        let machine = Machine::new(config.clone(), name.clone(), root, status);
        let address: Vec<IpAddr> = vec!["10.0.0.11".parse().unwrap()];
        let range: Vec<IpNet> = vec!["10.244.7.0/24".parse().unwrap()];
        machine.addresses.send_replace(Some(address.clone()));
        machine.pod_cidrs.send_replace(Some(range.clone()));
        machine.peers.send_replace(Some(Vec::new()));
        machine.installed.send_modify(|installed| {
            installed.insert("/opt/kubernetes/bin/kubelet".to_owned());
        });

        let same = machine.with(config.clone(), name.clone());
        assert_eq!(*same.addresses.borrow(), Some(address));
        assert_eq!(*same.pod_cidrs.borrow(), Some(range));
        assert_eq!(*same.peers.borrow(), Some(Vec::new()));
        assert!(same.installed.borrow().is_empty(), "it may be another one");

        let mut other = config;
        other.node.addresses = vec!["10.0.0.12".parse().unwrap()];
        other.node.pod_cidrs = vec!["10.244.8.0/24".parse().unwrap()];
        let other = machine.with(other.clone(), name);
        assert_eq!(*other.addresses.borrow(), None);
        assert_eq!(
            *other.pod_cidrs.borrow(),
            Some(other.config.node.pod_cidrs.clone())
        );
    }
}
