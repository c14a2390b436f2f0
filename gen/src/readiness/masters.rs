//! The control plane, as its health checks and Leases tell.

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use units::types::Role;

use super::Phase::Masters;
use super::{Criterion, Seen, items, name};
use crate::cluster::Cluster;

/// Of whom the Lease is an API server's. Source: Kubernetes documentation, "API
/// server identity"; such a Lease is renewed every 10 s.
const IDENTITY: &str = "apiserver.kubernetes.io/identity";
/// A Lease that is older is nobody's.
const FRESH: Duration = Duration::seconds(40);

pub fn judge(cluster: &Cluster, seen: &Seen) -> Vec<Criterion> {
    let mut all = vec![health(&seen.health), servers(cluster, seen)];
    all.extend(
        ["kube-controller-manager", "kube-scheduler"].map(|component| leader(component, seen)),
    );
    all
}

/// Lines of `/readyz?verbose` are `[+]etcd ok` or `[-]etcd failed: reason withheld`.
fn health(text: &str) -> Criterion {
    let failing: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("[-]"))
        .map(|line| line.split_whitespace().next().unwrap_or(line))
        .collect();
    let checks = text.lines().filter(|l| l.starts_with("[+]")).count();
    match failing[..] {
        [] if checks > 0 => Criterion::met(Masters, "API server", format!("{checks} checks")),
        [] => Criterion::unmet(Masters, "API server", "tells nothing of its health"),
        _ => Criterion::unmet(
            Masters,
            "API server",
            format!("not ready: {}", failing.join(", ")),
        ),
    }
}

fn servers(cluster: &Cluster, seen: &Seen) -> Criterion {
    let wanted = cluster.of_role(Role::Master).count();
    let servers = items(&seen.leases)
        .filter(|lease| lease["metadata"]["labels"][IDENTITY] == "kube-apiserver")
        .filter(|lease| is_fresh(lease, seen.now));
    let mut hosts: Vec<&str> = servers
        .map(|lease| {
            let host = lease["metadata"]["labels"]["kubernetes.io/hostname"].as_str();
            host.unwrap_or_else(|| name(lease))
        })
        .collect();
    // One that started anew leaves its old Lease behind.
    hosts.sort_unstable();
    hosts.dedup();
    let found = format!("{} of {wanted}: {}", hosts.len(), hosts.join(", "));
    if hosts.len() < wanted {
        return Criterion::unmet(Masters, "API servers", found);
    }
    Criterion::met(Masters, "API servers", found)
}

fn leader(component: &str, seen: &Seen) -> Criterion {
    let lease = items(&seen.leases).find(|lease| name(lease) == component);
    let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str());
    match (lease, holder) {
        (Some(lease), Some(holder)) if is_fresh(lease, seen.now) && !holder.is_empty() => {
            // HOSTNAME_UUID
            let host = holder.split('_').next().unwrap_or(holder);
            Criterion::met(Masters, component, format!("led by {host}"))
        }
        (Some(_), Some(_)) => Criterion::unmet(Masters, component, "its leader is gone"),
        _ => Criterion::unmet(Masters, component, "nobody leads"),
    }
}

fn is_fresh(lease: &Value, now: OffsetDateTime) -> bool {
    let renewed = lease["spec"]["renewTime"].as_str();
    let renewed = renewed.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    renewed.is_some_and(|renewed| now - renewed < FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;
    use crate::settings;
    use serde_json::json;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00:00 UTC);

    fn cluster() -> Cluster {
        let text = "nodes:\n- {name: m-1, role: master, address: 10.0.0.1}\n\
                    - {name: m-2, role: master, address: 10.0.0.2}\n\
                    - {name: m-3, role: master, address: 10.0.0.3}\nendpoint: api.example.com\n";
        Cluster::new(&settings::load(&Source::new("cluster.yaml", text)).unwrap())
    }

    fn lease(name: &str, host: &str, renewed: &str) -> Value {
        json!({
            "metadata": {"name": name, "labels": {
                IDENTITY: "kube-apiserver", "kubernetes.io/hostname": host}},
            "spec": {"holderIdentity": format!("{host}_2f3a"), "renewTime": renewed},
        })
    }

    fn judged(health: &str, leases: &[Value]) -> Vec<(bool, String)> {
        let seen = Seen {
            health: health.to_owned(),
            leases: json!({"items": leases}),
            requests: json!({}),
            deployments: json!({}),
            daemon_sets: json!({}),
            nodes: json!({}),
            now: NOW,
        };
        let judged = judge(&cluster(), &seen).into_iter();
        judged.map(|c| (c.met, c.found)).collect()
    }

    #[test]
    fn a_control_plane_that_is_whole() {
        let fresh = "2026-11-21T11:59:55.123456Z";
        let leases = [
            lease("apiserver-a", "m-1", fresh),
            lease("apiserver-b", "m-2", fresh),
            lease("apiserver-c", "m-3", fresh),
            // From before m-3 started anew.
            lease("apiserver-d", "m-3", "2026-11-21T11:59:50Z"),
            lease("kube-controller-manager", "m-2", fresh),
            lease("kube-scheduler", "m-1", fresh),
        ];
        let found = judged(
            "[+]ping ok\n[+]etcd ok\nreadyz check passed\n",
            &leases[..4],
        );
        assert_eq!(found[1], (true, "3 of 3: m-1, m-2, m-3".to_owned()));
        assert_eq!(found[2], (false, "nobody leads".to_owned()));
        let found = judged("[+]ping ok\n[+]etcd ok\nreadyz check passed\n", &leases);
        assert!(found.iter().all(|(met, _)| *met), "{found:?}");
        assert_eq!(found[2].1, "led by m-2");
    }

    #[test]
    fn what_is_missing_is_named() {
        let leases = [
            lease("apiserver-a", "m-1", "2026-11-21T11:59:55Z"),
            lease("apiserver-b", "m-2", "2026-11-21T11:58:00Z"),
            lease("kube-scheduler", "m-2", "2026-11-21T11:58:00Z"),
        ];
        let found = judged("[+]ping ok\n[-]etcd failed: reason withheld\n", &leases);
        let expected = [
            "not ready: etcd",
            "1 of 3: m-1",
            "nobody leads",
            "its leader is gone",
        ];
        assert_eq!(found, expected.map(|text| (false, text.to_owned())));
        assert!(!judged("", &leases)[0].0);
    }
}
