//! A machine that names itself may take a name that another one has.

use std::net::IpAddr;

use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::machine::{Machine, known};
use units::types::NodeName;

/// The machine's ID, made when it was set up. Source: machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

/// Whether the Node of this name, if there is one, is this machine's.
///
/// # Errors
///
/// [`Code::NodeName`]: it is another's; and as every request.
pub async fn check(machine: &Machine) -> Result<()> {
    let path = format!("/api/v1/nodes/{}", machine.name);
    let Some(found) = machine.kubelet_api()?.get(&path).await? else {
        return Ok(());
    };
    let addresses = known(&machine.addresses).await;
    let id = machine.root.read_if_exists(MACHINE_ID)?;
    let id = String::from_utf8(id.unwrap_or_default()).unwrap_or_default();
    is_own(&machine.name, &found, id.trim(), &addresses)
}

/// Whether the Node is this machine's: another one that is Ready, with another
/// ID and other addresses, keeps its name. One that was set up anew has another
/// ID, and one that moved has other addresses.
fn is_own(name: &NodeName, found: &Value, id: &str, addresses: &[IpAddr]) -> Result<()> {
    let status = &found["status"];
    let theirs = status["nodeInfo"]["machineID"].as_str().unwrap_or_default();
    let known: Vec<&str> = status["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| address["address"].as_str())
        .collect();
    let shared = known
        .iter()
        .filter_map(|address| address.parse().ok())
        .any(|address: IpAddr| addresses.contains(&address));
    let ready = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    if !ready || shared || known.is_empty() || theirs.is_empty() || theirs == id {
        return Ok(());
    }
    Err(Error::new(
        Code::NodeName,
        format!(
            "the Node {name} is another machine's, which is Ready: {} with machine ID {theirs}",
            known.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name() -> NodeName {
        "node-1".parse().unwrap()
    }

    /// P60: two machines of a pool with one host name.
    #[test]
    fn another_machines_node_is_not_taken() {
        let node = |ready: &str| {
            json!({"status": {
                "nodeInfo": {"machineID": "aaaa"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.11"}],
                "conditions": [{"type": "Ready", "status": ready}],
            }})
        };
        let own = |node: &Value, id: &str, address: &str| {
            is_own(&name(), node, id, &[address.parse().unwrap()])
        };
        let error = own(&node("True"), "bbbb", "10.0.0.12").unwrap_err();
        assert_eq!(error.code(), Code::NodeName);
        assert!(error.story().contains("10.0.0.11"), "{}", error.story());
        assert!(own(&node("True"), "aaaa", "10.0.0.12").is_ok(), "it moved");
        assert!(
            own(&node("True"), "bbbb", "10.0.0.11").is_ok(),
            "set up anew"
        );
        assert!(own(&node("Unknown"), "bbbb", "10.0.0.12").is_ok(), "gone");
        assert!(own(&json!({}), "bbbb", "10.0.0.12").is_ok(), "just born");
    }
}
