//! Ignition, spec 3.3.0: Fedora CoreOS, Flatcar and their kin.
//!
//! It runs once, in the initramfs, before the machine's own root is entered:
//! files, folders and units are there before the first service starts, and
//! the target is enabled by a preset of the first boot. Contents of files are
//! data URLs, the shortest of three ways. knode checks every file against the
//! manifest in node.yaml, so only what is fetched carries a checksum here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use units::types::FileMode;

use super::Document;
use super::encode::gzip;
use crate::plan::{NodePlan, PlannedFile, RemoteFile};

/// The version of the language; Debian's ignition-validate knows no later one.
pub const VERSION: &str = "3.3.0";
/// Where it puts units, always with the mode 0644.
const UNITS: &str = "/etc/systemd/system/";
/// Where it puts the host name.
const HOST_NAME: &str = "/etc/hostname";
/// What it takes for a unit. Source: Ignition, config/v3_3/types/unit.go.
const KINDS: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];
/// It reads units with a parser that has this limit for a line.
/// Source: go-systemd, unit/deserialize.go.
const LONGEST_LINE: usize = 2048;

#[derive(Serialize)]
struct Config<'p> {
    ignition: Ignition,
    #[serde(skip_serializing_if = "Option::is_none")]
    passwd: Option<Passwd<'p>>,
    storage: Storage<'p>,
    systemd: Systemd<'p>,
}

#[derive(Serialize)]
struct Ignition {
    version: &'static str,
}

#[derive(Serialize)]
struct Passwd<'p> {
    users: [User<'p>; 1],
}

/// An account; one that is there already gets the keys alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct User<'p> {
    name: &'p str,
    ssh_authorized_keys: &'p [String],
}

/// Who owns a file, by number or name.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Owner<'p> {
    Id(u32),
    Name(&'p str),
}

impl<'p> Owner<'p> {
    fn of(text: &'p str) -> Self {
        match text.parse() {
            Ok(id) => Self::Id(id),
            Err(_) => Self::Name(text),
        }
    }
}

#[derive(Serialize)]
struct Storage<'p> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    directories: Vec<Directory<'p>>,
    files: Vec<File<'p>>,
}

/// Modes are decimal numbers here, as JSON has no others.
#[derive(Serialize)]
struct Directory<'p> {
    path: &'p str,
    mode: u32,
}

#[derive(Serialize)]
struct File<'p> {
    path: &'p str,
    mode: u32,
    overwrite: bool,
    contents: Contents,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Owner<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Owner<'p>>,
}

#[derive(Serialize)]
struct Contents {
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Verification>,
}

#[derive(Serialize)]
struct Verification {
    hash: String,
}

#[derive(Serialize)]
struct Systemd<'p> {
    units: Vec<Unit<'p>>,
}

#[derive(Serialize, Default)]
struct Unit<'p> {
    name: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contents: Option<&'p str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropins: Vec<DropIn<'p>>,
}

#[derive(Serialize)]
struct DropIn<'p> {
    name: &'p str,
    contents: &'p str,
}

/// Where a file of the plan goes.
enum Place<'p> {
    Unit(&'p str, &'p str),
    DropIn(&'p str, DropIn<'p>),
    File(&'p PlannedFile),
}

/// Writes the document.
pub fn render(plan: &NodePlan) -> Result<Document> {
    if let Some(own) = plan.file(HOST_NAME) {
        bail!("{}: Ignition writes the host name there itself", own.path);
    }
    let hostname = plan.hostname.as_ref();
    let hostname = hostname.map(|name| PlannedFile::public(HOST_NAME, format!("{name}\n")));
    let mut units: BTreeMap<&str, Unit<'_>> = BTreeMap::new();
    let mut files = Vec::new();
    if let Some(hostname) = &hostname {
        files.push(file(hostname)?);
    }
    let target = format!("{UNITS}{}", plan.target);
    for planned in &plan.files {
        // The target is enabled, and stays a unit by name.
        let placed = if planned.path == target {
            place(planned)
        } else {
            smallest(planned)?.0
        };
        match placed {
            Place::Unit(name, text) => {
                let unit = named(&mut units, name);
                unit.contents = Some(text);
                unit.enabled = (name == plan.target).then_some(true);
            }
            Place::DropIn(unit, drop_in) => named(&mut units, unit).dropins.push(drop_in),
            Place::File(planned) => files.push(file(planned)?),
        }
    }
    for name in &plan.enabled {
        named(&mut units, name).enabled = Some(true);
    }
    if !units.contains_key(plan.target) {
        bail!("{} is not among the files", plan.target);
    }
    files.extend(plan.remote.iter().map(remote));
    files.sort_by_key(|file| file.path);
    write(&Config {
        ignition: Ignition { version: VERSION },
        passwd: passwd(plan),
        storage: Storage {
            directories: directories(plan),
            files,
        },
        systemd: Systemd {
            units: units.into_values().collect(),
        },
    })
}

