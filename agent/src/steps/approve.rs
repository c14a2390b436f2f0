//! Masters approve what kubelets ask to serve with: nobody else in a cluster
//! does (P14, P15, B13). Kubelets' client certificates are approved by the
//! controller manager, by the bindings that the objects step makes.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::name;
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use crate::signing::{KUBELET_SERVING, REQUESTS};
use crate::sys::api::Api;
use crate::sys::{clock, pki};
use judge::{Knowledge, addresses, judge};

/// How often requests that were left alone are looked at again: their Nodes
/// may have changed.
const ROUND: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Approve {
    seen: Mutex<Seen>,
}

/// What is known of the last look.
#[derive(Default)]
struct Seen {
    version: String,
    /// Requests that were left alone, of which the reason was told.
    told: BTreeSet<(String, String)>,
}

impl Step<Machine> for Approve {
    fn name(&self) -> &'static str {
        name::APPROVE
    }

    fn after(&self) -> &[&'static str] {
        &[name::APISERVER]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let api = machine.administrator_api()?;
            let list = api.get(REQUESTS).await?.unwrap_or_default();
            let version = list["metadata"]["resourceVersion"].as_str();
            let version = version.unwrap_or_default().to_owned();
            let items = list["items"].as_array().into_iter().flatten();
            let waiting: Vec<&Value> = items.filter(|request| waits(request)).collect();
            let mut approved = 0;
            let mut left = BTreeSet::new();
            if !waiting.is_empty() {
                let mut nodes = BTreeMap::new();
                api.list("/api/v1/nodes", |node| nodes.extend(addresses(node)))
                    .await?;
                let knowledge = Knowledge::new(machine, nodes);
                for request in waiting {
                    let name = request["metadata"]["name"].as_str().unwrap_or_default();
                    match decide(request, &knowledge) {
                        Ok(node) => {
                            approve(&api, name, request).await?;
                            tracing::info!("approved {name}: {node} serves with it");
                            approved += 1;
                        }
                        Err(reason) => {
                            left.insert((name.to_owned(), reason));
                        }
                    }
                }
            }
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, reason) in left.difference(&seen.told) {
                tracing::warn!("{name} is left alone, for an administrator to decide: {reason}");
            }
            let count = left.len();
            *seen = Seen {
                version,
                told: left,
            };
            Ok(format!("{approved} approved, {count} left alone"))
        })
    }

    /// Returns when a request comes, and now and then.
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let version = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.version.clone()
            };
            let news = Notify::new();
            let watch = async {
                let api = machine.administrator_api()?;
                api.watch(REQUESTS, &version, |event| {
                    if waits(&event.object) && event.kind != "DELETED" {
                        news.notify_one();
                    }
                })
                .await
            };
            tokio::select! {
                ended = watch => if let Err(error) = ended {
                    tracing::debug!(code = %error.code(), "watching requests: {}", error.story());
                    tokio::time::sleep(Duration::from_secs(1)).await;
                },
                () = news.notified() => {}
                () = clock::pause(ROUND) => {}
            }
        })
    }
}

/// Whether somebody has to decide on it, and it is for a kubelet to serve with.
fn waits(request: &Value) -> bool {
    request["spec"]["signerName"] == KUBELET_SERVING
        && request["status"]["conditions"]
            .as_array()
            .is_none_or(Vec::is_empty)
}

/// The Node whose kubelet may have what it asks for, or why not.
fn decide(request: &Value, knowledge: &Knowledge) -> Result<String, String> {
    let pem = request["spec"]["request"]
        .as_str()
        .and_then(|text| BASE64.decode(text).ok())
        .ok_or("it is not base64")?;
    let asked = pki::read_request(&pem).map_err(|error| error.story())?;
    judge(&request["spec"], &asked, knowledge)
}

/// Approves the request as it was read: if it changed meanwhile, or another
/// master was quicker, nothing happens.
async fn approve(api: &Api, name: &str, request: &Value) -> Result<()> {
    let patch = json!({
        "metadata": {"resourceVersion": request["metadata"]["resourceVersion"]},
        "status": {"conditions": [{
            "type": "Approved",
            "status": "True",
            "reason": "KnodeApproved",
            "message": "The names in the request are those of the kubelet's own Node.",
        }]},
    });
    let path = format!("{REQUESTS}/{name}");
    match api.merge(&format!("{path}/approval"), &patch).await {
        Ok(_) => Ok(()),
        Err(error) => match api.get(&path).await? {
            Some(now) if waits(&now) => Err(error),
            _ => Ok(()),
        },
    }
}
