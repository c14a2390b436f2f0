//! A cluster tried out: a pod that serves, a Service before it, and a pod that
//! reaches it by every way there is. What is to be made, and what is thought of
//! it; nothing is made here. (P44, P57)

use serde_json::{Value, json};

use super::Phase::{Pods, Services};
use super::{Criterion, items, name};
use crate::cluster::Cluster;

/// The label of everything that a probe makes.
pub const LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGER: &str = "kgen-wait";
/// The pod that serves, and its Service.
const SERVER: &str = "server";
/// The pod that asks.
const CLIENT: &str = "client";
/// Where it serves.
const PORT: u16 = 8080;
/// So many Nodes' ports are tried; the first by name.
const NODES: usize = 10;
/// An attempt's time, as the image's program takes it.
const ATTEMPT: &str = "--timeout=5s";
/// nobody, in every image.
const USER: u32 = 65_534;

/// What the API server says of a probe's objects; null where there is none yet.
#[derive(Debug, Clone, Default)]
pub struct Probed {
    /// The pods.
    pub pods: Value,
    /// The Service.
    pub service: Value,
    /// Why something could not be made, if that is so.
    pub trouble: Option<String>,
}

/// The namespace that holds it all, and with which it all goes.
pub fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                (LABEL): MANAGER,
                "pod-security.kubernetes.io/enforce": "restricted",
            },
        },
    })
}

/// The pod that serves, and the Service before it.
pub fn server(cluster: &Cluster, deadline: u64) -> [(&'static str, Value); 2] {
    let container = container(cluster, SERVER, &["netexec".to_owned()]);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVER, "labels": {(LABEL): MANAGER}},
        "spec": {
            "type": "NodePort",
            "selector": {"app": SERVER},
            "ports": [{"port": 80, "targetPort": PORT}],
        },
    });
    let pod = pod(SERVER, "Always", vec![container], deadline);
    [("pods", pod), ("services", service)]
}

/// The pod that asks, once it is known where: a container for each way.
pub fn client(
    cluster: &Cluster,
    probed: &Probed,
    nodes: &Value,
    dns: bool,
    deadline: u64,
) -> Option<Value> {
    let ways = ways(cluster, &probed.service, nodes, dns)?;
    let containers = ways
        .iter()
        .map(|way| {
            let arguments = ["connect".to_owned(), ATTEMPT.to_owned(), way.target.clone()];
            container(cluster, &way.container, &arguments)
        })
        .collect();
    Some(pod(CLIENT, "OnFailure", containers, deadline))
}

/// The outside address of one Node's port, to be tried from here.
pub fn from_outside(service: &Value, nodes: &Value) -> Option<String> {
    let port = service["spec"]["ports"][0]["nodePort"].as_u64()?;
    let address = items(nodes).find_map(address)?;
    Some(host_port(address, port))
}

/// A way to the Service.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// The container that tries it.
    container: String,
    /// What it is called in the result.
    subject: String,
    /// `HOST:PORT`.
    target: String,
}

fn ways(cluster: &Cluster, service: &Value, nodes: &Value, dns: bool) -> Option<Vec<Way>> {
    let address = service["spec"]["clusterIP"].as_str()?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64()?;
    let namespace = service["metadata"]["namespace"].as_str()?;
    let mut ways = vec![Way {
        container: "cluster-ip".to_owned(),
        subject: "ClusterIP".to_owned(),
        target: host_port(address, 80),
    }];
    if dns {
        ways.push(Way {
            container: "dns".to_owned(),
            subject: "DNS".to_owned(),
            target: format!("{SERVER}.{namespace}.svc.{}:80", cluster.domain),
        });
    }
    let with_address = items(nodes).filter_map(|node| Some((name(node), self::address(node)?)));
    for (index, (node, address)) in with_address.take(NODES).enumerate() {
        ways.push(Way {
            container: format!("node-port-{index}"),
            subject: format!("NodePort of {node}"),
            target: host_port(address, port),
        });
    }
    Some(ways)
}

fn address(node: &Value) -> Option<&str> {
    let addresses = node["status"]["addresses"].as_array()?.iter();
    let mut internal = addresses.filter(|address| address["type"] == "InternalIP");
    internal.next()?["address"].as_str()
}

fn host_port(host: &str, port: u64) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn pod(name: &str, restart: &str, containers: Vec<Value>, deadline: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, (LABEL): MANAGER}},
        "spec": {
            "restartPolicy": restart,
            // Should nobody be left to remove it.
            "activeDeadlineSeconds": deadline,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": containers,
        },
    })
}

fn container(cluster: &Cluster, name: &str, arguments: &[String]) -> Value {
    json!({
        "name": name,
        "image": cluster.images.probe(),
        "args": arguments,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    })
}

/// What the probe has shown so far.
pub fn judge(cluster: &Cluster, probed: &Probed, nodes: &Value, dns: bool) -> Vec<Criterion> {
    let find = |wanted: &str| items(&probed.pods).find(|pod| name(pod) == wanted);
    let server = match (find(SERVER), &probed.trouble) {
        (_, Some(why)) => Criterion::unmet(Pods, "a pod", why),
        (None, None) => Criterion::unmet(Pods, "a pod", "is not made yet"),
        (Some(pod), None) => serves(pod),
    };
    let mut all = vec![server];
    let asked = find(CLIENT);
    for way in ways(cluster, &probed.service, nodes, dns).unwrap_or_default() {
        all.push(match asked.and_then(|pod| state(pod, &way.container)) {
            Some(state) => reached(&way, state),
            None => {
                let found = asked.map_or("is not tried yet".to_owned(), waits_for);
                Criterion::unmet(Services, way.subject, found)
            }
        });
    }
    if all.len() == 1 {
        all.push(Criterion::unmet(Services, "a Service", "is not made yet"));
    }
    all
}

