//! Another version, machine by machine (P61): who may restart what, and when.
//!
//! Documents may be delivered to all machines at once. Before a service is
//! started with another program, its turn is awaited here: what is asked of it
//! by the versions around ([`skew`], pure), that no two masters restart their
//! control plane at once ([`lock`]), and that a machine's pods went elsewhere
//! before its kubelet is of another minor version ([`drain`]). Waiting is told
//! with its code, and is no failure.
//! Source: Kubernetes documentation, "Version Skew Policy".

pub(crate) mod drain;
pub(crate) mod lock;
mod skew;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use time::OffsetDateTime;

use self::skew::Version;
use crate::credentials;
use crate::error::{Code, Context as _, Result};
use crate::machine::Machine;
use crate::steps::name;
use crate::sys::api::Api;
use units::node_config::Service;

/// The pause between two looks at versions.
const LOOK: Duration = Duration::from_secs(1);
/// How long an API server may take to say its version.
const ANSWER: Duration = Duration::from_secs(3);

/// How a service is before it is started.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// It runs.
    pub running: bool,
    /// It would run another program than it does.
    pub program: bool,
}

/// Returns when a service may be started or restarted.
///
/// # Errors
///
/// [`Code::Drain`]: pods do not leave; whatever keeps this machine from asking.
pub async fn turn(machine: &Machine, service: Service, before: Before) -> Result<()> {
    let version: Version = machine.config.cluster.kubernetes_version.parse()?;
    until_allowed(machine, service, version, before).await;
    match service {
        Service::Kubelet if before.running && before.program => {
            drain::drain(machine, version).await
        }
        Service::Etcd | Service::KubeApiserver if before.running => {
            lock::acquire(machine, step(service), before.program).await
        }
        _ => Ok(()),
    }
}

/// What the versions around say of it.
async fn allowed(
    machine: &Machine,
    service: Service,
    version: Version,
    before: Before,
) -> Result<std::result::Result<(), String>> {
    Ok(match service {
        Service::Kubelet | Service::KubeProxy => {
            let servers = servers(machine).await?;
            // Where the kubelet runs the API server, it comes first.
            match servers.is_empty() && !before.running {
                true => Ok(()),
                false => skew::of_node(version, &servers),
            }
        }
        Service::KubeControllerManager | Service::KubeScheduler => {
            let own = asked(&machine.administrator_api()?).await?;
            skew::of_controller(version, own)
        }
        Service::KubeApiserver if before.running && before.program => {
            let nodes = machine.administrator_api()?.get("/api/v1/nodes").await?;
            let kubelets = kubelets(&nodes.unwrap_or_default());
            skew::of_server(version, &servers(machine).await?, &kubelets)
        }
        _ => Ok(()),
    })
}

/// The step that starts a service.
fn step(service: Service) -> &'static str {
    match service {
        Service::Etcd => name::ETCD,
        Service::KubeApiserver => name::APISERVER,
        Service::KubeControllerManager | Service::KubeScheduler => name::CONTROLLERS,
        _ => name::START,
    }
}

/// Waits until versions allow it.
async fn until_allowed(machine: &Machine, service: Service, version: Version, before: Before) {
    loop {
        let why = match allowed(machine, service, version, before).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => format!("{}: {why}", Code::Skew),
            Err(error) => format!("{}: {}", error.code(), error.story()),
        };
        let told = format!("{service} waits: {why}");
        machine.status.detail(step(service), told);
        tokio::time::sleep(LOOK).await;
    }
}

/// The versions of all API servers that answer.
async fn servers(machine: &Machine) -> Result<Vec<Version>> {
    // All at once: one that is gone must not keep the others waiting.
    let answers = match &machine.config.balancer {
        Some(balancer) => {
            let now = OffsetDateTime::now_utc();
            let own = credentials::kubelet(&machine.root, &machine.name, now)?;
            let answers = balancer.servers.iter().map(|server| {
                let (authority, identity) = (&own.authority, own.identity.clone());
                async move {
                    let url = format!("https://{server}");
                    answered(&Api::new(&url, authority, Some(identity))?).await
                }
            });
            join_all(answers).await
        }
        None => vec![answered(&machine.kubelet_api()?).await],
    };
    let mut versions = Vec::new();
    for answer in answers {
        match answer {
            Ok(version) => versions.push(version),
            Err(error) => tracing::debug!("{}", error.story()),
        }
    }
    Ok(versions)
}

async fn answered(api: &Api) -> Result<Version> {
    let answer = tokio::time::timeout(ANSWER, asked(api)).await;
    answer.context(Code::ApiUnreachable, || "waiting for an answer".to_owned())?
}

/// An API server's version.
async fn asked(api: &Api) -> Result<Version> {
    let answer = api.get("/version").await?.unwrap_or_default();
    answer["gitVersion"].as_str().unwrap_or_default().parse()
}

/// What Nodes say of their kubelets.
fn kubelets(nodes: &Value) -> Vec<(String, Version)> {
    let items = nodes["items"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let known = items.filter_map(|node| {
        let version = text(&node["status"]["nodeInfo"]["kubeletVersion"]);
        Some((text(&node["metadata"]["name"]), version.parse().ok()?))
    });
    known.collect()
}
