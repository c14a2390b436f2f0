//! etcd's members, asked through their gateways: gRPC as JSON over HTTPS.
//!
//! Beneath: reqwest through [`crate::sys::http`].
//! Sources: etcd documentation, "gRPC gateway" and "etcd API"; etcd 3.5 and
//! 3.6, server/etcdserver/api/etcdhttp (`/health`, `/members`).

mod save;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

pub use save::verify;

use crate::error::{Code, Context, Error, Result};
use crate::sys::http::{self, Client, Pem, Trust};
use crate::sys::kept::{self, Origin};
use crate::sys::root::Root;

/// The ring's own authority.
const CA: &str = "/etc/kubernetes/pki/etcd/ca.crt";
const CERT: &str = "/etc/kubernetes/pki/etcd/healthcheck-client.crt";
const KEY: &str = "/etc/kubernetes/pki/etcd/healthcheck-client.key";
/// This machine's own member.
pub const LOCAL: &str = "https://127.0.0.1:2379";
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Why a ring that is healthy may refuse to change, and for how long: it asks
/// for 5 seconds of every connection.
/// Source: etcd, api/v3rpc/rpctypes, `ErrUnhealthy`.
const UNSETTLED: &str = "etcdserver: unhealthy cluster";
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a member may be at writing its database anew: some seconds for
/// each gibibyte.
const DEFRAGMENT: Duration = Duration::from_secs(600);

/// A member of the ring, as the ring lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number; etcd's own tools write it in hexadecimal.
    pub id: u64,
    /// Its name; empty until it was started for the first time.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it was started for the first time.
    pub client_urls: Vec<String>,
    /// It gets all data and has no vote.
    pub learner: bool,
}

/// What one member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub id: u64,
    /// The ring's number.
    pub cluster: u64,
    /// The leader's number; 0 without one.
    pub leader: u64,
    /// It gets all data and has no vote.
    pub learner: bool,
    /// Bytes of its database's file.
    pub size: u64,
    /// Bytes of them that hold something.
    pub in_use: u64,
    /// The newest revision.
    pub revision: u64,
}

/// A way to members of the ring with one identity, which all of them know.
#[derive(Debug, Clone)]
pub struct Gateway {
    client: Client,
    /// The last request got no answer.
    lost: Arc<AtomicBool>,
}

impl kept::Client for Gateway {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Gateway {
    /// With this machine's certificate for asking etcd.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: there is none; [`Code::Tls`]: it is bad.
    pub fn new(root: &Root) -> Result<Self> {
        // The port for members takes HTTP/2 for gRPC.
        let client = http::http1_client(&trust(root)?)?;
        Ok(Self {
            client,
            lost: Arc::default(),
        })
    }

    /// What [`Gateway::new`] is made from.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`]: it is not there.
    pub fn origin(root: &Root) -> Result<Origin> {
        let (authority, certificate, key) =
            (root.read(CA)?, root.read(CERT)?, Pem(root.read(KEY)?));
        Ok(kept::origin([authority.as_slice(), &certificate, &key.0]))
    }

    /// Whether the member at this URL for clients has a leader and most
    /// members behind it. An alarm for want of space is told elsewhere.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`] with the member's reason, or why it does not answer.
    pub async fn healthy(&self, url: &str) -> Result<()> {
        let health = self.get(&format!("{url}/health?exclude=NOSPACE")).await?;
        if health["health"] == "true" {
            return Ok(());
        }
        let reason = health["reason"].as_str().unwrap_or_default();
        let story = format!("etcd says that it is not healthy: {reason}");
        Err(Error::new(Code::Etcd, story))
    }

    /// The ring's members as the one at this URL for members knows them, also
    /// while most members are away.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`]: it does not answer.
    pub async fn known_members(&self, peer_url: &str) -> Result<Vec<Member>> {
        let list = self.get(&format!("{peer_url}/members")).await?;
        Ok(members(&list))
    }

    /// The ring's members, as most of them know.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`]: there is no answer, or no majority.
    pub async fn members(&self, url: &str) -> Result<Vec<Member>> {
        let body = json!({"linearizable": true});
        let list = self.ask(url, "cluster/member/list", &body).await?;
        Ok(members(&list["members"]))
    }

    /// What a member says of itself.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`]: it does not answer.
    pub async fn status(&self, url: &str) -> Result<Status> {
        let said = self.ask(url, "maintenance/status", &json!({})).await?;
        let header = &said["header"];
        Ok(Status {
            id: number(&header["member_id"]),
            cluster: number(&header["cluster_id"]),
            leader: number(&said["leader"]),
            learner: said["isLearner"] == true,
            size: number(&said["dbSize"]),
            in_use: number(&said["dbSizeInUse"]),
            revision: number(&header["revision"]),
        })
    }

    /// Adds a member that gets all data and has no vote yet; its number.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`] with the ring's reason.
    pub async fn add_learner(&self, url: &str, peer_url: &str) -> Result<u64> {
        let body = json!({"peerURLs": [peer_url], "isLearner": true});
        let added = self.change(url, "cluster/member/add", &body).await?;
        Ok(number(&added["member"]["ID"]))
    }

    /// Gives a learner its vote.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`] with the ring's reason: it has not caught up yet.
    pub async fn promote(&self, url: &str, id: u64) -> Result<()> {
        self.by_id(url, "cluster/member/promote", id).await
    }

    /// Takes a member out of the ring, for good.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`] with the ring's reason.
    pub async fn remove(&self, url: &str, id: u64) -> Result<()> {
        self.by_id(url, "cluster/member/remove", id).await
    }