fn state<'p>(pod: &'p Value, container: &str) -> Option<&'p Value> {
    let states = pod["status"]["containerStatuses"].as_array()?;
    states.iter().find(|state| state["name"] == container)
}

fn serves(pod: &Value) -> Criterion {
    let node = pod["spec"]["nodeName"].as_str();
    match (state(pod, SERVER), node) {
        (Some(state), Some(node)) if state["ready"] == true => {
            Criterion::met(Pods, "a pod", format!("runs on {node}"))
        }
        (Some(state), _) => Criterion::unmet(Pods, "a pod", why(state)),
        (None, _) => Criterion::unmet(Pods, "a pod", waits_for(pod)),
    }
}

/// What keeps a pod from a machine, as the scheduler tells.
fn waits_for(pod: &Value) -> String {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let refused = conditions.find(|one| one["type"] == "PodScheduled" && one["status"] != "True");
    let message = refused.and_then(|one| one["message"].as_str());
    message.unwrap_or("is not started yet").to_owned()
}

/// Why a container does not run.
fn why(state: &Value) -> String {
    let states = [&state["state"], &state["lastState"]];
    let kinds = states
        .iter()
        .flat_map(|state| ["terminated", "waiting"].map(|kind| &state[kind]));
    let told = kinds.filter(|kind| kind.is_object()).map(|kind| {
        let text = |key: &str| kind[key].as_str().unwrap_or_default().trim();
        match (text("reason"), text("message")) {
            (reason, "") => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    });
    let told: Vec<String> = told.collect();
    match told.as_slice() {
        [] => "starts".to_owned(),
        told => told.join("; before: "),
    }
}

fn reached(way: &Way, state: &Value) -> Criterion {
    match state["state"]["terminated"]["exitCode"].as_i64() {
        Some(0) => Criterion::met(Services, &way.subject, format!("{} answers", way.target)),
        _ => {
            let found = format!("{}: {}", way.target, why(state));
            Criterion::unmet(Services, &way.subject, found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;
    use crate::settings;

    fn cluster() -> Cluster {
        let text = "nodes:\n- {name: m, role: master, address: 10.0.0.1}\n";
        Cluster::new(&settings::load(&Source::new("cluster.yaml", text)).unwrap())
    }

    fn service() -> Value {
        json!({"metadata": {"namespace": "kgen-wait-1"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"nodePort": 30_001}]}})
    }

    fn nodes() -> Value {
        json!({"items": [{"metadata": {"name": "m"}, "status": {"addresses": [
            {"type": "Hostname", "address": "m"}, {"type": "InternalIP", "address": "fd00::1"}]}}]})
    }

    #[test]
    fn every_way_to_a_service_has_its_container() {
        let probed = Probed {
            service: service(),
            ..Probed::default()
        };
        let pod = client(&cluster(), &probed, &nodes(), true, 60).unwrap();
        let containers = pod["spec"]["containers"].as_array().unwrap().iter();
        let targets: Vec<&str> = containers.map(|c| c["args"][2].as_str().unwrap()).collect();
        let expected = [
            "10.96.0.7:80",
            "server.kgen-wait-1.svc.cluster.local:80",
            "[fd00::1]:30001",
        ];
        assert_eq!(targets, expected);
        assert_eq!(
            client(&cluster(), &Probed::default(), &nodes(), true, 60),
            None
        );
        let outside = from_outside(&service(), &nodes());
        assert_eq!(outside.as_deref(), Some("[fd00::1]:30001"));
    }

    #[test]
    fn what_was_shown_is_told_way_by_way() {
        let ended = |name: &str, code: i64| {
            json!({"name": name, "state": {"terminated":
                {"exitCode": code, "reason": "Error", "message": "REFUSED\n"}}})
        };
        let server = json!({"metadata": {"name": "server"}, "spec": {"nodeName": "m"},
            "status": {"containerStatuses": [{"name": "server", "ready": true}]}});
        let client = json!({"metadata": {"name": "client"}, "status": {"containerStatuses":
            [ended("cluster-ip", 0), ended("node-port-0", 1)]}});
        let mut probed = Probed {
            pods: json!({"items": [server, client]}),
            service: service(),
            trouble: None,
        };
        let told = |probed: &Probed| -> Vec<String> {
            let judged = judge(&cluster(), probed, &nodes(), false).into_iter();
            judged
                .map(|c| format!("{} {} {}: {}", c.phase, c.subject, c.met, c.found))
                .collect()
        };
        assert_eq!(
            told(&probed),
            [
                "pods a pod true: runs on m",
                "services ClusterIP true: 10.96.0.7:80 answers",
                "services NodePort of m false: [fd00::1]:30001: Error: REFUSED",
            ]
        );
        let no_room = json!({"metadata": {"name": "server"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}});
        probed.pods = json!({"items": [no_room]});
        assert!(told(&probed)[0].ends_with("false: 0/1 nodes are available"));
        let probed = Probed::default();
        assert_eq!(
            told(&probed)[1],
            "services a Service false: is not made yet"
        );
    }
}
