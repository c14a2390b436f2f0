//! The flags of API server, controller manager and scheduler.
//! Source: their --help, 1.34 to 1.36, and the CIS Kubernetes Benchmark.

use ::units::node_config::Service;
use ::units::paths;
use anyhow::Result;
use serde_json::json;

use super::kubelet::{TLS_SUITES, VOLUME_PLUGINS};
use super::{PlannedFile, etcd, files, overlay, units};
use crate::cluster::Args;
use crate::cluster::{Cluster, Machine};
use crate::secret::Secret;

/// The controller manager's identity.
pub const CONTROLLER_MANAGER_KUBECONFIG: &str = "/etc/kubernetes/controller-manager.conf";
/// The scheduler's identity.
pub const SCHEDULER_KUBECONFIG: &str = "/etc/kubernetes/scheduler.conf";
/// The certificate that signs, where ca.crt holds others as well.
pub const SIGNING_CERT: &str = "/etc/kubernetes/pki/ca-signing.crt";
/// How secrets are encrypted at rest.
const ENCRYPTION: &str = "/etc/kubernetes/encryption.yaml";

/// The drop-ins of the three services.
pub fn drop_ins(cluster: &Cluster, machine: &Machine, signing: bool) -> [PlannedFile; 3] {
    flags(cluster, machine, signing).map(|(service, flags)| drop_in(service, &flags))
}

/// The flags of the three programs, however they run. `signing`: the signing
/// certificate has a file of its own, since the controller manager takes one
/// certificate only.
pub fn flags(cluster: &Cluster, machine: &Machine, signing: bool) -> [(Service, Args); 3] {
    let overrides = &cluster.overrides;
    let mut controllers = controller_manager(cluster);
    if signing {
        let flag = "cluster-signing-cert-file".to_owned();
        controllers.insert(flag, SIGNING_CERT.to_owned());
    }
    let apiserver = apiserver(cluster, machine);
    [
        (Service::KubeApiserver, apiserver, &overrides.apiserver),
        (
            Service::KubeControllerManager,
            controllers,
            &overrides.controller_manager,
        ),
        (Service::KubeScheduler, scheduler(), &overrides.scheduler),
    ]
    .map(|(service, mut args, over)| {
        args.extend(over.iter().map(|(k, v)| (k.clone(), v.clone())));
        (service, args)
    })
}

fn drop_in(service: Service, args: &Args) -> PlannedFile {
    let program = format!("{}/{service}", paths::KUBERNETES_BIN);
    let args: Vec<String> = args
        .iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect();
    units::drop_in(service, units::exec_start(&program, &args))
}

/// Secrets are written with XSalsa20-Poly1305; what was written before
/// encryption is still read.
/// Source: Kubernetes documentation, "Encrypting Confidential Data at Rest".
pub fn encryption(key: &Secret) -> Result<PlannedFile> {
    let secret = key.expose_text().unwrap_or_default().trim_end();
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets"],
            "providers": [
                {"secretbox": {"keys": [{"name": "key1", "secret": secret}]}},
                {"identity": {}},
            ],
        }],
    });
    let text = overlay::yaml(&config)?;
    Ok(files::secret(ENCRYPTION, Secret::from(text)))
}

