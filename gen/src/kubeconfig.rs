//! A cluster put into somebody's kubeconfig, everything else in it left as it
//! is. Source: Kubernetes API, client-go/tools/clientcmd/api/v1 Config.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::report::{Finding, Report, Source};
use crate::secret::Secret;
use crate::yaml::{self, Key, Kind, Node};

/// What is put in.
#[derive(Debug)]
pub struct Access<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The user's name.
    pub user: &'a str,
    /// The context's name.
    pub context: &'a str,
    /// The API server's URL.
    pub server: &'a str,
    /// The certificates that are believed, PEM.
    pub authority: &'a str,
    /// The user's certificate, PEM.
    pub certificate: &'a str,
    /// The user's key, PEM.
    pub key: &'a Secret,
}

/// A kubeconfig with the cluster in it.
#[derive(Debug)]
pub struct Merged {
    /// The text; there are keys in it.
    pub text: Secret,
    /// Whether another context than before is the current one.
    pub is_current: bool,
    /// Whether there were comments, which are lost.
    pub lost_comments: bool,
}

/// Puts a cluster, its user and its context into a kubeconfig (none: a new
/// one); those of this cluster that are there are brought up to date, fields
/// of theirs that we do not know left alone. The context becomes the current
/// one if none is, or if `make_current`.
///
/// # Errors
///
/// The text is no kubeconfig, or has one of the names for something else.
/// Errors have none of the text.
pub fn merge(
    old: Option<&Arc<Source>>,
    access: &Access<'_>,
    make_current: bool,
) -> Result<Merged, Report> {
    let mut root = match old {
        Some(source) => yaml::parse(source).map_err(|wrong| unreadable(source, &wrong))?,
        None => map(vec![]),
    };
    let shown = old.map_or("kubeconfig", |source| source.name());
    let Kind::Map(entries) = &mut root.kind else {
        return Err(Finding::new(format!("{shown}: is no kubeconfig")).into());
    };
    let kind = entries.iter().find(|(key, _)| key.text == "kind");
    if kind.is_some_and(|(_, kind)| kind.text() != Some("Config")) {
        return Err(Finding::new(format!("{shown}: is no kubeconfig: its kind is another")).into());
    }
    check(entries, access, shown)?;
    ensure(entries, "apiVersion", plain("v1"));
    ensure(entries, "kind", plain("Config"));
    let base64 = |text: &[u8]| Zeroizing::new(STANDARD.encode(text));
    let authority = base64(access.authority.as_bytes());
    put(
        list(entries, "clusters", shown)?,
        access.cluster,
        "cluster",
        &[
            ("server", access.server),
            ("certificate-authority-data", &authority),
        ],
        &["certificate-authority", "insecure-skip-tls-verify"],
    );
    let certificate = base64(access.certificate.as_bytes());
    let key = base64(access.key.expose());
    put(
        list(entries, "users", shown)?,
        access.user,
        "user",
        &[
            ("client-certificate-data", &certificate),
            ("client-key-data", &key),
        ],
        &[
            "client-certificate",
            "client-key",
            "token",
            "tokenFile",
            "username",
            "password",
            "exec",
            "auth-provider",
        ],
    );
    put(
        list(entries, "contexts", shown)?,
        access.context,
        "context",
        &[("cluster", access.cluster), ("user", access.user)],
        &[],
    );
    let current = entries.iter().find(|(k, _)| k.text == "current-context");
    let current = current
        .and_then(|(_, node)| node.text())
        .unwrap_or_default();
    let change = current != access.context && (make_current || current.is_empty());
    if change {
        entries.retain(|(key, _)| key.text != "current-context");
        ensure(entries, "current-context", text(access.context));
    }
    let written = yaml::write(&root);
    // Comments are not in the tree: what has a '#' that is not in a value.
    let hashes = |text: &str| text.matches('#').count();
    Ok(Merged {
        is_current: change,
        lost_comments: old.is_some_and(|old| hashes(old.text()) > hashes(&written)),
        text: Secret::from(written),
    })
}

/// What is wrong with a text, without showing any of it.
fn unreadable(source: &Arc<Source>, wrong: &Report) -> Report {
    let what: Vec<String> = wrong
        .findings()
        .iter()
        .map(|f| match f.position() {
            Some(position) => format!("{position}: is not valid YAML"),
            None => format!("{}: is not valid YAML", source.name()),
        })
        .collect();
    Finding::new(what.join(", ")).into()
}

