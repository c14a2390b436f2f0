//! What runs in kube-system for the cluster itself: DNS, metrics, and whatever
//! else somebody put there.

use serde_json::Value;

use super::Phase::Addons;
use super::{Criterion, Seen, items, name};

pub fn judge(seen: &Seen) -> Vec<Criterion> {
    let deployments = items(&seen.deployments).map(|one| {
        let wanted = one["spec"]["replicas"].as_u64().unwrap_or(1);
        available(one, wanted, &one["status"]["availableReplicas"])
    });
    let daemons = items(&seen.daemon_sets).map(|one| {
        let status = &one["status"];
        let wanted = status["desiredNumberScheduled"].as_u64().unwrap_or(0);
        available(one, wanted, &status["numberAvailable"])
    });
    deployments.chain(daemons).collect()
}

fn available(one: &Value, wanted: u64, available: &Value) -> Criterion {
    let there = available.as_u64().unwrap_or(0);
    let looked = one["status"]["observedGeneration"].as_u64();
    let current = looked >= one["metadata"]["generation"].as_u64();
    let found = format!("{there} of {wanted} available");
    match there >= wanted && current {
        true => Criterion::met(Addons, name(one), found),
        false => Criterion::unmet(Addons, name(one), found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_replicas_have_to_be_there_as_they_are_meant_now() {
        let one = |available: u64, looked: u64| {
            json!({"metadata": {"name": "coredns", "generation": 2}, "spec": {"replicas": 2},
                "status": {"availableReplicas": available, "observedGeneration": looked}})
        };
        let judged = |one: &Value| available(one, 2, &one["status"]["availableReplicas"]);
        assert!(judged(&one(2, 2)).met);
        assert!(!judged(&one(2, 1)).met, "of the version before");
        let short = judged(&one(1, 2));
        assert_eq!(
            (short.met, short.found.as_str()),
            (false, "1 of 2 available")
        );
        assert!(!judged(&json!({"metadata": {"name": "a"}})).met);
    }
}
