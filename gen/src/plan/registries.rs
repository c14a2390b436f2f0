//! What containerd and the kubelet know of image registries.
//! Sources: containerd, docs/hosts.md; Kubernetes documentation, "Pull an Image
//! from a Private Registry".

use ::units::paths;
use ::units::types::FileMode;
use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};
use zeroize::Zeroizing;

use super::files::{public, secret};
use super::{Content, Parts, PlannedFile};
use crate::secret::Secret;
use crate::system::{Access, Login, Mirror, Registry};

/// Docker's own key for its registry in config.json.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// A folder for each registry that is more than its name, and the logins.
pub fn files(parts: Parts<'_>) -> Result<Vec<PlannedFile>> {
    let mut files = Vec::new();
    if !parts.machine.role.runs_kubelet() {
        return Ok(files);
    }
    for registry in &parts.system.registries {
        files.extend(hosts(registry)?);
    }
    files.extend(logins(&parts.system.registries)?);
    Ok(files)
}

/// `hosts.toml` and the certificates that it names. A login at a mirror is in
/// it, as the kubelet knows registries only.
fn hosts(registry: &Registry) -> Result<Vec<PlannedFile>> {
    let folder = format!("{}/{}", paths::REGISTRIES_DIR, registry.host);
    let mut files = Vec::new();
    let mut text = Zeroizing::new(String::new());
    if let Some(server) = &registry.server {
        text.push_str(&format!("server = {}\n", quoted(server)?));
    }
    let ca = format!("{folder}/ca.crt");
    text.push_str(&trust(&registry.access, &ca, &mut files)?);
    for (i, mirror) in registry.mirrors.iter().enumerate() {
        let ca = format!("{folder}/mirror-{}.crt", i + 1);
        text.push_str(&host(mirror, &ca, &mut files)?);
    }
    if text.is_empty() {
        return Ok(files);
    }
    let path = format!("{folder}/hosts.toml");
    let has_login = registry.mirrors.iter().any(|m| m.access.login.is_some());
    files.push(if has_login {
        let content = Content::Secret(Secret::from(text.to_string()));
        PlannedFile::new(path, FileMode::SECRET, content)
    } else {
        public(path, text.to_string())
    });
    Ok(files)
}

fn host(mirror: &Mirror, ca: &str, files: &mut Vec<PlannedFile>) -> Result<Zeroizing<String>> {
    let name = quoted(&mirror.url)?;
    let capabilities = serde_json::to_string(&mirror.capabilities).context("writing TOML")?;
    let mut text = Zeroizing::new(format!("\n[host.{name}]\ncapabilities = {capabilities}\n"));
    if mirror.override_path {
        text.push_str("override_path = true\n");
    }
    text.push_str(&trust(&mirror.access, ca, files)?);
    if let Some(login) = &mirror.access.login {
        let basic = basic(login);
        text.push_str(&format!(
            "\n[host.{name}.header]\nAuthorization = \"Basic {}\"\n",
            basic.as_str()
        ));
    }
    Ok(text)
}

fn trust(access: &Access, ca: &str, files: &mut Vec<PlannedFile>) -> Result<String> {
    let mut text = String::new();
    if let Some(pem) = &access.ca {
        text.push_str(&format!("ca = {}\n", quoted(ca)?));
        files.push(public(ca, pem.clone()));
    }
    if access.skip_verify {
        text.push_str("skip_verify = true\n");
    }
    Ok(text)
}

/// A basic string of TOML's, which is written as one of JSON's.
fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).context("writing TOML")
}

/// `USER:PASSWORD` in base64. Source: RFC 7617, 2.
fn basic(login: &Login) -> Zeroizing<String> {
    let mut pair = Zeroizing::new(login.username.clone().into_bytes());
    pair.push(b':');
    pair.extend_from_slice(login.password.expose());
    Zeroizing::new(STANDARD.encode(&*pair))
}

/// Docker's config.json, where the kubelet looks for logins.
fn logins(registries: &[Registry]) -> Result<Option<PlannedFile>> {
    let mut auths = Map::new();
    for registry in registries {
        if let Some(login) = &registry.access.login {
            let key = if registry.host == DOCKER_HUB.0 {
                DOCKER_HUB.1
            } else {
                &registry.host
            };
            auths.insert(key.to_owned(), json!({"auth": basic(login).as_str()}));
        }
    }
    if auths.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string_pretty(&json!({"auths": auths})).context("writing JSON")?;
    let text = Secret::from(text + "\n");
    Ok(Some(secret(paths::REGISTRY_LOGINS, text)))
}
