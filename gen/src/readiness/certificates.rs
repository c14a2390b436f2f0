//! Who is who: the API server is of the cluster's authority, or it would not
//! have been asked, and no machine waits for a certificate.

use serde_json::Value;

use super::Phase::Certificates;
use super::{Criterion, Seen, items, name};

/// What kubelets ask for. Source: Kubernetes documentation, "Certificates and
/// Certificate Signing Requests".
const SIGNERS: [&str; 2] = [
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
];

pub fn judge(seen: &Seen) -> Vec<Criterion> {
    let server = Criterion::met(Certificates, "API server", "of the authority in pki/");
    vec![server, requests(&seen.requests)]
}

fn requests(list: &Value) -> Criterion {
    let waiting: Vec<String> = items(list).filter(|one| waits(one)).map(who).collect();
    let subject = "machines";
    match waiting[..] {
        [] => Criterion::met(Certificates, subject, "no request waits"),
        _ => Criterion::unmet(
            Certificates,
            subject,
            format!("{} requests wait: {}", waiting.len(), waiting.join(", ")),
        ),
    }
}

/// A kubelet's request that nobody has decided on, or that was not signed yet.
fn waits(request: &Value) -> bool {
    let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
    let conditions = request["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ended = conditions.any(|one| one["type"] == "Denied" || one["type"] == "Failed");
    SIGNERS.contains(&signer) && !ended && request["status"]["certificate"].is_null()
}

fn who(request: &Value) -> String {
    let user = request["spec"]["username"].as_str().unwrap_or_default();
    format!("{} of {user}", name(request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_that_nobody_answered_is_waited_for() {
        let request = |name: &str, signer: &str, status: Value| {
            json!({"metadata": {"name": name}, "status": status,
                "spec": {"signerName": signer, "username": "system:node:n"}})
        };
        let denied = json!({"conditions": [{"type": "Denied"}]});
        let list = json!({"items": [
            request("a", SIGNERS[1], json!({"certificate": "LS0t"})),
            request("b", SIGNERS[1], denied),
            request("c", "example.com/theirs", json!({})),
        ]});
        assert!(requests(&list).met);
        let approved = json!({"conditions": [{"type": "Approved"}]});
        let list = json!({"items": [request("d", SIGNERS[0], approved)]});
        let found = requests(&list);
        assert!(!found.met);
        assert_eq!(found.found, "1 requests wait: d of system:node:n");
    }
}
