//! The operating system's side: `proxy`, `ntp`, `ssh`, `hostAliases`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use units::node_config::HostAlias;

use super::values::Host;
use crate::secret::Secret;
use crate::system::{Proxy, Ssh, System};
use crate::yaml::{At, Node, Object, Reader};

/// Groups, by the names of which no account can be made, and accounts that have no shell.
/// Source: Debian's base-passwd; groups of devices that systemd makes.
const TAKEN: [&str; 43] = [
    "adm", "audio", "backup", "bin", "cdrom", "daemon", "dialout", "dip", "disk", "fax", "floppy",
    "games", "input", "irc", "kmem", "kvm", "list", "lp", "mail", "man", "netdev", "news",
    "nobody", "nogroup", "operator", "plugdev", "proxy", "render", "sasl", "sgx", "shadow", "src",
    "staff", "sudo", "sys", "tape", "tty", "users", "utmp", "uucp", "video", "voice", "www-data",
];

/// Kinds of keys that sshd takes. Source: OpenSSH 10, `ssh -Q key-sig`.
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// Reads the keys of the root mapping that are about the operating system.
pub fn read(r: &mut Reader, o: &mut Object<'_>) -> System {
    System {
        proxy: o.read(r, "proxy", proxy),
        ntp_servers: o.read(r, "ntp", ntp).unwrap_or_default(),
        registries: super::registries::read(r, o),
        ssh: o.read(r, "ssh", ssh).unwrap_or_default(),
        all: super::extras::read(r, o),
        roles: BTreeMap::new(),
        machines: BTreeMap::new(),
        manifests: Vec::new(),
    }
}

fn proxy(r: &mut Reader, node: &Node, path: &str) -> Option<Proxy> {
    let mut o = r.object(node, path)?;
    let http = o.read(r, "http", proxy_url);
    let https = o.read(r, "https", proxy_url);
    let no_proxy = match o.get("noProxy") {
        Some((node, path)) => r.list(node, &path, |r, n, p| {
            r.parse_with(n, p, unproxied).map(|host| host.value)
        }),
        None => Vec::new(),
    };
    let span = o.span.clone();
    let path = o.path.clone();
    let named = o.get("http").is_some() || o.get("https").is_some();
    o.finish(r);
    if !named {
        let help = "write http: http://HOST:PORT, https: http://HOST:PORT, or both";
        r.find(
            &span,
            format!("{path}: neither http nor https"),
            Some(help.to_owned()),
        );
    }
    Some(Proxy {
        http,
        https,
        no_proxy,
    })
}

/// A proxy's URL, which is never shown: there may be a password in it.
fn proxy_url(r: &mut Reader, node: &Node, path: &str) -> Option<Secret> {
    let url = r.secret(node, path)?;
    let text = url.value.expose_text().unwrap_or_default();
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    // Source: RFC 3986, 2: anything else is percent-encoded.
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b);
    let host = rest.map(|rest| {
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        authority.rsplit('@').next().unwrap_or(authority)
    });
    if host.is_none_or(|host| !is_host_and_port(host)) || !text.bytes().all(good) {
        let help = "write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with anything but \
                    letters, digits and -._~ percent-encoded in user and password";
        r.find(
            &node.span,
            format!("{path}: is not the URL of a proxy"),
            Some(help.to_owned()),
        );
        return None;
    }
    Some(url.value)
}

/// Whether a text is `HOST[:PORT]`; an IPv6 address stands in brackets.
pub fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, rest)) if host.contains(':') => (
            host,
            rest.strip_prefix(':').or(
                // Nothing may follow the bracket but a port.
                (!rest.is_empty()).then_some(""),
            ),
        ),
        Some(_) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    host.to_ascii_lowercase().parse::<Host>().is_ok()
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A host, a domain with all below it, an address or a range.
fn unproxied(text: &str) -> Result<String, String> {
    let is_host = |text: &str| text.parse::<Host>().is_ok();
    let domain = text.strip_prefix('.').unwrap_or(text);
    if text == "*" || text.parse::<IpNet>().is_ok() || is_host(domain) || is_host_and_port(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no host, .domain, address or range in CIDR notation"
    ))
}

fn ntp(r: &mut Reader, node: &Node, path: &str) -> Option<Vec<String>> {
    let mut o = r.object(node, path)?;
    let servers = o.required(r, "servers", |r, n, p| {
        let servers = r.list(n, p, |r, n, p| r.parse::<Host>(n, p));
        Some(servers.into_iter().map(|s| s.value.to_string()).collect())
    });
    o.finish(r);
    servers
}