/// Whose keys they are: Ignition knows no default.
fn passwd(plan: &NodePlan) -> Option<Passwd<'_>> {
    let keys = &plan.ssh.authorized_keys;
    (!keys.is_empty()).then(|| Passwd {
        users: [User {
            name: plan.ssh.user.as_deref().unwrap_or("core"),
            ssh_authorized_keys: keys,
        }],
    })
}

/// About how many bytes a file takes in a document.
pub fn cost(planned: &PlannedFile) -> Result<usize> {
    Ok(smallest(planned)?.1)
}

/// A unit as such, or as a file where that is shorter, since only files can be
/// packed; and about how many bytes that is.
fn smallest(planned: &PlannedFile) -> Result<(Place<'_>, usize)> {
    let as_file = write(&file(planned)?)?.len();
    let place = place(planned);
    let as_unit = match &place {
        Place::Unit(name, text) => write(&Unit {
            name,
            contents: Some(text),
            ..Unit::default()
        })?
        .len(),
        Place::DropIn(name, drop_in) => write(&Unit {
            name,
            dropins: vec![DropIn {
                name: drop_in.name,
                contents: drop_in.contents,
            }],
            ..Unit::default()
        })?
        .len(),
        Place::File(_) => as_file,
    };
    Ok(if as_unit <= as_file {
        (place, as_unit)
    } else {
        (Place::File(planned), as_file)
    })
}

fn write(value: &impl Serialize) -> Result<Document> {
    let text = serde_json::to_string(value).context("writing JSON")?;
    Ok(Document::new(text))
}

fn named<'u, 'p>(units: &'u mut BTreeMap<&'p str, Unit<'p>>, name: &'p str) -> &'u mut Unit<'p> {
    units.entry(name).or_insert_with(|| Unit {
        name,
        ..Unit::default()
    })
}

/// Units and drop-ins that Ignition takes as such; whatever it would refuse or
/// give another mode is a file like others.
fn place(planned: &PlannedFile) -> Place<'_> {
    let as_file = Place::File(planned);
    let Some(name) = planned.path.strip_prefix(UNITS) else {
        return as_file;
    };
    let Ok(text) = std::str::from_utf8(planned.content.bytes()) else {
        return as_file;
    };
    let readable = text.lines().all(|line| line.len() < LONGEST_LINE);
    if planned.mode != FileMode::PUBLIC
        || planned.owner.is_some()
        || !readable
        || text.trim().is_empty()
    {
        return as_file;
    }
    match name.split_once('/') {
        None if is_unit(name) => Place::Unit(name, text),
        Some((folder, name)) if name.ends_with(".conf") && !name.contains('/') => {
            match folder.strip_suffix(".d") {
                Some(unit) if is_unit(unit) => Place::DropIn(
                    unit,
                    DropIn {
                        name,
                        contents: text,
                    },
                ),
                _ => as_file,
            }
        }
        _ => as_file,
    }
}

fn is_unit(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(stem, kind)| !stem.is_empty() && KINDS.contains(&kind))
}

/// The folders that hold keys, for root alone; others are made as they are
/// needed, for everybody to look into.
fn directories(plan: &NodePlan) -> Vec<Directory<'_>> {
    let folders: BTreeSet<&str> = plan
        .files
        .iter()
        .filter_map(|file| file.path.rsplit_once('/'))
        .map(|(folder, _)| folder)
        .filter(|folder| folder.starts_with(units::paths::PKI))
        .collect();
    folders
        .into_iter()
        .map(|path| Directory { path, mode: 0o700 })
        .collect()
}

