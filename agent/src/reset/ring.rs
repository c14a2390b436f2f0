//! This machine's member leaves etcd's ring, so that the others do not wait for
//! it. By etcd's gRPC gateway, which takes JSON.
//! Source: etcd documentation, "Why gRPC gateway"; api/etcdserverpb/rpc.proto.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};

use super::plan::Ring;
use crate::error::{Code, Context as _, Error, Result};
use crate::steps::etcd;
use crate::sys::http;
use crate::sys::root::Root;
use units::paths;

/// The member of this machine.
const OWN: &str = "https://127.0.0.1:2379";
/// How long a member may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What etcd.yaml says that a reset has to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// The member's name.
    pub name: String,
    /// Where its data is.
    pub data: String,
    /// Of how many members the ring was made.
    members: usize,
}

/// What etcd.yaml says; nothing on machines without one.
///
/// # Errors
///
/// [`Code::Disk`], [`Code::ConfigInvalid`].
pub fn settings(root: &Root) -> Result<Option<Settings>> {
    let Some(text) = root.read_if_exists(paths::ETCD_CONFIG)? else {
        return Ok(None);
    };
    let doing = || format!("reading {}", paths::ETCD_CONFIG);
    let text = String::from_utf8_lossy(&text);
    let config: Value = serde_yaml::from_str(&text).context(Code::ConfigInvalid, doing)?;
    let word = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    Ok(Some(Settings {
        name: word("name"),
        data: match word("data-dir").as_str() {
            "" => paths::ETCD_DATA.to_owned(),
            path => path.to_owned(),
        },
        members: word("initial-cluster").split(',').count(),
    }))
}

/// This machine's place in the ring, and why it may not leave, if that is so.
///
/// # Errors
///
/// [`Code::Disk`]: the data cannot be looked at.
pub async fn look(root: &Root, settings: &Settings) -> Result<(Ring, Option<String>)> {
    if !root.exists(format!("{}/member", settings.data))? {
        return Ok((Ring::None, None));
    }
    match members(root).await {
        Ok(members) => Ok(match obstacle(root, &members, &settings.name).await {
            Stand::NoMember => (Ring::None, None),
            Stand::Alone => (Ring::Alone, None),
            Stand::Free => (Ring::Member, None),
            Stand::Needed(why) => (Ring::Member, Some(why)),
        }),
        Err(_) if settings.members < 2 => Ok((Ring::Alone, None)),
        Err(error) => Ok((Ring::Member, Some(error.story()))),
    }
}

/// Leaves.
///
/// # Errors
///
/// [`Code::Etcd`]: it does not answer, or refuses.
pub async fn leave(root: &Root, name: &str) -> Result<()> {
    let client = client(root)?;
    let members = members(root).await?;
    let Some(own) = members.iter().find(|member| member.name == name) else {
        return Ok(());
    };
    ask(&client, "remove", &json!({"ID": own.id})).await?;
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    id: String,
    name: String,
    clients: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stand {
    NoMember,
    Alone,
    Free,
    Needed(String),
}

async fn members(root: &Root) -> Result<Vec<Member>> {
    Ok(listed(&ask(&client(root)?, "list", &json!({})).await?))
}

fn listed(answer: &Value) -> Vec<Member> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = answer["members"].as_array().into_iter().flatten();
    members
        .map(|member| Member {
            id: text(&member["ID"]),
            name: text(&member["name"]),
            clients: member["clientURLs"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect(),
        })
        .collect()
}

/// Whether the others are a ring without it.
async fn obstacle(root: &Root, members: &[Member], name: &str) -> Stand {
    let mut healthy = 0;
    let mut silent = Vec::new();
    for member in members.iter().filter(|member| member.name != name) {
        match is_healthy(root, member).await {
            true => healthy += 1,
            false => silent.push(member.name.clone()),
        }
    }
    stand(members, name, healthy, &silent)
}

fn stand(members: &[Member], name: &str, healthy: usize, silent: &[String]) -> Stand {
    if !members.iter().any(|member| member.name == name) {
        return Stand::NoMember;
    }
    let others = members.len() - 1;
    if others == 0 {
        return Stand::Alone;
    }
    let majority = others / 2 + 1;
    if healthy >= majority {
        return Stand::Free;
    }
    Stand::Needed(format!(
        "of the {others} other members of etcd {healthy} are healthy and {majority} have to be; \
         not {}",
        silent.join(", ")
    ))
}

async fn is_healthy(root: &Root, member: &Member) -> bool {
    let Ok(client) = client(root) else {
        return false;
    };
    for url in &member.clients {
        let asked = client.get(format!("{url}/health")).timeout(ANSWER);
        if let Ok(reply) = asked.send().await
            && reply.status().is_success()
        {
            return true;
        }
    }
    false
}

fn client(root: &Root) -> Result<Client> {
    http::client(&etcd::trust(root)?)
}

/// Calls a method on the ring's members, at this machine's.
async fn ask(client: &Client, method: &str, body: &Value) -> Result<Value> {
    let url = format!("{OWN}/v3/cluster/member/{method}");
    let doing = || format!("asking etcd ({method} members)");
    let reply = client.post(&url).timeout(ANSWER).body(body.to_string());
    let reply = reply
        .send()
        .await
        .map_err(|error| http::refused(error, &url));
    let reply = reply.context(Code::Etcd, doing)?;
    let status = reply.status();
    let answer: Value = reply.json().await.context(Code::Etcd, doing)?;
    if status.is_success() {
        return Ok(answer);
    }
    let reason = answer["message"].as_str().unwrap_or("no reason given");
    Err(Error::new(Code::Etcd, format!("{}: {reason}", doing())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[&str]) -> Vec<Member> {
        let members = names.iter().map(
            |name| json!({"ID": "7", "name": name, "clientURLs": [format!("https://{name}:2379")]}),
        );
        let members: Vec<Value> = members.collect();
        listed(&json!({"members": members}))
    }

    #[test]
    fn a_member_leaves_where_the_others_are_a_ring_without_it() {
        let three = ring(&["a", "b", "c"]);
        assert_eq!(three[0].clients, ["https://a:2379"]);
        assert_eq!(stand(&three, "a", 2, &[]), Stand::Free);
        let Stand::Needed(why) = stand(&three, "a", 1, &["c".to_owned()]) else {
            panic!("one of two is no majority");
        };
        assert!(
            why.contains("1 are healthy and 2 have to be; not c"),
            "{why}"
        );
        assert_eq!(stand(&three, "d", 3, &[]), Stand::NoMember);
        assert_eq!(stand(&ring(&["a"]), "a", 0, &[]), Stand::Alone);
        assert_eq!(stand(&ring(&["a", "b"]), "a", 1, &[]), Stand::Free);
    }

    #[test]
    fn etcd_yaml_says_where_the_data_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(settings(&root).unwrap(), None);
        root.create_dir("/etc/kubernetes", 0o755).unwrap();
        let text = b"name: a\ninitial-cluster: a=https://1:2380,b=https://2:2380\n";
        root.write_atomic(paths::ETCD_CONFIG, text, 0o644).unwrap();
        let found = settings(&root).unwrap().unwrap();
        assert_eq!((found.data.as_str(), found.members), ("/var/lib/etcd", 2));
    }
}
