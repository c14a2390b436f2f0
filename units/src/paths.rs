//! Where things are on a node. Every path is absolute; kgen writes them, knode
//! reads them through its root handle.

/// NodeConfig, 0600: what this machine is.
pub const NODE_CONFIG: &str = "/etc/knode/node.yaml";
/// Where the bootstrap script finds knode: lines of `ARCH SHA256 URL`.
pub const KNODE_SOURCES: &str = "/etc/knode/knode.list";
/// The script that brings knode onto the machine.
pub const BOOTSTRAP_SCRIPT: &str = "/etc/knode/bootstrap.sh";
/// The agent itself.
pub const KNODE: &str = "/opt/knode/bin/knode";
/// Verified artifacts, one folder each, named by the hex of their digest.
pub const STORE: &str = "/opt/knode/store";
/// What is true now: step states, the first failing step and its code.
pub const STATUS: &str = "/run/knode/status.json";
/// Objects that masters apply to the cluster and keep, a file of YAML each,
/// 0600: bootstrap tokens, add-ons, the operator's own manifests.
pub const OBJECTS_DIR: &str = "/etc/knode/objects";
/// The proxy for downloads, systemd EnvironmentFile syntax, 0600; absent
/// without one.
pub const PROXY_ENVIRONMENT: &str = "/etc/knode/proxy.env";
/// Volatile state of the agent, gone after a reboot.
pub const RUN_DIR: &str = "/run/knode";
/// State of the agent that is worth keeping over reboots.
pub const STATE_DIR: &str = "/var/lib/knode";

/// Kubernetes binaries, links into the store.
pub const KUBERNETES_BIN: &str = "/opt/kubernetes/bin";
/// CNI plugins.
pub const CNI_BIN: &str = "/opt/cni/bin";
/// The CNI network list that knode writes.
pub const CNI_CONFIG: &str = "/etc/cni/net.d/10-knode.conflist";

/// Kubernetes' configuration folder.
pub const KUBERNETES: &str = "/etc/kubernetes";
/// Manifests of the pods that the kubelet runs by itself, 0600.
pub const STATIC_PODS: &str = "/etc/kubernetes/manifests";
/// The authorities that the machine itself trusts, for static pods: knode
/// puts them into one `ca-certificates.crt`, wherever the image has them.
pub const TRUSTED: &str = "/run/knode/ca-certificates";
/// The API server's audit log, 0700.
pub const KUBERNETES_LOG: &str = "/var/log/kubernetes";
/// Certificates and keys, kubeadm's names.
pub const PKI: &str = "/etc/kubernetes/pki";
/// The cluster's CA certificate, on every machine.
pub const CA_CERT: &str = "/etc/kubernetes/pki/ca.crt";
/// The cluster's CA key, on masters only.
pub const CA_KEY: &str = "/etc/kubernetes/pki/ca.key";
/// The kubelet's identity.
pub const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// The identity of a machine that has no certificate yet: a token, 0600.
pub const BOOTSTRAP_KUBECONFIG: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// The identity that the kubelet got by rotating its own: a link to one PEM
/// file with certificate and key.
pub const KUBELET_ROTATED: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The kubelet's KubeletConfiguration.
pub const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet.yaml";
/// What only the running machine knows of the kubelet's arguments
/// (`KUBELET_ARGS=…`, systemd EnvironmentFile syntax); written by knode.
pub const KUBELET_ENVIRONMENT: &str = "/run/knode/kubelet.env";
/// The same for kube-proxy (`KUBE_PROXY_ARGS=…`).
pub const KUBE_PROXY_ENVIRONMENT: &str = "/run/knode/kube-proxy.env";
/// kube-proxy's identity; knode watches Nodes with it as well.
pub const KUBE_PROXY_KUBECONFIG: &str = "/etc/kubernetes/kube-proxy.conf";
/// kube-proxy's KubeProxyConfiguration.
pub const KUBE_PROXY_CONFIG: &str = "/etc/kubernetes/kube-proxy.yaml";
/// etcd's configuration file.
pub const ETCD_CONFIG: &str = "/etc/kubernetes/etcd.yaml";
/// With which configuration etcd starts next (`CONFIG_FILE=…`, systemd
/// EnvironmentFile syntax); written by knode, without which a member without
/// data does not start.
pub const ETCD_ENVIRONMENT: &str = "/run/knode/etcd.env";
/// etcd's data, 0700.
pub const ETCD_DATA: &str = "/var/lib/etcd";
/// containerd's configuration, written by knode for the version it finds.
pub const CONTAINERD_CONFIG: &str = "/etc/kubernetes/containerd.toml";
/// What containerd knows of registries: `HOST/hosts.toml`.
pub const REGISTRIES_DIR: &str = "/etc/containerd/certs.d";
/// The kubelet's logins at registries, Docker's config.json, 0600.
pub const REGISTRY_LOGINS: &str = "/var/lib/kubelet/config.json";
/// The Docker daemon's configuration.
pub const DOCKER_CONFIG: &str = "/etc/docker/daemon.json";
/// The Docker daemon's certificate and key (`server.crt`, `server.key`), and
/// the authority of its clients (`ca.crt`).
pub const DOCKER_TLS: &str = "/etc/docker/tls";
/// The Docker daemon's socket on its own machine.
pub const DOCKER_SOCKET: &str = "/run/docker.sock";
/// containerd's socket.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
