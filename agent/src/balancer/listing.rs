//! Which API servers the cluster has: the endpoints of its `kubernetes`
//! service.
//!
//! The list is kept on the disk as well: a machine that boots when all masters
//! of its document have been replaced finds the new ones.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::error::Result;
use crate::sys::api::Api;
use crate::sys::root::Root;

/// Source: Kubernetes API, discovery.k8s.io/v1 EndpointSlice.
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Dkubernetes";
/// The last list, JSON.
const KEPT: &str = "/var/lib/knode/api-servers.json";

/// Asks for the list, and keeps it.
///
/// # Errors
///
/// As every request; the list cannot be written.
pub async fn ask(api: &Api, root: &Root) -> Result<Vec<String>> {
    let servers = servers(&api.get(SLICES).await?.unwrap_or_default());
    if !servers.is_empty() {
        let text = Value::from(servers.clone()).to_string();
        root.write_atomic(KEPT, text.as_bytes(), 0o600)?;
    }
    Ok(servers)
}

/// The last list; empty where there is none.
pub fn kept(root: &Root) -> Vec<String> {
    let Ok(Some(text)) = root.read_if_exists(KEPT) else {
        return Vec::new();
    };
    let kept: Vec<SocketAddr> = serde_json::from_slice(&text).unwrap_or_default();
    kept.iter().map(SocketAddr::to_string).collect()
}

/// Every address that is ready, with the port called `https`, in order.
fn servers(slices: &Value) -> Vec<String> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for slice in slices["items"].as_array().into_iter().flatten() {
        let port = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|port| port["name"] == "https")
            .and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
        let Some(port) = port else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        found.extend(
            endpoints
                // Absent means that it is.
                .filter(|endpoint| endpoint["conditions"]["ready"] != false)
                .filter_map(|endpoint| endpoint["addresses"].as_array())
                .flatten()
                .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
                .map(|address| SocketAddr::new(address, port)),
        );
    }
    found.sort();
    found.dedup();
    found.iter().map(SocketAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_ready_endpoints_of_all_slices_are_the_servers() {
        let slices = json!({"items": [
            {"ports": [{"name": "https", "port": 6443}], "endpoints": [
                {"addresses": ["10.0.0.12"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.11"]},
                {"addresses": ["10.0.0.13"], "conditions": {"ready": false}},
            ]},
            {"ports": [{"name": "https", "port": 6443}], "endpoints": [{"addresses": ["fd00::1"]}]},
            {"ports": null, "endpoints": [{"addresses": ["10.0.0.99"]}]},
        ]});
        assert_eq!(
            servers(&slices),
            ["10.0.0.11:6443", "10.0.0.12:6443", "[fd00::1]:6443"]
        );
        assert!(servers(&json!({})).is_empty());
    }

    #[test]
    fn what_is_kept_is_read_back_and_nonsense_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert!(kept(&root).is_empty());
        root.create_dir("/var/lib/knode", 0o700).unwrap();
        root.write_atomic(KEPT, br#"["10.0.0.11:6443"]"#, 0o600)
            .unwrap();
        assert_eq!(kept(&root), ["10.0.0.11:6443"]);
        root.write_atomic(KEPT, b"{", 0o600).unwrap();
        assert!(kept(&root).is_empty());
    }
}
