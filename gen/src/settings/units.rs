//! One item of `units`: a unit of the operator's, and drop-ins.

use super::extras::{content, origin};
use crate::secret::Secret;
use crate::system::{ExtraContent, ExtraUnit};
use crate::yaml::{Node, Object, Reader};

/// What a unit's name ends with. Source: systemd.unit(5).
const UNIT_KINDS: [&str; 9] = [
    "service",
    "socket",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
];

/// Reads the item.
pub fn unit(r: &mut Reader, node: &Node, path: &str) -> Option<ExtraUnit> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", |r, n, p| r.parse_with(n, p, unit_name));
    let given = o.get("content").is_some() || o.get("source").is_some();
    let content = if given { text(r, &mut o) } else { None };
    let enable = o.read(r, "enable", Reader::boolean);
    let start = o.read(r, "start", Reader::boolean);
    let drop_ins = match o.get("dropIns") {
        Some((node, path)) => r.list(node, &path, drop_in),
        None => Vec::new(),
    };
    let span = o.span.clone();
    o.finish(r);
    let enable = enable.filter(|at| at.value);
    let start = start.is_some_and(|at| at.value);
    if !given && enable.is_none() && !start && drop_ins.is_empty() {
        let help = "give it content or source, dropIns, enable or start";
        r.find(
            &span,
            format!("{path}: nothing is done with it"),
            Some(help.to_owned()),
        );
    }
    if let (Some(enable), Some(content)) = (&enable, &content)
        && !has_install_section(content)
    {
        let help = "say in [Install] what wants it, as in WantedBy=multi-user.target; or write \
                    start: true instead, which needs none";
        let message = format!("{}: the unit has no [Install]", enable.path);
        r.find(&enable.span, message, Some(help.to_owned()));
    }
    Some(ExtraUnit {
        name: name?.value,
        content,
        drop_ins,
        enable: enable.is_some(),
        start,
        origin: origin(r, node, path),
    })
}

fn has_install_section(content: &ExtraContent) -> bool {
    let text = content.bytes.expose_text().unwrap_or_default();
    text.lines().any(|line| line.trim() == "[Install]")
}

/// Text for systemd, which reads no other bytes; anybody may read it there, so
/// it is no place for secrets.
fn text(r: &mut Reader, o: &mut Object<'_>) -> Option<ExtraContent> {
    let span = o.span.clone();
    let content = content(r, o, false)?;
    if content.is_secret {
        let help = "name the file as source, and put secrets into one of their own under files";
        let message = format!("{}: everybody may read a unit", o.path);
        r.find(&span, message, Some(help.to_owned()));
        return None;
    }
    let text = content.bytes.expose_text().unwrap_or_default();
    if text.trim().is_empty() || text.contains('\0') {
        r.find(&span, format!("{}: is empty, or not text", o.path), None);
        return None;
    }
    Some(ExtraContent {
        bytes: lines(text),
        is_secret: false,
    })
}

/// A text whose last line ends as lines do.
fn lines(text: &str) -> Secret {
    Secret::from(format!("{}\n", text.trim_end_matches('\n')))
}

/// Source: systemd.unit(5), "DESCRIPTION".
fn unit_name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let known = text
        .rsplit_once('.')
        .is_some_and(|(stem, kind)| !stem.is_empty() && UNIT_KINDS.contains(&kind));
    if known && text.len() <= 255 && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not the name of a unit, as in backup.service; its kind is one of {}",
        UNIT_KINDS.join(", ")
    ))
}

fn drop_in(r: &mut Reader, node: &Node, path: &str) -> Option<(String, ExtraContent)> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", |r, n, p| {
        r.parse_with(n, p, |text| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if text.len() > 5 && text.ends_with(".conf") && text.bytes().all(good) {
                Ok(text.to_owned())
            } else {
                Err(format!(
                    "{text:?} is not the name of a drop-in, as in 20-limits.conf"
                ))
            }
        })
    });
    let text = text(r, &mut o);
    o.finish(r);
    Some((name?.value, text?))
}
