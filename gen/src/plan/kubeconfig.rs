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

/// How a user proves itself.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'p> {
    /// With a certificate and its key.
    Pair(&'p Pair),
    /// With a bearer token.
    Token(&'p Secret),
    /// With a PEM file that has both certificate and key, and is not there
    /// yet.
    File(&'p str),
}

/// Writes a kubeconfig.
pub fn kubeconfig(user: KubeconfigUser<'_>) -> Secret {
    let pair = Credentials::Pair(user.pair);
    let text = write(user.cluster, user.server, user.authority, user.user, pair);
    Secret::from(text.as_str().to_owned())
}

/// The same for any credentials; every value in it is plain in YAML.
pub fn write(
    cluster: &str,
    server: &str,
    authority: &str,
    name: &str,
    credentials: Credentials<'_>,
) -> Zeroizing<String> {
    let authority = STANDARD.encode(authority);
    let credentials = match credentials {
        Credentials::Pair(pair) => {
            let certificate = STANDARD.encode(&pair.certificate);
            let key = Zeroizing::new(STANDARD.encode(pair.key.expose()));
            let key = key.as_str();
            format!("client-certificate-data: {certificate}\n    client-key-data: {key}")
        }
        Credentials::Token(token) => {
            format!("token: {}", token.expose_text().unwrap_or_default())
        }
        Credentials::File(path) => format!("client-certificate: {path}\n    client-key: {path}"),
    };
    let credentials = Zeroizing::new(credentials);
    let credentials = credentials.as_str();
    Zeroizing::new(format!(
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
    {credentials}
contexts:
- name: {name}@{cluster}
  context:
    cluster: {cluster}
    user: {name}
current-context: {name}@{cluster}
"
    ))
}
