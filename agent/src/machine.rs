//! What the steps of one machine share: its NodeConfig, the ways to its
//! effects, and the facts that some steps find and others need.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::credentials;
use crate::error::Result;
use crate::status::Status;
use crate::sys::api::Api;
use crate::sys::root::Root;
use units::NodeConfig;
use units::node_config::{Peer, Service};
use units::paths;

/// A fact that becomes known: `None` until then.
pub type Fact<T> = watch::Sender<Option<T>>;

/// The machine as its steps see it.
#[derive(Debug)]
pub struct Machine {
    /// What this machine is.
    pub config: NodeConfig,
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
}

impl Machine {
    /// A machine of which only its NodeConfig is known.
    pub fn new(config: NodeConfig, root: Root, status: Status) -> Self {
        let known = config.node.pod_cidrs.clone();
        Self {
            config,
            root,
            status,
            addresses: watch::Sender::new(None),
            pod_cidrs: watch::Sender::new((!known.is_empty()).then_some(known)),
            peers: watch::Sender::new(None),
            installed: watch::Sender::new(BTreeSet::new()),
        }
    }

    /// Whether the machine runs this service.
    pub fn runs(&self, service: Service) -> bool {
        self.config.services.contains(&service)
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

    /// The API with the kubelet's identity, which may see and change this
    /// machine's own Node alone.
    ///
    /// # Errors
    ///
    /// There is no usable identity.
    pub fn kubelet_api(&self) -> Result<Api> {
        let now = OffsetDateTime::now_utc();
        let own = credentials::kubelet(&self.root, &self.config.node.name, now)?;
        Api::new(&own.server, &own.authority, Some(own.identity))
    }

    /// The API with kube-proxy's identity, which may see all Nodes.
    ///
    /// # Errors
    ///
    /// The kubeconfig is missing or unusable.
    pub fn proxy_api(&self) -> Result<Api> {
        Api::from_kubeconfig(&self.root.read_to_string(paths::KUBE_PROXY_KUBECONFIG)?)
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
