//! This machine's member of etcd (P13, P37).

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::{again, name, services, static_pods};
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::http::{self, Pem, Trust};
use crate::sys::root::Root;
use units::node_config::Service;

/// etcd answers its health here, to clients with a certificate.
const HEALTH: &str = "https://127.0.0.1:2379/health";
const CA: &str = "/etc/kubernetes/pki/etcd/ca.crt";
const CERT: &str = "/etc/kubernetes/pki/etcd/healthcheck-client.crt";
const KEY: &str = "/etc/kubernetes/pki/etcd/healthcheck-client.key";
/// How long a member may take to join before its start counts as failed; the
/// unit goes on trying meanwhile.
const JOIN: Duration = Duration::from_secs(60);

pub struct Etcd {
    /// Whether the kubelet runs it as a static pod.
    pub in_pod: bool,
}

impl Step<Machine> for Etcd {
    fn name(&self) -> &'static str {
        name::ETCD
    }

    fn after(&self) -> &[&'static str] {
        if self.in_pod {
            &[name::CERTIFICATES, name::KUBELET]
        } else {
            &[name::CERTIFICATES]
        }
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            if self.in_pod {
                services::ensure_current_pod(machine, Service::Etcd).await?;
                static_pods::patiently(machine, Service::Etcd, until_healthy(machine)).await?;
                return Ok("healthy, in its pod".to_owned());
            }
            machine
                .until_installed(name::ETCD, &["/opt/kubernetes/bin/etcd"])
                .await;
            let bus = services::connect().await?;
            let start =
                services::ensure_active(machine, &bus, Service::Etcd, services::IfActive::Leave);
            tokio::time::timeout(JOIN, start).await.map_err(|_| {
                Error::new(
                    Code::Etcd,
                    format!("etcd has not joined its ring after {} s", JOIN.as_secs()),
                )
            })??;
            healthy(machine).await?;
            Ok("healthy".to_owned())
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(again::when_stopped(machine, &[Service::Etcd]))
    }
}

#[derive(Deserialize)]
struct Health {
    health: String,
    #[serde(default)]
    reason: String,
}

async fn until_healthy(machine: &Machine) -> Result<()> {
    while let Err(error) = healthy(machine).await {
        machine.status.detail(name::ETCD, error.story());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// The ring's authority, and an identity that its members know.
///
/// # Errors
///
/// [`Code::Disk`]: the files are not there.
pub(crate) fn trust(root: &Root) -> Result<Trust> {
    Ok(Trust {
        only: Some(root.read(CA)?),
        identity: Some(Pem([root.read(CERT)?, root.read(KEY)?].concat())),
    })
}

async fn healthy(machine: &Machine) -> Result<()> {
    let root = &machine.root;
    let client = http::client(&trust(root)?)?;
    let reply = client
        .get(HEALTH)
        .timeout(Duration::from_secs(5))
        .send()
        .await
        .map_err(|error| http::refused(error, HEALTH))
        .context(Code::Etcd, || "asking etcd for its health".to_owned())?;
    let health: Health = reply
        .json()
        .await
        .context(Code::Etcd, || "reading etcd's health".to_owned())?;
    if health.health == "true" {
        return Ok(());
    }
    Err(Error::new(
        Code::Etcd,
        format!("etcd says that it is not healthy: {}", health.reason),
    ))
}
