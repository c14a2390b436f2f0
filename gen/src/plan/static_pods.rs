//! The control plane as static pods of the kubelet (P36): the very flags and
//! configuration files of the services, in pods like kubeadm's.
//! Sources: Kubernetes API, core/v1 Pod; kubeadm's `controlplane` and `etcd`
//! phases, 1.34 to 1.36.

mod mounts;

use ::units::node_config::Service;
use ::units::paths;
use ::units::types::{FileMode, Role};
use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::files::secret;
use super::{Content, Parts, PlannedFile, control_plane, etcd, overlay, proxy};
use crate::cluster::{Args, Cluster, Machine};
use crate::secret::Secret;
use mounts::Mount;

/// The namespace of the cluster's own pods.
const NAMESPACE: &str = "kube-system";
/// What `system-node-critical` is worth; the kubelet looks no class up.
/// Source: Kubernetes documentation, "Pod Priority and Preemption".
const NODE_CRITICAL: u32 = 2_000_001_000;

/// What runs on a machine as static pods.
pub fn services(cluster: &Cluster, machine: &Machine) -> Vec<Service> {
    if !cluster.static_pods || machine.role != Role::Master {
        return Vec::new();
    }
    let etcd = cluster.runs_etcd(machine).then_some(Service::Etcd);
    let others = [
        Service::KubeApiserver,
        Service::KubeControllerManager,
        Service::KubeScheduler,
    ];
    etcd.into_iter().chain(others).collect()
}

/// The manifests of a machine.
///
/// # Errors
///
/// Nothing says which image of etcd is meant.
pub fn files(parts: Parts<'_>) -> Result<Vec<PlannedFile>> {
    let (cluster, machine) = (parts.cluster, parts.machine);
    let pods = services(cluster, machine);
    if pods.is_empty() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    if pods.contains(&Service::Etcd) {
        files.push(manifest(&etcd_pod(parts)?, Vec::new())?);
    }
    let signing = parts.material.signing.is_some();
    for (service, flags) in control_plane::flags(cluster, machine, signing) {
        // As their units do; the scheduler speaks with the API server alone.
        let environment = match service {
            Service::KubeScheduler => Vec::new(),
            _ => proxy::variables(parts),
        };
        files.push(manifest(&program(cluster, service, &flags), environment)?);
    }
    Ok(files)
}

/// A pod of one container.
struct Pod {
    service: Service,
    image: String,
    command: Vec<String>,
    mounts: Vec<Mount>,
    requests: Value,
    /// Where it tells that it lives, that it serves, and that it has started.
    health: [Value; 3],
}

fn program(cluster: &Cluster, service: Service, flags: &Args) -> Pod {
    let mut command = vec![service.to_string()];
    command.extend(flags.iter().map(|(k, v)| format!("--{k}={v}")));
    let port = |default: u16| {
        let typed = flags.get("secure-port").and_then(|port| port.parse().ok());
        typed.unwrap_or(default)
    };
    let healthz = |default| [(); 3].map(|()| ask("HTTPS", port(default), "/healthz"));
    let (cpu, health) = match service {
        Service::KubeApiserver => (
            "250m",
            ["/livez", "/readyz", "/livez"].map(|path| ask("HTTPS", port(cluster.api_port), path)),
        ),
        Service::KubeControllerManager => ("200m", healthz(10257)),
        _ => ("100m", healthz(10259)),
    };
    let mut mounts = mounts::of_flags(flags);
    if service != Service::KubeScheduler {
        mounts.push(mounts::trusted());
    }
    Pod {
        service,
        image: format!("{}/{service}:v{}", cluster.images.registry, cluster.version),
        command,
        mounts,
        requests: json!({"cpu": cpu}),
        health,
    }
}

fn etcd_pod(parts: Parts<'_>) -> Result<Pod> {
    let cluster = parts.cluster;
    let image = match (&cluster.images.etcd, parts.etcd_version) {
        (Some(image), _) => image.clone(),
        (None, Some(version)) => format!("{}/etcd:{version}-0", cluster.images.registry),
        (None, None) => {
            let arch = parts.machine.arch;
            anyhow::bail!("no lock names etcd for {arch}: name its image as images.etcd")
        }
    };
    let config = etcd::settings(cluster, parts.machine);
    let port = etcd::metrics_port(&config);
    Ok(Pod {
        service: Service::Etcd,
        image,
        command: vec![
            "etcd".to_owned(),
            format!("--config-file={}", paths::ETCD_CONFIG),
        ],
        mounts: mounts::of_etcd(&config),
        requests: json!({"cpu": "100m", "memory": "100Mi"}),
        health: ["/livez", "/readyz", "/readyz"].map(|path| ask("HTTP", port, path)),
    })
}

fn ask(scheme: &str, port: u16, path: &str) -> Value {
    json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": path, "scheme": scheme}})
}

/// A probe with kubeadm's patience.
fn probe(ask: &Value, delay: u32, period: u32, failures: u32) -> Value {
    let mut probe = ask.clone();
    if delay > 0 {
        probe["initialDelaySeconds"] = json!(delay);
    }
    probe["periodSeconds"] = json!(period);
    probe["timeoutSeconds"] = json!(15);
    probe["failureThreshold"] = json!(failures);
    probe
}

/// The pod as a file for root alone, as the CIS benchmark has it (1.1.1).
fn manifest(pod: &Pod, environment: Vec<(String, String)>) -> Result<PlannedFile> {
    let name = pod.service.to_string();
    // The kubelet puts variables into commands: `$(NAME)`.
    let command: Vec<String> = pod.command.iter().map(|a| a.replace('$', "$$")).collect();
    let [live, ready, started] = &pod.health;
    let (volumes, volume_mounts) = mounts::both(&pod.mounts);
    let mut container = json!({
        "name": name,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "resources": {"requests": pod.requests},
        "securityContext": {"allowPrivilegeEscalation": false},
        "livenessProbe": probe(live, 10, 10, 8),
        "readinessProbe": probe(ready, 0, 1, 3),
        "startupProbe": probe(started, 1, 2, 120),
        "volumeMounts": volume_mounts,
    });
    let with_proxy = !environment.is_empty();
    if with_proxy {
        let variables = environment.into_iter();
        container["env"] = variables
            .map(|(name, value)| json!({"name": name, "value": value.replace('$', "$$")}))
            .collect();
    }
    let text = overlay::yaml(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"component": name, "tier": "control-plane"},
        },
        "spec": {
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "priority": NODE_CRITICAL,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": volumes,
        },
    }))
    .with_context(|| format!("the manifest of {name}"))?;
    let path = format!("{}/{name}.yaml", paths::STATIC_PODS);
    // A proxy's address may hold its password.
    Ok(if with_proxy {
        secret(path, Secret::from(text))
    } else {
        PlannedFile::new(path, FileMode::SECRET, Content::Public(text.into()))
    })
}
