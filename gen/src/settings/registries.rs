//! `registries`: mirrors and logins. Source: containerd, docs/hosts.md.

use x509_parser::pem::Pem;

use super::system::is_host_and_port;
use crate::secret::Secret;
use crate::system::{Access, Login, Mirror, Registry};
use crate::yaml::{At, Node, Object, Reader};

/// The registry that stands for all that are not listed.
const DEFAULT: &str = "_default";

/// Reads the list of registries.
pub fn read(r: &mut Reader, o: &mut Object<'_>) -> Vec<Registry> {
    let Some((node, path)) = o.get("registries") else {
        return Vec::new();
    };
    let mut seen: Vec<(String, String)> = Vec::new();
    r.list(node, &path, |r, node, path| {
        let registry = registry(r, node, path)?;
        if let Some((_, first)) = seen.iter().find(|(host, _)| *host == registry.host) {
            let message = format!("{path}: {} is {first} too", registry.host);
            r.find(&node.span, message, None);
        }
        seen.push((registry.host.clone(), path.to_owned()));
        Some(registry)
    })
}

fn registry(r: &mut Reader, node: &Node, path: &str) -> Option<Registry> {
    let mut o = r.object(node, path)?;
    let host = o.required(r, "host", |r, n, p| r.parse_with(n, p, host));
    let server = o.read(r, "server", public_url);
    let mirrors = match o.get("mirrors") {
        Some((node, path)) => r.list(node, &path, mirror),
        None => Vec::new(),
    };
    let access = access(r, &mut o);
    if let (Some(host), Some((node, path))) = (&host, o.get("login"))
        && host.value == DEFAULT
    {
        let help = "name the registry that the login is for";
        let message = format!("{path}: would be sent to every registry");
        r.find(&node.span, message, Some(help.to_owned()));
    }
    o.finish(r);
    Some(Registry {
        host: host?.value,
        server: server.map(|server| server.value),
        mirrors,
        access,
    })
}

/// A registry's part of an image's name.
fn host(text: &str) -> Result<String, String> {
    if text == DEFAULT || is_host_and_port(text) && text.to_ascii_lowercase() == text {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not HOST or HOST:PORT as in images' names, and not {DEFAULT}"
    ))
}

fn mirror(r: &mut Reader, node: &Node, path: &str) -> Option<Mirror> {
    let mut o = r.object(node, path)?;
    let url = o.required(r, "url", public_url);
    let capabilities = match o.get("capabilities") {
        Some((node, path)) => r.list(node, &path, |r, n, p| {
            r.parse_with(n, p, capability).map(|c| c.value)
        }),
        None => vec!["pull", "resolve"],
    };
    let override_path = o.read(r, "overridePath", Reader::boolean);
    let access = access(r, &mut o);
    o.finish(r);
    Some(Mirror {
        url: url?.value,
        capabilities,
        override_path: override_path.is_some_and(|at| at.value),
        access,
    })
}

fn capability(text: &str) -> Result<&'static str, String> {
    ["pull", "resolve", "push"]
        .into_iter()
        .find(|known| *known == text)
        .ok_or_else(|| format!("unknown capability {text:?}: use pull, resolve or push"))
}

/// A URL without credentials, which have a place of their own and are not shown
/// where they stand in a URL by mistake.
pub fn public_url(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    if node.text().is_some_and(|text| text.contains('@')) {
        r.hide(&node.span);
    }
    r.parse_with(node, path, url)
}

fn url(text: &str) -> Result<String, &'static str> {
    let Some(rest) = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
    else {
        return Err("is not an http or https address");
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return Err(
            "has a name or password in it, and would be shown; registries have login for them",
        );
    }
    // Source: RFC 3986, 3.3, without what quotes it elsewhere.
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:@!&()*+,;=%".contains(&b);
    if !is_host_and_port(authority) || !path.bytes().all(good) {
        return Err("is not an http or https address of a host, a port and a path");
    }
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

fn access(r: &mut Reader, o: &mut Object<'_>) -> Access {
    Access {
        login: o.read(r, "login", login),
        ca: o.read(r, "ca", certificates),
        skip_verify: o
            .read(r, "skipVerify", Reader::boolean)
            .is_some_and(|at| at.value),
    }
}

fn login(r: &mut Reader, node: &Node, path: &str) -> Option<Login> {
    let mut o = r.object(node, path)?;
    let username = o.required(r, "username", |r, n, p| {
        r.parse_with(n, p, |text| {
            // Source: RFC 7617, 2.
            let good = |c: char| !c.is_control() && c != ':';
            if !text.is_empty() && text.chars().all(good) {
                Ok(text.to_owned())
            } else {
                Err("is empty, or has a colon or a control character")
            }
        })
    });
    let password = o.required(r, "password", Reader::secret);
    o.finish(r);
    Some(Login {
        username: username?.value,
        password: password?.value,
    })
}

/// Certificates in PEM, inline or `@FILE`.
fn certificates(r: &mut Reader, node: &Node, path: &str) -> Option<String> {
    let given = r.given(node, path, true)?;
    match pem(&given.value.bytes) {
        Some(text) => Some(text),
        None => {
            let help = "give PEM as it is, or as @FILE; a key has no place here";
            let message = format!("{path}: is not one or more certificates in PEM");
            r.find(&given.span, message, Some(help.to_owned()));
            None
        }
    }
}

fn pem(bytes: &Secret) -> Option<String> {
    let mut found = 0;
    for block in Pem::iter_from_buffer(bytes.expose()) {
        let block = block.ok()?;
        if block.label != "CERTIFICATE" || block.parse_x509().is_err() {
            return None;
        }
        found += 1;
    }
    let text = bytes.expose_text()?.trim_end();
    (found > 0).then(|| format!("{text}\n"))
}
