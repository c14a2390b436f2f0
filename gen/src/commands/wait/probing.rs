//! A probe in a running cluster: made when all else is met, looked at, and
//! always taken away again.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::{Api, Trouble};
use crate::cluster::Cluster;
use crate::readiness::Criterion;
use crate::readiness::probe::{self, LABEL, MANAGER, Probed};

const NAMESPACES: &str = "/api/v1/namespaces";
/// What an interrupted kgen left behind is removed after this time.
const STALE: time::Duration = time::Duration::hours(1);
/// How long a Node's port may take to answer from here.
const OUTSIDE: Duration = Duration::from_secs(2);

/// A probe of one cluster.
#[derive(Debug)]
pub struct Probe<'c> {
    cluster: &'c Cluster,
    namespace: String,
    /// Seconds after which its pods end by themselves.
    deadline: u64,
    made: bool,
    asked: bool,
    dns: bool,
    nodes: Value,
    probed: Probed,
}

impl<'c> Probe<'c> {
    /// One that nothing was made of yet.
    pub fn new(cluster: &'c Cluster, timeout: Duration) -> Result<Self> {
        let number = getrandom::u32().context("finding a name for the probe")?;
        Ok(Self {
            cluster,
            namespace: format!("{MANAGER}-{number:08x}"),
            // Cleaning up comes after waiting.
            deadline: timeout.as_secs().saturating_add(60),
            made: false,
            asked: false,
            dns: false,
            nodes: Value::Null,
            probed: Probed::default(),
        })
    }

    /// Makes what is missing and looks at what is there.
    pub async fn look(&mut self, api: &Api, nodes: &Value) -> Result<(), Trouble> {
        self.nodes.clone_from(nodes);
        self.probed.trouble = None;
        if !self.made {
            self.sweep(api).await?;
            let dns = "/api/v1/namespaces/kube-system/services?labelSelector=k8s-app%3Dkube-dns";
            let dns = api.get(dns).await?.body;
            self.dns = dns["items"]
                .as_array()
                .is_some_and(|items| !items.is_empty());
            let namespace = probe::namespace(&self.namespace);
            self.make(api, NAMESPACES, &namespace).await?;
            self.made = true;
        }
        for (kind, object) in probe::server(self.cluster, self.deadline) {
            let path = self.path(kind);
            self.make(api, &path, &object).await?;
        }
        let service = self.path("services/server");
        self.probed.service = api.get(&service).await?.body;
        if !self.asked {
            let (cluster, probed) = (self.cluster, &self.probed);
            let client = probe::client(cluster, probed, &self.nodes, self.dns, self.deadline);
            if let Some(client) = client {
                let path = self.path("pods");
                self.asked = self.make(api, &path, &client).await?;
            }
        }
        self.probed.pods = api.get(&self.path("pods")).await?.body;
        Ok(())
    }

    /// What it has shown.
    pub fn judge(&self) -> Vec<Criterion> {
        let mut judged = probe::judge(self.cluster, &self.probed, &self.nodes, self.dns);
        if let Some(at) = probe::from_outside(&self.probed.service, &self.nodes)
            && judged.iter().all(|criterion| criterion.met)
            && answers(&at)
            && let Some(last) = judged.last_mut()
        {
            last.found.push_str(&format!(", and {at} from here"));
        }
        judged
    }

    /// Takes away what was made. What cannot be reached ends by itself, and goes
    /// with the next probe.
    pub async fn end(&self, api: &Api) -> Result<(), Trouble> {
        if self.made {
            remove(api, &self.namespace).await?;
        }
        Ok(())
    }

    /// What earlier probes left.
    async fn sweep(&self, api: &Api) -> Result<(), Trouble> {
        let list = format!("{NAMESPACES}?labelSelector={LABEL}%3D{MANAGER}");
        let list = api.get(&list).await?;
        let now = list.at.unwrap_or_else(OffsetDateTime::now_utc);
        for name in stale(&list.body, now) {
            remove(api, &name).await?;
        }
        Ok(())
    }

    fn path(&self, rest: &str) -> String {
        format!("{NAMESPACES}/{}/{rest}", self.namespace)
    }

    /// Whether it is there; what refuses it is told and tried again, as while
    /// the controller manager has not made the namespace's account yet.
    async fn make(&mut self, api: &Api, path: &str, object: &Value) -> Result<bool, Trouble> {
        let (status, answer) = api.send(Method::POST, path, Some(object)).await?;
        if status.is_success() || status == StatusCode::CONFLICT {
            return Ok(true);
        }
        let message = answer["message"].as_str().unwrap_or("no reason given");
        self.probed.trouble = Some(format!("{path}: {status}: {message}"));
        Ok(false)
    }
}

async fn remove(api: &Api, namespace: &str) -> Result<(), Trouble> {
    let path = format!("{NAMESPACES}/{namespace}");
    let options = json!({"propagationPolicy": "Background"});
    api.send(Method::DELETE, &path, Some(&options)).await?;
    Ok(())
}

/// Namespaces of probes whose kgen is long gone.
fn stale(list: &Value, now: OffsetDateTime) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    let old = items.filter(|one| {
        let made = one["metadata"]["creationTimestamp"].as_str();
        let made = made.and_then(|made| OffsetDateTime::parse(made, &Rfc3339).ok());
        made.is_some_and(|made| now - made > STALE)
    });
    let names = old.filter_map(|one| one["metadata"]["name"].as_str());
    names.map(str::to_owned).collect()
}

/// Whether somebody listens there, as seen from here.
fn answers(at: &str) -> bool {
    let addresses = at.to_socket_addrs();
    let mut addresses = addresses.into_iter().flatten();
    addresses.any(|address| TcpStream::connect_timeout(&address, OUTSIDE).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn only_what_is_old_is_swept() {
        let one =
            |name: &str, made: &str| json!({"metadata": {"name": name, "creationTimestamp": made}});
        let list = json!({"items": [
            one("old", "2026-11-21T10:00:00Z"),
            one("new", "2026-11-21T11:30:00Z"),
            {"metadata": {"name": "odd"}},
        ]});
        assert_eq!(stale(&list, datetime!(2026-11-21 12:00:00 UTC)), ["old"]);
    }
}
