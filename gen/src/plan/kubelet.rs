//! kubelet.yaml and kube-proxy.yaml.
//! Sources: Kubernetes API, kubelet.config.k8s.io/v1beta1 and
//! kubeproxy.config.k8s.io/v1alpha1.

use ::units::node_config::CgroupDriver;
use ::units::paths;
use ::units::types::{FileMode, Role};
use anyhow::Result;
use serde_json::{Value, json};

use super::files::public;
use super::{PlannedFile, overlay};
use crate::cluster::{Cluster, Machine};

/// TLS 1.2 with forward secrecy and authenticated encryption; 1.3 has no
/// others. Source: Mozilla, Server Side TLS 5.7, "intermediate".
pub const TLS_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Where kubelet and controller manager look for volume plugins; the default
/// is under /usr, which may be read-only.
pub const VOLUME_PLUGINS: &str = "/var/lib/kubelet/volumeplugins";

/// The kubelet's configuration.
pub fn config(cluster: &Cluster, machine: &Machine) -> Result<PlannedFile> {
    let cgroup_driver = match cluster.cgroup_driver {
        CgroupDriver::Systemd => "systemd",
        CgroupDriver::Cgroupfs => "cgroupfs",
    };
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": paths::CA_CERT},
        },
        "authorization": {"mode": "Webhook"},
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "tlsMinVersion": "VersionTLS12",
        "tlsCipherSuites": TLS_SUITES,
        "rotateCertificates": true,
        "serverTLSBootstrap": cluster.asks_to_serve(machine),
        "containerRuntimeEndpoint": format!("unix://{}", paths::CONTAINERD_SOCKET),
        "cgroupDriver": cgroup_driver,
        "clusterDNS": cluster.dns_service(),
        "clusterDomain": cluster.domain,
        "registerNode": true,
        "seccompDefault": true,
        "podPidsLimit": 4096,
        "shutdownGracePeriod": "30s",
        "shutdownGracePeriodCriticalPods": "10s",
        "volumePluginDir": VOLUME_PLUGINS,
    });
    if !cluster.asks_to_serve(machine) {
        config["tlsCertFile"] = json!(format!("{}/kubelet.crt", paths::PKI));
        config["tlsPrivateKeyFile"] = json!(format!("{}/kubelet.key", paths::PKI));
    }
    if let Some(id) = &machine.provider_id {
        config["providerID"] = json!(id);
    }
    if machine.role == Role::Master {
        config["staticPodPath"] = json!(format!("{}/manifests", paths::KUBERNETES));
    }
    if !machine.taints.is_empty() {
        // knode registers the Node; should it be deleted, the kubelet makes it
        // again and has to know.
        config["registerWithTaints"] = serde_json::to_value(&machine.taints)?;
    }
    let all = [&cluster.overrides.kubelet]
        .into_iter()
        .chain(&machine.kubelet);
    let file = laid_over(paths::KUBELET_CONFIG, config, all)?;
    // As the CIS benchmark (4.1.9) has it, though there is no secret in it.
    Ok(PlannedFile {
        mode: FileMode::SECRET,
        ..file
    })
}

/// kube-proxy's configuration.
pub fn proxy_config(cluster: &Cluster) -> Result<PlannedFile> {
    let cidrs: Vec<String> = cluster.pod_cidrs.iter().map(ToString::to_string).collect();
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": cidrs.join(","),
        "clientConnection": {"kubeconfig": paths::KUBE_PROXY_KUBECONFIG},
        // Load balancers ask here whether the node has endpoints.
        "healthzBindAddress": std::net::SocketAddr::new(cluster.any_address(), 10256),
        "metricsBindAddress": "127.0.0.1:10249",
    });
    laid_over(
        paths::KUBE_PROXY_CONFIG,
        config,
        [&cluster.overrides.kube_proxy],
    )
}

fn laid_over<'v>(
    path: &str,
    mut config: Value,
    all: impl IntoIterator<Item = &'v Value>,
) -> Result<PlannedFile> {
    for over in all {
        overlay::lay(&mut config, over);
    }
    Ok(public(path, overlay::yaml(&config)?))
}
