//! The operator's own files, units, packages and scripts: for all machines, for
//! those of a role (`roles`), and for one.

use ::units::types::FileMode;

use super::system::user_name;
use super::units;
use crate::system::{ExtraContent, ExtraFile, Extras, Hook, Hooks, Origin, Owner, Package};
use crate::yaml::{Node, Object, Reader};

/// Where nothing stays. Source: file-hierarchy(7).
const VOLATILE: [&str; 5] = ["/run", "/tmp", "/proc", "/sys", "/dev"];

/// Reads `files`, `units`, `packages` and `hooks` of a mapping.
pub fn read(r: &mut Reader, o: &mut Object<'_>) -> Extras {
    let files = listed(r, o, "files", file);
    twice(r, &files, |file| (&file.path, &file.origin));
    let units = listed(r, o, "units", units::unit);
    twice(r, &units, |unit| (&unit.name, &unit.origin));
    Extras {
        files,
        units,
        packages: listed(r, o, "packages", package),
        hooks: o.read(r, "hooks", hooks).unwrap_or_default(),
    }
}

fn listed<T>(
    r: &mut Reader,
    o: &mut Object<'_>,
    key: &'static str,
    item: fn(&mut Reader, &Node, &str) -> Option<T>,
) -> Vec<T> {
    match o.get(key) {
        Some((node, path)) => r.list(node, &path, item),
        None => Vec::new(),
    }
}

/// What is named twice in one list; between lists, the more specific is meant.
fn twice<T>(r: &mut Reader, items: &[T], name: impl Fn(&T) -> (&String, &Origin)) {
    for (i, item) in items.iter().enumerate() {
        let (own, origin) = name(item);
        if let Some(first) = items[..i].iter().find(|other| name(other).0 == own) {
            let message = format!("{}: {own} is {} too", origin.path, name(first).1.path);
            r.find(&origin.place.span, message, None);
        }
    }
}

pub(super) fn origin(r: &Reader, node: &Node, path: &str) -> Origin {
    Origin {
        path: path.to_owned(),
        place: r.place(&node.span),
    }
}

fn file(r: &mut Reader, node: &Node, path: &str) -> Option<ExtraFile> {
    let mut o = r.object(node, path)?;
    let target = o.required(r, "path", |r, n, p| r.parse_with(n, p, absolute));
    let mode = o.read(r, "mode", Reader::parse::<FileMode>);
    let owner = o.read(r, "owner", |r, n, p| r.parse_with(n, p, owner));
    // Bytes that only their owner may read are shown to nobody else.
    let private = mode.as_ref().map(|m| is_private(m.value));
    let content = content(r, &mut o, private.unwrap_or(false));
    o.finish(r);
    let content = content?;
    if let (Some(mode), true) = (&mode, content.is_secret)
        && !is_private(mode.value)
    {
        let message = format!("{}: {} lets others read a secret", mode.path, mode.value);
        r.find(&mode.span, message, Some("write mode: \"0600\"".to_owned()));
    }
    Some(ExtraFile {
        path: target?.value,
        mode: match mode {
            Some(mode) => mode.value,
            None if content.is_secret => FileMode::SECRET,
            None => FileMode::PUBLIC,
        },
        owner: owner
            .map(|o| o.value)
            .filter(|o| o.to_string() != Owner::ROOT),
        content,
        origin: origin(r, node, path),
    })
}

fn is_private(mode: FileMode) -> bool {
    mode.bits() & 0o077 == 0
}

/// A path that stays, and that every language takes as it is.
fn absolute(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').skip(1).collect();
    let good = |part: &&str| !part.is_empty() && *part != "." && *part != "..";
    if !text.starts_with('/') || text.chars().any(char::is_control) || !parts.iter().all(good) {
        return Err(format!(
            "{text:?} is not the absolute path of a file, as in /etc/motd"
        ));
    }
    match VOLATILE
        .iter()
        .find(|v| text.strip_prefix(*v).is_some_and(|t| t.starts_with('/')))
    {
        Some(volatile) => Err(format!("{text}: {volatile} is empty after every boot")),
        None => Ok(text.to_owned()),
    }
}

/// `USER`, `USER:GROUP`, names or numbers.
fn owner(text: &str) -> Result<Owner, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    for name in [user, group] {
        if name.parse::<u32>().is_err() {
            user_name(name)?;
        }
    }
    Ok(Owner {
        user: user.to_owned(),
        group: group.to_owned(),
    })
}

/// What is in a file: `content`, inline or referred to, or `source`, the name
/// of a file.
pub(super) fn content(r: &mut Reader, o: &mut Object<'_>, private: bool) -> Option<ExtraContent> {
    match (o.get("content"), o.get("source")) {
        (Some((node, path)), None) => {
            let given = r.given(node, &path, private)?.value;
            Some(ExtraContent {
                is_secret: private || given.referred,
                bytes: given.bytes,
            })
        }
        (None, Some((node, path))) => Some(ExtraContent {
            bytes: r.local_file(node, &path)?.value,
            is_secret: private,
        }),
        (given, _) => {
            let what = match given {
                Some(_) => "both content and source",
                None => "neither content nor source",
            };
            let span = o.span.clone();
            let help = "content is the text, @FILE or env:NAME; source is the name of a file";
            r.find(&span, format!("{}: {what}", o.path), Some(help.to_owned()));
            None
        }
    }
}

fn package(r: &mut Reader, node: &Node, path: &str) -> Option<Package> {
    let name = r.parse_with(node, path, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-+._~:=".contains(&b);
        if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(good) {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} is not the name of a package"))
        }
    })?;
    Some(Package {
        name: name.value,
        origin: origin(r, node, path),
    })
}

fn hooks(r: &mut Reader, node: &Node, path: &str) -> Option<Hooks> {
    let mut o = r.object(node, path)?;
    let hooks = Hooks {
        before_knode: o.read(r, "beforeKnode", hook),
        after_ready: o.read(r, "afterReady", hook),
    };
    o.finish(r);
    Some(hooks)
}

/// A script, inline or `@FILE`.
fn hook(r: &mut Reader, node: &Node, path: &str) -> Option<Hook> {
    let bytes = r.given(node, path, true)?.value.bytes;
    if !bytes.expose().starts_with(b"#!/") {
        let help = "the first line names the interpreter, as in #!/bin/sh; a file is @FILE";
        let message = format!("{path}: is not a script");
        r.find(&node.span, message, Some(help.to_owned()));
        return None;
    }
    Some(Hook {
        content: ExtraContent {
            bytes,
            is_secret: true,
        },
        origin: origin(r, node, path),
    })
}
