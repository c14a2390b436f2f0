//! Which groups may do what, beside what Kubernetes binds by itself.

use serde_json::{Value, json};

use super::applied::{Applied, Live, Wanted};
use super::inventory::Id;
use super::keep::{LABEL, OURS};
use crate::error::Result;
use crate::sys::api::Api;

const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const KIND: &str = "ClusterRoleBinding";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

/// A binding's name, the role, and the group that gets it.
type Binding = (&'static str, &'static str, &'static str);

const BOUND: [Binding; 5] = [
    // The group of the operator's admin.conf and of the API server's own
    // requests to kubelets, as kubeadm has it.
    (
        "kubeadm:cluster-admins",
        "cluster-admin",
        "kubeadm:cluster-admins",
    ),
    // A machine with a token may ask for a certificate…
    (
        "knode:node-bootstrapper",
        "system:node-bootstrapper",
        "system:bootstrappers:knode",
    ),
    // …and the controller manager approves it, and each one after it.
    (
        "knode:approve-node-client",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "system:bootstrappers:knode",
    ),
    (
        "knode:approve-node-client-renewal",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "system:nodes",
    ),
    // kube-proxy of a machine whose document brings no certificate for it
    // goes by the kubelet's; so does knode, when it watches Nodes.
    ("knode:node-proxier", "system:node-proxier", "system:nodes"),
];

/// Makes the bindings, and mends them.
///
/// # Errors
///
/// As every request; see [`Api::get`].
pub async fn bind(api: &Api, applied: &mut Applied, live: &Live) -> Result<()> {
    for binding in BOUND {
        let object = object(binding);
        let (id, wanted) = (id(binding), Wanted::of(&object));
        if applied.holds(&id, wanted, live) {
            continue;
        }
        let path = format!("{BINDINGS}/{}", binding.0);
        let answer = api.apply(&path, &object).await?;
        applied.remember(id, wanted, &answer);
    }
    Ok(())
}

fn id((name, ..): Binding) -> Id {
    Id {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    }
}

fn object((name, role, group): Binding) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "labels": {LABEL: OURS}},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": role,
        },
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Group",
            "name": group,
        }],
    })
}