fn ssh(r: &mut Reader, node: &Node, path: &str) -> Option<Ssh> {
    let mut o = r.object(node, path)?;
    let user = o.read(r, "user", |r, n, p| r.parse_with(n, p, login));
    let keys = o.required(r, "authorizedKeys", |r, n, p| Some(r.list(n, p, keys)));
    o.finish(r);
    let mut authorized_keys = Vec::new();
    for key in keys.unwrap_or_default().into_iter().flatten() {
        if !authorized_keys.contains(&key) {
            authorized_keys.push(key);
        }
    }
    Some(Ssh {
        user: user.map(|user| user.value),
        authorized_keys,
    })
}

/// The name of an account. Source: useradd(8), "CAVEATS".
pub fn user_name(text: &str) -> Result<String, String> {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if text.starts_with(first) && text.chars().all(rest) && text.len() <= 32 {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not the name of an account: at most 32 of a-z, 0-9, '_' and '-'"
    ))
}

/// The name of an account that somebody logs in by; where it is not there, one can be made.
pub fn login(text: &str) -> Result<String, String> {
    let name = user_name(text)?;
    if TAKEN.contains(&text) {
        return Err(format!(
            "nobody can log in as {text:?}: Debian's systems have a group or an account of a \
             service by that name; write another"
        ));
    }
    Ok(name)
}

/// One key, or the lines of a file of them.
fn keys(r: &mut Reader, node: &Node, path: &str) -> Option<Vec<String>> {
    // A private key may be given by mistake, and is not shown either.
    let given = r.given(node, path, true)?;
    let text = given.value.bytes.expose_text().unwrap_or_default();
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let mut keys = Vec::new();
    for line in &lines {
        if let Err(why) = public_key(line) {
            let help = "write TYPE BASE64 COMMENT, a line of a .pub file; or @FILE.pub";
            r.find(&given.span, format!("{path}: {why}"), Some(help.to_owned()));
            return None;
        }
        keys.push((*line).to_owned());
    }
    if keys.is_empty() {
        r.find(&given.span, format!("{path}: there is no key in it"), None);
    }
    Some(keys)
}

/// Whether a line is `TYPE BASE64 [COMMENT]`, and the key of that type.
/// Source: sshd(8), "AUTHORIZED_KEYS FILE FORMAT"; RFC 4253, 6.6.
fn public_key(line: &str) -> Result<(), &'static str> {
    if line.contains("PRIVATE KEY") {
        return Err("is a private key: it stays where it is, give the public one");
    }
    if line.chars().any(char::is_control) {
        return Err("has control characters");
    }
    let mut words = line.split_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
        return Err("is not a public key");
    };
    if !KEY_TYPES.contains(&kind) {
        return Err("does not begin with a type of key that sshd takes");
    }
    let bytes = STANDARD
        .decode(blob)
        .map_err(|_| "the key is not in base64, or was cut")?;
    // The type again, after its length; then the key itself.
    let length = u32::try_from(kind.len()).unwrap_or_default().to_be_bytes();
    let head = [&length[..], kind.as_bytes()].concat();
    if !bytes.starts_with(&head) || bytes.len() < head.len() + 32 {
        return Err("the key is of another type, or was cut");
    }
    Ok(())
}

/// Names of addresses.
pub fn host_aliases(r: &mut Reader, node: &Node, path: &str) -> Vec<At<HostAlias>> {
    r.list(node, path, |r, node, path| {
        let mut o = r.object(node, path)?;
        let ip = o.required(r, "ip", |r, n, p| {
            r.parse_with(n, p, |text| {
                text.parse::<IpAddr>()
                    .map_err(|_| format!("{text:?} is not an address"))
            })
        });
        let hostnames = o.required(r, "hostnames", |r, n, p| {
            let names = r.list(n, p, |r, n, p| r.parse_with(n, p, alias));
            if names.is_empty() {
                r.find(&n.span, format!("{p}: there is none"), None);
            }
            Some(names.into_iter().map(|name| name.value).collect())
        });
        let span = o.span.clone();
        o.finish(r);
        Some(At {
            value: HostAlias {
                ip: ip?.value,
                hostnames: hostnames?,
            },
            span,
            path: path.to_owned(),
        })
    })
}

/// A name that may be given to an address.
fn alias(text: &str) -> Result<String, String> {
    match text.parse() {
        Ok(Host::Name(name)) if name.split('.').next() != Some("localhost") => Ok(name),
        Ok(Host::Name(name)) => Err(format!("{name} is loopback's own name")),
        _ => Err(format!("{text:?} is not a DNS name in lower case")),
    }
}