    /// Makes the member write its database anew, without what is no longer in
    /// use. It answers nobody meanwhile.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`] with the member's reason.
    pub async fn defragment(&self, url: &str) -> Result<()> {
        let path = "maintenance/defragment";
        let asked = self.send(url, path, &json!({}), DEFRAGMENT).await?;
        answered(asked, path).await.map(drop)
    }

    /// Forgets what keys were before this revision.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`] with the ring's reason: it was done before.
    pub async fn compact(&self, url: &str, revision: u64) -> Result<()> {
        let body = json!({"revision": revision.to_string(), "physical": true});
        self.ask(url, "kv/compaction", &body).await.map(drop)
    }

    /// The members whose database has reached its quota.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`]: there is no answer.
    pub async fn out_of_space(&self, url: &str) -> Result<Vec<u64>> {
        let body = json!({"action": "GET"});
        let said = self.ask(url, "maintenance/alarm", &body).await?;
        let alarms = said["alarms"].as_array();
        let full = alarms.into_iter().flatten();
        let full = full.filter(|alarm| alarm["alarm"] == "NOSPACE");
        Ok(full.map(|alarm| number(&alarm["memberID"])).collect())
    }

    /// Ends the alarm of a member that had reached its quota.
    ///
    /// # Errors
    ///
    /// [`Code::Etcd`] with the ring's reason.
    pub async fn disarm(&self, url: &str, id: u64) -> Result<()> {
        let id = id.to_string();
        let body = json!({"action": "DEACTIVATE", "memberID": id, "alarm": "NOSPACE"});
        self.ask(url, "maintenance/alarm", &body).await.map(drop)
    }

    async fn by_id(&self, url: &str, path: &str, id: u64) -> Result<()> {
        let body = json!({"ID": id.to_string()});
        self.change(url, path, &body).await.map(drop)
    }

    /// Asks for a change of the ring's members. It refuses one in the first
    /// seconds after another member came back; then it is asked again.
    async fn change(&self, url: &str, path: &str, body: &Value) -> Result<Value> {
        let began = Instant::now();
        loop {
            match self.ask(url, path, body).await {
                Err(error) if error.story().contains(UNSETTLED) && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn get(&self, url: &str) -> Result<Value> {
        let asked = self.client.get(url).timeout(ANSWER).send().await;
        let reply = asked.map_err(|error| self.unreachable(error, url))?;
        let bytes = reply.bytes().await;
        let bytes = bytes.map_err(|error| self.unreachable(error, url))?;
        serde_json::from_slice(&bytes)
            .context(Code::Etcd, || format!("reading the answer of {url}"))
    }

    async fn ask(&self, url: &str, path: &str, body: &Value) -> Result<Value> {
        let reply = self.send(url, path, body, ANSWER).await?;
        answered(reply, path).await
    }

    async fn send(
        &self,
        url: &str,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<reqwest::Response> {
        let url = format!("{url}/v3/{path}");
        let asked = self.client.post(&url).timeout(limit).json(body).send();
        asked.await.map_err(|error| self.unreachable(error, &url))
    }

    fn unreachable(&self, error: reqwest::Error, url: &str) -> Error {
        self.lost.store(true, Ordering::Relaxed);
        let named = http::refused(error, url);
        Error::new(Code::Etcd, named.story())
    }
}

/// The ring's authority, and an identity that its members know.
///
/// # Errors
///
/// [`Code::Disk`]: the files are not there.
pub fn trust(root: &Root) -> Result<Trust> {
    Ok(Trust {
        only: Some(root.read(CA)?),
        identity: Some(Pem([root.read(CERT)?, root.read(KEY)?].concat())),
    })
}

async fn answered(reply: reqwest::Response, path: &str) -> Result<Value> {
    let status = reply.status();
    let doing = || format!("asking etcd for {path}");
    let bytes = reply.bytes().await.context(Code::Etcd, doing)?;
    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if status.is_success() {
        return Ok(said);
    }
    let reason = said["message"].as_str().or(said["error"].as_str());
    let reason = reason.map_or_else(|| status.to_string(), str::to_owned);
    Err(Error::new(Code::Etcd, doing()).because(reason))
}

/// The members in an answer of either port: numbers are strings in the JSON of
/// protobuf, and numbers in etcd's own.
fn members(list: &Value) -> Vec<Member> {
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect()
    };
    let one = |member: &Value| Member {
        id: number(match &member["ID"] {
            Value::Null => &member["id"],
            id => id,
        }),
        name: member["name"].as_str().unwrap_or_default().to_owned(),
        peer_urls: words(&member["peerURLs"]),
        client_urls: words(&member["clientURLs"]),
        learner: member["isLearner"] == true,
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.or_else(|| value.as_u64()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcd 3.5.16 answers.
    #[test]
    fn members_are_read_from_both_ports() {
        let of_clients = json!([
            {"ID": "5357521710914793334", "peerURLs": ["https://10.0.0.12:2380"], "isLearner": true},
            {"ID": "15985099378392235387", "name": "a", "peerURLs": ["https://10.0.0.11:2380"],
             "clientURLs": ["https://10.0.0.11:2379"]},
        ]);
        let of_members = json!([
            {"id": 5_357_521_710_914_793_334_u64, "peerURLs": ["https://10.0.0.12:2380"],
             "isLearner": true},
            {"id": 15_985_099_378_392_235_387_u64, "peerURLs": ["https://10.0.0.11:2380"],
             "name": "a", "clientURLs": ["https://10.0.0.11:2379"]},
        ]);
        let read = members(&of_clients);
        assert_eq!(read, members(&of_members));
        assert!(read[0].learner && read[0].name.is_empty() && read[0].client_urls.is_empty());
        assert_eq!(read[1].id, 15_985_099_378_392_235_387);
        assert_eq!(read[1].client_urls, ["https://10.0.0.11:2379"]);
        assert!(!read[1].learner);
    }
}