fn args<const N: usize>(args: [(&str, String); N]) -> Args {
    args.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn pki(file: &str) -> String {
    format!("{}/{file}", paths::PKI)
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(",")
}

/// What every server of the three says about TLS and profiling.
fn serving() -> Args {
    args([
        ("profiling", "false".into()),
        ("tls-cipher-suites", list(TLS_SUITES)),
        ("tls-min-version", "VersionTLS12".into()),
    ])
}

fn apiserver(cluster: &Cluster, machine: &Machine) -> Args {
    let mut all = serving();
    all.extend(args([
        ("allow-privileged", "true".into()),
        ("audit-log-maxage", "30".into()),
        ("audit-log-maxbackup", "10".into()),
        ("audit-log-maxsize", "100".into()),
        ("audit-log-path", "/var/log/kubernetes/audit.log".into()),
        (
            "audit-policy-file",
            "/etc/kubernetes/audit-policy.yaml".into(),
        ),
        // Says who is anonymous, and for which paths.
        (
            "authentication-config",
            "/etc/kubernetes/authentication.yaml".into(),
        ),
        ("authorization-mode", "Node,RBAC".into()),
        ("client-ca-file", paths::CA_CERT.into()),
        (
            "enable-admission-plugins",
            "DenyServiceExternalIPs,NodeRestriction".into(),
        ),
        ("enable-bootstrap-token-auth", "true".into()),
        ("encryption-provider-config", ENCRYPTION.into()),
        ("etcd-cafile", pki("etcd/ca.crt")),
        ("etcd-certfile", pki("apiserver-etcd-client.crt")),
        ("etcd-keyfile", pki("apiserver-etcd-client.key")),
        ("etcd-servers", list(etcd::endpoints(cluster))),
        ("kubelet-certificate-authority", paths::CA_CERT.into()),
        (
            "kubelet-client-certificate",
            pki("apiserver-kubelet-client.crt"),
        ),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        (
            "kubelet-preferred-address-types",
            kubelet_addresses(cluster),
        ),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        ("requestheader-allowed-names", "front-proxy-client".into()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        (
            "requestheader-extra-headers-prefix",
            "X-Remote-Extra-".into(),
        ),
        ("requestheader-group-headers", "X-Remote-Group".into()),
        ("requestheader-username-headers", "X-Remote-User".into()),
        ("secure-port", cluster.api_port.to_string()),
        ("service-account-extend-token-expiration", "false".into()),
        (
            "service-account-issuer",
            format!("https://kubernetes.default.svc.{}", cluster.domain),
        ),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("service-cluster-ip-range", list(&cluster.service_cidrs)),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
    ]));
    if let Some(address) = cluster.advertised(machine) {
        all.insert("advertise-address".into(), address.to_string());
    }
    all
}

/// A kubelet's certificate answers to its addresses where they are known
/// beforehand or it asked for it itself, and to its name in any case.
pub(super) fn kubelet_addresses(cluster: &Cluster) -> String {
    let mut with_kubelet = cluster.machines.iter().filter(|m| m.role.runs_kubelet());
    if with_kubelet.all(|m| m.address().is_some() || cluster.asks_to_serve(m)) {
        "InternalIP,Hostname".into()
    } else {
        "Hostname,InternalIP".into()
    }
}

fn controller_manager(cluster: &Cluster) -> Args {
    let kubeconfig = CONTROLLER_MANAGER_KUBECONFIG;
    let mut all = serving();
    all.extend(args([
        ("allocate-node-cidrs", "true".into()),
        ("authentication-kubeconfig", kubeconfig.into()),
        ("authorization-kubeconfig", kubeconfig.into()),
        ("bind-address", "127.0.0.1".into()),
        ("client-ca-file", paths::CA_CERT.into()),
        ("cluster-cidr", list(&cluster.pod_cidrs)),
        ("cluster-name", cluster.name.clone()),
        ("cluster-signing-cert-file", paths::CA_CERT.into()),
        ("cluster-signing-key-file", paths::CA_KEY.into()),
        ("controllers", "*,bootstrapsigner,tokencleaner".into()),
        ("flex-volume-plugin-dir", VOLUME_PLUGINS.into()),
        ("kubeconfig", kubeconfig.into()),
        ("leader-elect", "true".into()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("root-ca-file", paths::CA_CERT.into()),
        ("service-account-private-key-file", pki("sa.key")),
        ("service-cluster-ip-range", list(&cluster.service_cidrs)),
        // Of its own default, 12500, a small etcd takes notice.
        ("terminated-pod-gc-threshold", "1000".into()),
        ("use-service-account-credentials", "true".into()),
    ]));
    let masks = cluster.pod_cidrs.iter().map(|net| {
        let flag = match (cluster.pod_cidrs.len(), net) {
            (1, _) => "node-cidr-mask-size",
            (_, ipnet::IpNet::V4(_)) => "node-cidr-mask-size-ipv4",
            (_, ipnet::IpNet::V6(_)) => "node-cidr-mask-size-ipv6",
        };
        (flag.to_owned(), cluster.node_mask_of(net).to_string())
    });
    all.extend(masks);
    all
}

fn scheduler() -> Args {
    let kubeconfig = SCHEDULER_KUBECONFIG;
    let mut all = serving();
    all.extend(args([
        ("authentication-kubeconfig", kubeconfig.into()),
        ("authorization-kubeconfig", kubeconfig.into()),
        ("bind-address", "127.0.0.1".into()),
        ("kubeconfig", kubeconfig.into()),
        ("leader-elect", "true".into()),
    ]));
    all
}
