//! Machines that come by a bootstrap token: the kubeconfigs that they have at
//! first, and what makes the token known to the cluster.
//! Sources: Kubernetes documentation, "TLS bootstrapping" and "Authenticating
//! with Bootstrap Tokens".

use ::units::paths;
use ::units::types::{FileMode, Role};
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zeroize::Zeroizing;

use super::kubeconfig::{Credentials, write};
use super::{Content, Parts, PlannedFile, files, overlay};
use crate::pki::Token;
use crate::secret::Secret;

/// The group whose members may ask for a kubelet's certificate; masters bind
/// it to what that takes.
const GROUP: &str = "system:bootstrappers:knode";

/// The files of a document for several machines; none of others.
pub fn kubeconfigs(parts: Parts<'_>) -> Result<Vec<PlannedFile>> {
    let (cluster, machine) = (parts.cluster, parts.machine);
    if machine.role == Role::Master {
        return Ok(Vec::new());
    }
    let Some(token) = parts.material.tokens.first() else {
        return Ok(Vec::new());
    };
    let server = cluster.api_url(machine);
    let authority = files::authority(parts)?;
    let by = |user, credentials| write(&cluster.name, &server, authority, user, credentials);
    let token = token.whole();
    let bootstrap = by("tls-bootstrap-token-user", Credentials::Token(&token));
    // The kubelet's identity is kube-proxy's as well: nothing else is this
    // machine's own.
    let later = |path: &str, user| {
        let text = by(user, Credentials::File(paths::KUBELET_ROTATED));
        let content = Content::Public(text.as_str().to_owned().into());
        PlannedFile::new(path, FileMode::SECRET, content)
    };
    Ok(vec![
        files::secret(
            paths::BOOTSTRAP_KUBECONFIG,
            Secret::from(bootstrap.as_str().to_owned()),
        ),
        later(paths::KUBELET_KUBECONFIG, "kubelet"),
        later(paths::KUBE_PROXY_KUBECONFIG, "kube-proxy"),
    ])
}

/// What masters make known to the cluster: all tokens in one file, since they
/// are alike and pack well; none without pools.
pub fn objects(parts: Parts<'_>) -> Result<Option<PlannedFile>> {
    if parts.machine.role != Role::Master || parts.material.tokens.is_empty() {
        return Ok(None);
    }
    let mut all = Vec::new();
    for token in &parts.material.tokens {
        if !all.is_empty() {
            all.extend_from_slice(b"---\n");
        }
        all.extend_from_slice(token_object(token)?.expose());
    }
    let path = format!("{}/bootstrap-tokens.yaml", paths::OBJECTS_DIR);
    Ok(Some(files::secret(path, Secret::new(all))))
}

/// The Secret that makes a token known to the cluster, as YAML.
pub fn token_object(token: &Token) -> Result<Secret> {
    let data = |text: &str| STANDARD.encode(text);
    let proof = Zeroizing::new(STANDARD.encode(token.proof.expose()));
    // Its own leave to sign cluster-info is not asked for: the authority comes
    // with the document.
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": format!("bootstrap-token-{}", token.id),
            "namespace": "kube-system",
        },
        "type": "bootstrap.kubernetes.io/token",
        // Not stringData, which has no owner in server-side apply.
        "data": {
            "description": data(&format!("Machines of {}, made by kgen", token.pool)),
            "token-id": data(&token.id),
            "token-secret": proof.as_str(),
            "expiration": data(&token.expires()),
            "usage-bootstrap-authentication": data("true"),
            "auth-extra-groups": data(GROUP),
        },
    });
    let text = Zeroizing::new(overlay::yaml(&object)?);
    Ok(Secret::from(text.as_str().to_owned()))
}