fn file(planned: &PlannedFile) -> Result<File<'_>> {
    Ok(File {
        path: &planned.path,
        mode: planned.mode.bits(),
        overwrite: true,
        contents: contents(planned.content.bytes())?,
        user: planned.owner.as_ref().map(|o| Owner::of(&o.user)),
        group: planned.owner.as_ref().map(|o| Owner::of(&o.group)),
    })
}

fn remote(remote: &RemoteFile) -> File<'_> {
    File {
        path: remote.path,
        mode: remote.mode.bits(),
        overwrite: true,
        contents: Contents {
            source: remote.url.clone(),
            compression: None,
            verification: Some(Verification {
                hash: format!("sha256-{}", remote.sha256),
            }),
        },
        user: None,
        group: None,
    }
}

/// The shortest of: percent-encoded, base64, gzip in base64.
fn contents(bytes: &[u8]) -> Result<Contents> {
    const COMPRESSION: &str = ",\"compression\":\"gzip\"";
    let packed = gzip(bytes)?;
    let escaped = escape(bytes);
    let base64 = |bytes: &[u8]| format!("data:;base64,{}", STANDARD.encode(bytes));
    let (plain, compressed) = (base64(bytes), base64(&packed));
    let shortest = if escaped.len() <= plain.len() {
        escaped
    } else {
        plain
    };
    let gzip = compressed.len() + COMPRESSION.len() < shortest.len();
    Ok(Contents {
        source: if gzip { compressed } else { shortest },
        compression: gzip.then_some("gzip"),
        verification: None,
    })
}

/// A data URL with what no reader of URLs changes left as it is.
/// Source: RFC 3986, 2.3; and `/`, `:`, `,` and `=`, which stand for
/// themselves in a URL without an authority.
fn escape(bytes: &[u8]) -> String {
    let mut url = String::with_capacity(bytes.len() * 5 / 4 + 8);
    url.push_str("data:,");
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/:,=".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push('%');
            url.push_str(&units::types::to_hex(&[*byte]).to_uppercase());
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_is_taken() {
        let source = |bytes: &[u8]| contents(bytes).unwrap().source;
        assert_eq!(source(b"node-1\n"), "data:,node-1%0A");
        assert_eq!(source(b"100%"), "data:,100%25");
        assert_eq!(source(b""), "data:,");
        let bytes: Vec<u8> = (0..12).collect();
        assert_eq!(source(&bytes), "data:;base64,AAECAwQFBgcICQoL");
        let long = contents("the same line\n".repeat(100).as_bytes()).unwrap();
        assert_eq!(long.compression, Some("gzip"));
        assert!(long.source.len() < 120, "{}", long.source);
    }

    #[test]
    fn what_ignition_would_refuse_as_a_unit_is_a_file() {
        let planned = |path: &str, text: &str, mode: &str| {
            let mut file = PlannedFile::public(path, text.to_owned());
            file.mode = mode.parse().unwrap();
            file
        };
        let is_file = |file: &PlannedFile| matches!(place(file), Place::File(_));
        let text = "[Service]\nExecStart=/bin/a\n";
        for path in ["a.service", "a@b.timer", "a.service.d/10-kgen.conf"] {
            let path = format!("{UNITS}{path}");
            assert!(!is_file(&planned(&path, text, "0644")), "{path}");
            assert!(is_file(&planned(&path, text, "0600")), "{path}");
            assert!(
                is_file(&planned(&path, &"x".repeat(3000), "0644")),
                "{path}"
            );
            assert!(is_file(&planned(&path, "", "0644")), "{path}");
        }
        for path in [
            "a.network",
            "a",
            ".service",
            "a.service.d/x",
            "a.d/10-kgen.conf",
            "a.service.d/b/c.conf",
            "a.service.wants/b.service",
        ] {
            let path = format!("{UNITS}{path}");
            assert!(is_file(&planned(&path, text, "0644")), "{path}");
        }
        assert!(is_file(&planned(
            "/etc/systemd/network/a.network",
            text,
            "0644"
        )));
    }
}