/// Refuses names that something else has.
fn check(entries: &[(Key, Node)], access: &Access<'_>, shown: &str) -> Result<(), Report> {
    let root = |section: &str| {
        let found = entries.iter().find(|(key, _)| key.text == section);
        found.map_or(&[][..], |(_, node)| node.items())
    };
    let named = |section: &str, name: &str| {
        let found = root(section)
            .iter()
            .find(|i| i.string("name") == Some(name));
        found.cloned()
    };
    let mut report = Report::default();
    let mut clash = |what: &str, name: &str, why: &str| {
        let finding = Finding::new(format!("{shown}: the {what} {name} is there, {why}"));
        report.add(finding.help("call this one otherwise: --context NAME"));
    };
    let cluster = named("clusters", access.cluster);
    let ours = cluster.as_ref().is_some_and(|cluster| {
        let data = cluster
            .get("cluster")
            .and_then(|c| c.string("certificate-authority-data"));
        let theirs = data.and_then(|data| STANDARD.decode(data).ok());
        let theirs = theirs.and_then(|pem| String::from_utf8(pem).ok());
        theirs.is_some_and(|theirs| share_a_certificate(&theirs, access.authority))
    });
    if cluster.is_some() && !ours {
        clash("cluster", access.cluster, "with another authority");
    }
    let users: Vec<&Node> = root("contexts")
        .iter()
        .filter_map(|item| item.get("context"))
        .filter(|context| context.string("user") == Some(access.user))
        .collect();
    let elsewhere = users
        .iter()
        .any(|c| c.string("cluster") != Some(access.cluster));
    if named("users", access.user).is_some() && (users.is_empty() || elsewhere) {
        clash("user", access.user, "and not for this cluster alone");
    }
    if let Some(context) = named("contexts", access.context) {
        let cluster = context.get("context").and_then(|c| c.string("cluster"));
        if cluster != Some(access.cluster) {
            clash("context", access.context, "for another cluster");
        }
    }
    report.into_result()
}

/// Whether two PEM texts have a certificate in common: while an authority is
/// replaced there are several.
fn share_a_certificate(a: &str, b: &str) -> bool {
    let bodies = |text: &str| -> Vec<String> {
        let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
        let bodies = blocks.filter_map(|block| block.split("-----END").next());
        bodies
            .map(|body| body.split_whitespace().collect())
            .collect()
    };
    let theirs = bodies(b);
    bodies(a).iter().any(|body| theirs.contains(body))
}

/// The items under a key, which becomes a list if it is nothing.
fn list<'n>(
    entries: &'n mut Vec<(Key, Node)>,
    key: &str,
    shown: &str,
) -> Result<&'n mut Vec<Node>, Report> {
    let wrong = || Report::from(Finding::new(format!("{shown}: {key}: is not a list")));
    let at = match entries.iter().position(|(k, _)| k.text == key) {
        Some(at) => at,
        None => {
            entries.push((name(key), node(Kind::Null)));
            entries.len() - 1
        }
    };
    let (_, found) = entries.get_mut(at).ok_or_else(wrong)?;
    if matches!(found.kind, Kind::Null) {
        found.kind = Kind::List(Vec::new());
    }
    match &mut found.kind {
        Kind::List(items) => Ok(items),
        _ => Err(wrong()),
    }
}

/// Sets fields of a named item, which is made if it is not there; `gone`
/// would contradict them.
fn put(items: &mut Vec<Node>, called: &str, key: &str, fields: &[(&str, &str)], gone: &[&str]) {
    let there = |item: &Node| item.string("name") == Some(called);
    if !items.iter().any(there) {
        let fresh = map(vec![(name("name"), text(called)), (name(key), map(vec![]))]);
        items.push(fresh);
    }
    for item in items.iter_mut().filter(|item| there(item)) {
        let Kind::Map(entries) = &mut item.kind else {
            continue;
        };
        if !entries
            .iter()
            .any(|(k, node)| k.text == key && matches!(node.kind, Kind::Map(_)))
        {
            entries.retain(|(k, _)| k.text != key);
            entries.push((name(key), map(vec![])));
        }
        for (_, inner) in entries.iter_mut().filter(|(k, _)| k.text == key) {
            let Kind::Map(inner) = &mut inner.kind else {
                continue;
            };
            inner.retain(|(k, _)| !gone.contains(&k.text.as_str()));
            for (field, value) in fields {
                match inner.iter_mut().find(|(k, _)| k.text == *field) {
                    Some((_, node)) if node.text() == Some(value) => {}
                    Some((_, node)) => *node = text(value),
                    None => inner.push((name(field), text(value))),
                }
            }
        }
    }
}

fn ensure(entries: &mut Vec<(Key, Node)>, key: &str, value: Node) {
    if !entries.iter().any(|(k, _)| k.text == key) {
        entries.push((name(key), value));
    }
}

fn node(kind: Kind) -> Node {
    Node { span: 0..0, kind }
}

fn map(entries: Vec<(Key, Node)>) -> Node {
    node(Kind::Map(entries))
}

fn name(text: &str) -> Key {
    Key {
        text: text.to_owned(),
        span: 0..0,
    }
}

fn plain(text: &str) -> Node {
    scalar(text, true)
}

/// Quoted where a plain one could mean something else.
fn text(text: &str) -> Node {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@+=".contains(&b);
    // "no", "12" and "1.5" are short; base64, URLs and names with '@' are not.
    let clear = text.len() > 6 && text.starts_with(|c: char| c.is_ascii_alphabetic());
    scalar(
        text,
        clear && text.bytes().all(good) && !text.ends_with(':'),
    )
}

fn scalar(text: &str, plain: bool) -> Node {
    node(Kind::Scalar {
        text: text.to_owned(),
        plain,
    })
}
