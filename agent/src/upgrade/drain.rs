//! Before a kubelet of another minor version, its pods go elsewhere; one
//! machine at a time, and no sooner than their PodDisruptionBudgets allow.
//!
//! Machines agree by an annotation of their Nodes: who wants to, and who does.
//! Each writes before it looks, so that of two that begin at once one sees the
//! other. Source: Kubernetes documentation, "Safely Drain a Node".

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::skew::Version;
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::steps::name;
use crate::sys::api::Api;

/// What a Node says of its own draining.
pub const ANNOTATION: &str = "knode/drain";
const WANTED: &str = "wanted";
const DRAINING: &str = "draining";
/// The same of a Node that somebody had cordoned before.
const CORDONED: &str = "draining-cordoned";
/// How long pods may take; then the machine takes pods again, and tries later.
const DEADLINE: Duration = Duration::from_secs(900);
/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(3);

/// What this machine does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Its kubelet is of this minor version, or no other machine takes pods.
    Nothing,
    /// It says that it wants to.
    Want,
    /// Another one is before it.
    Wait(String),
    /// It is its turn.
    Begin,
    /// Another one began at the same time.
    Retreat,
    /// It drains.
    Drain,
}

fn decide(nodes: &Value, me: &str, minor: u32) -> Next {
    let items = || nodes["items"].as_array().into_iter().flatten();
    let name = |node: &Value| {
        node["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let Some(own) = items().find(|node| name(node) == me) else {
        return Next::Nothing;
    };
    let others = || items().filter(|node| name(node) != me);
    let kubelet = own["status"]["nodeInfo"]["kubeletVersion"].as_str();
    let kubelet: Option<Version> = kubelet.and_then(|version| version.parse().ok());
    let takes_pods = |node: &Value| is_ready(node) && node["spec"]["unschedulable"] != true;
    let stays = kubelet.is_none_or(|kubelet| kubelet.minor == minor);
    if (stays || !others().any(takes_pods)) && !is_draining(own) {
        return Next::Nothing;
    }
    let draining = || others().filter(|node| is_draining(node)).map(name);
    if is_draining(own) {
        return match draining().any(|other| *other < *me) {
            true => Next::Retreat,
            false => Next::Drain,
        };
    }
    if state(own) != Some(WANTED) {
        return Next::Want;
    }
    if let Some(other) = draining().next() {
        return Next::Wait(format!("{other} is drained or not Ready yet"));
    }
    let mut wanting = others().filter(|node| state(node) == Some(WANTED) && is_ready(node));
    match wanting.find(|node| *name(node) < *me) {
        Some(other) => Next::Wait(format!("{} is before it", name(other))),
        None => Next::Begin,
    }
}

fn state(node: &Value) -> Option<&str> {
    node["metadata"]["annotations"][ANNOTATION].as_str()
}

fn is_draining(node: &Value) -> bool {
    matches!(state(node), Some(DRAINING | CORDONED))
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Returns when the pods of this machine that live elsewhere as well are gone;
/// at once where the kubelet's minor version stays.
///
/// # Errors
///
/// [`Code::Drain`]: they do not leave; the machine takes pods again.
pub async fn drain(machine: &Machine, version: Version) -> Result<()> {
    let me = machine.name.as_str();
    loop {
        let nodes = machine.proxy_api()?.get("/api/v1/nodes").await?;
        match decide(&nodes.unwrap_or_default(), me, version.minor) {
            Next::Nothing => return Ok(()),
            Next::Want => mark(machine, json!(WANTED), None).await?,
            Next::Retreat => {
                let uncordon = own_cordon(&own(machine).await?);
                mark(machine, json!(WANTED), uncordon).await?;
            }
            Next::Begin => begin(machine).await?,
            Next::Drain => return empty(machine).await,
            Next::Wait(why) => {
                let told = format!("kubelet waits to be drained: {why}");
                machine.status.detail(name::START, told);
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

async fn begin(machine: &Machine) -> Result<()> {
    let node = own(machine).await?;
    match node["spec"]["unschedulable"] == true {
        true => mark(machine, json!(CORDONED), None).await,
        false => mark(machine, json!(DRAINING), Some(json!(true))).await,
    }
}

/// The machine takes pods again, if it was drained; nothing otherwise.
///
/// # Errors
///
/// As every request; see [`Api::get`].
pub async fn end(machine: &Machine, node: &Value) -> Result<()> {
    match state(node) {
        None => Ok(()),
        Some(_) => mark(machine, Value::Null, own_cordon(node)).await,
    }
}

/// What takes a cordon away: only one that was made for the draining.
fn own_cordon(node: &Value) -> Option<Value> {
    (state(node) == Some(DRAINING)).then_some(Value::Null)
}

async fn own(machine: &Machine) -> Result<Value> {
    let path = format!("/api/v1/nodes/{}", machine.name);
    let node = machine.kubelet_api()?.get(&path).await?;
    Ok(node.unwrap_or_default())
}

/// A kubelet may do this to its own Node.
async fn mark(machine: &Machine, state: Value, unschedulable: Option<Value>) -> Result<()> {
    let mut patch = json!({"metadata": {"annotations": {(ANNOTATION): state}}});
    if let Some(value) = unschedulable {
        patch["spec"] = json!({"unschedulable": value});
    }
    let path = format!("/api/v1/nodes/{}", machine.name);
    machine.kubelet_api()?.merge(&path, &patch).await?;
    Ok(())
}

/// Evicts until nothing is left that should go.
async fn empty(machine: &Machine) -> Result<()> {
    let began = Instant::now();
    tracing::info!(
        step = name::START,
        "pods go elsewhere before the kubelet's new version"
    );
    loop {
        let api = machine.kubelet_api()?;
        let list = format!(
            "/api/v1/pods?fieldSelector=spec.nodeName%3D{}",
            machine.name
        );
        let pods = api.get(&list).await?.unwrap_or_default();
        let leaving = leaving(&pods);
        if leaving.is_empty() {
            return Ok(());
        }
        let mut refused = String::new();
        for (namespace, pod) in &leaving {
            if let Err(error) = evict(&api, namespace, pod).await {
                refused = format!(": {}", error.story());
            }
        }
        let names = leaving
            .iter()
            .map(|(namespace, pod)| format!("{namespace}/{pod}"));
        let names = names.collect::<Vec<_>>().join(", ");
        let told = format!("pods on their way elsewhere: {names}{refused}");
        if began.elapsed() > DEADLINE {
            end(machine, &own(machine).await?).await?;
            return Err(Error::new(Code::Drain, told));
        }
        machine.status.detail(name::START, told);
        tokio::time::sleep(LOOK).await;
    }
}

/// As long as a PodDisruptionBudget does not allow it, it is refused.
async fn evict(api: &Api, namespace: &str, pod: &str) -> Result<()> {
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    api.create(&path, &eviction).await?;
    Ok(())
}

/// Pods that somebody makes anew elsewhere: not those that every machine has,
/// nor those that nobody would make again; these outlive a kubelet's restart.
fn leaving(pods: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = pods["items"].as_array().into_iter().flatten();
    let leaving = items.filter(|pod| {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let mut owners = owners.into_iter().flatten();
        let owner = owners.find(|owner| owner["controller"] == true);
        let elsewhere = owner.is_some_and(|o| o["kind"] != "DaemonSet" && o["kind"] != "Node");
        let ended = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        elsewhere && !ended
    });
    let name = |pod: &Value| {
        (
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
        )
    };
    leaving.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: Option<&str>, ready: bool) -> Value {
        let ready = if ready { "True" } else { "False" };
        json!({
            "metadata": {"name": name, "annotations": {(ANNOTATION): state}},
            "status": {
                "nodeInfo": {"kubeletVersion": "v1.35.6"},
                "conditions": [{"type": "Ready", "status": ready}],
            },
        })
    }

    fn next(nodes: &[Value]) -> Next {
        decide(&json!({"items": nodes}), "b", 36)
    }

    #[test]
    fn one_machine_after_the_other_by_name() {
        let a = |state| node("a", state, true);
        let b = |state| node("b", state, true);
        let c = |state| node("c", state, true);
        assert_eq!(next(&[a(None), b(None)]), Next::Want);
        assert_eq!(
            next(&[a(None), b(Some(WANTED)), c(Some(WANTED))]),
            Next::Begin
        );
        let wait = next(&[a(Some(WANTED)), b(Some(WANTED))]);
        assert_eq!(wait, Next::Wait("a is before it".to_owned()));
        let wait = next(&[b(Some(WANTED)), c(Some(DRAINING))]);
        assert!(matches!(wait, Next::Wait(_)), "{wait:?}");
        // One that is gone is not waited for, but one that was drained is.
        let gone = node("a", Some(WANTED), false);
        assert_eq!(next(&[gone, b(Some(WANTED)), c(None)]), Next::Begin);
        let broken = node("a", Some(DRAINING), false);
        let wait = next(&[broken, b(Some(WANTED)), c(None)]);
        assert!(matches!(wait, Next::Wait(_)), "{wait:?}");
    }

    #[test]
    fn of_two_that_begin_at_once_one_retreats() {
        let (a, b) = (
            node("a", Some(DRAINING), true),
            node("b", Some(DRAINING), true),
        );
        assert_eq!(next(&[a.clone(), b.clone()]), Next::Retreat);
        assert_eq!(decide(&json!({"items": [a, b]}), "a", 36), Next::Drain);
    }

    #[test]
    fn a_cordon_of_the_operators_stays() {
        assert_eq!(own_cordon(&node("b", Some(CORDONED), true)), None);
        assert_eq!(own_cordon(&node("b", Some(WANTED), true)), None);
        let ours = own_cordon(&node("b", Some(DRAINING), true));
        assert_eq!(ours, Some(Value::Null));
    }

    #[test]
    fn what_would_help_nobody_is_left_out() {
        let alone = node("b", None, true);
        assert_eq!(next(std::slice::from_ref(&alone)), Next::Nothing);
        let mut same = alone;
        same["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.36.1");
        assert_eq!(next(&[same, node("a", None, true)]), Next::Nothing);
    }

    #[test]
    fn only_pods_that_come_back_elsewhere_leave() {
        let pod = |name: &str, kind: &str, phase: &str| {
            json!({"metadata": {"namespace": "n", "name": name, "ownerReferences":
                [{"kind": kind, "controller": true}]}, "status": {"phase": phase}})
        };
        let bare = json!({"metadata": {"namespace": "n", "name": "bare"}});
        let pods = json!({"items": [
            pod("web", "ReplicaSet", "Running"),
            pod("log", "DaemonSet", "Running"),
            pod("static", "Node", "Running"),
            pod("done", "Job", "Succeeded"),
            bare,
        ]});
        assert_eq!(leaving(&pods), [("n".to_owned(), "web".to_owned())]);
    }
}
