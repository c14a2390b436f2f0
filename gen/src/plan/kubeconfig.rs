//! Kubeconfigs with everything in them. Source: Kubernetes API,
//! client-go/tools/clientcmd/api/v1 Config.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::pki::Pair;
use crate::secret::Secret;

/// Who reaches which API server, and how both prove themselves.
#[derive(Debug, Clone, Copy)]
pub struct KubeconfigUser<'p> {
    /// The cluster's name, a DNS label.
    pub cluster: &'p str,
    /// The API server's URL.
    pub server: &'p str,
    /// The certificate of the authority, PEM.
    pub authority: &'p str,
    /// The user's name in the file.
    pub user: &'p str,
    /// The user's certificate and key.
    pub pair: &'p Pair,
}

/// Writes a kubeconfig; every value in it is plain in YAML.
pub fn kubeconfig(user: KubeconfigUser<'_>) -> Secret {
    let KubeconfigUser {
        cluster,
        server,
        user: name,
        ..
    } = user;
    let authority = STANDARD.encode(user.authority);
    let certificate = STANDARD.encode(&user.pair.certificate);
    let key = Zeroizing::new(STANDARD.encode(user.pair.key.expose()));
    let key = key.as_str();
    Secret::from(format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {cluster}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {name}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {name}@{cluster}
  context:
    cluster: {cluster}
    user: {name}
current-context: {name}@{cluster}
"
    ))
}
