//! What a document brings onto a machine, read back from any language.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::format::Format;
use crate::lint::{self, cloud_config, ignition};
use crate::report::{Report, Source};
use crate::system::Owner;
use crate::yaml::{self, Node};

/// Where units are on a machine.
const UNITS: &str = "/etc/systemd/system";

/// Files, the host name, and what starts with the machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Landing {
    /// The host name.
    pub hostname: String,
    /// Path → permissions and bytes; of what is fetched, from where.
    pub files: BTreeMap<String, (u32, Vec<u8>)>,
    /// The units that are enabled.
    pub enabled: BTreeSet<String>,
    /// Path → owner, of files that are not root's.
    pub owners: BTreeMap<String, String>,
    /// Account → keys that open it; the image's own account is `""`.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Packages that are installed.
    pub packages: Vec<String>,
}

impl Landing {
    /// Reads a document. What cannot be read in it is not in the result; see
    /// [`lint::document`].
    pub fn read(source: &Arc<Source>) -> Result<(Format, Self), Report> {
        let format = lint::language(source.text());
        let root = yaml::parse(source)?;
        let landing = match format {
            Format::Ignition => Self::of_ignition(&root),
            Format::Coreos | Format::CloudInit => Self::of_cloud_config(&root),
        };
        Ok((format, landing))
    }

    fn of_cloud_config(root: &Node) -> Self {
        let mut landing = Self {
            hostname: root.string("hostname").unwrap_or_default().to_owned(),
            ..Self::default()
        };
        for file in root.list("write_files") {
            let mode = file.string("permissions").unwrap_or("0644");
            let text = file.string("content").unwrap_or_default();
            let bytes = cloud_config::decoded(text, file.string("encoding").unwrap_or_default());
            let path = file.string("path").unwrap_or_default();
            landing.add(
                path,
                u32::from_str_radix(mode, 8).unwrap_or(0o644),
                bytes.unwrap_or_else(|| text.as_bytes().to_vec()),
            );
            landing.owned(path, file.string("owner").unwrap_or(Owner::ROOT));
        }
        landing.keys("", root.list("ssh_authorized_keys"));
        for user in root.list("users") {
            let name = user.string("name").unwrap_or_default();
            landing.keys(name, user.list("ssh_authorized_keys"));
        }
        let packages = root.list("packages").iter().filter_map(Node::text);
        landing.packages = packages.map(str::to_owned).collect();
        for unit in root.get("coreos").into_iter().flat_map(|c| c.list("units")) {
            landing.unit(unit, ["content", "drop_ins", "enable"]);
        }
        for command in root.list("runcmd") {
            let words: Vec<&str> = command.items().iter().filter_map(Node::text).collect();
            if let ["systemctl", "enable", rest @ ..] = &words[..] {
                let units = rest.iter().filter(|word| !word.starts_with('-'));
                landing.enabled.extend(units.map(|unit| (*unit).to_owned()));
            }
        }
        landing
    }

    fn of_ignition(root: &Node) -> Self {
        let mut landing = Self::default();
        for file in root
            .get("storage")
            .into_iter()
            .flat_map(|s| s.list("files"))
        {
            let contents = file.get("contents");
            let url = contents
                .and_then(|c| c.string("source"))
                .unwrap_or("data:,");
            let bytes = match url.strip_prefix("data:") {
                Some(data) => {
                    let packed = contents.and_then(|c| c.string("compression")) == Some("gzip");
                    let bytes = ignition::data(data).unwrap_or_default();
                    if packed {
                        lint::gunzip(&bytes).unwrap_or_default()
                    } else {
                        bytes
                    }
                }
                None => format!("(fetched from {url})\n").into_bytes(),
            };
            let mode = file.string("mode").and_then(|mode| mode.parse().ok());
            let path = file.string("path").unwrap_or_default();
            landing.add(path, mode.unwrap_or(0o644), bytes);
            let part = |key| {
                let owner = file.get(key)?;
                owner.string("id").or_else(|| owner.string("name"))
            };
            let (user, group) = (part("user"), part("group"));
            let owner = [user.unwrap_or("root"), group.unwrap_or("root")].join(":");
            landing.owned(path, &owner);
        }
        for user in root.get("passwd").into_iter().flat_map(|p| p.list("users")) {
            let name = user.string("name").unwrap_or_default();
            landing.keys(name, user.list("sshAuthorizedKeys"));
        }
        for unit in root
            .get("systemd")
            .into_iter()
            .flat_map(|s| s.list("units"))
        {
            landing.unit(unit, ["contents", "dropins", "enabled"]);
        }
        if let Some((_, name)) = landing.files.remove("/etc/hostname") {
            landing.hostname = String::from_utf8_lossy(&name).trim_end().to_owned();
        }
        landing
    }

    fn add(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        self.files.insert(path.to_owned(), (mode, bytes));
    }

    fn owned(&mut self, path: &str, owner: &str) {
        if owner != Owner::ROOT {
            self.owners.insert(path.to_owned(), owner.to_owned());
        }
    }

    fn keys(&mut self, user: &str, keys: &[Node]) {
        let keys: Vec<String> = keys
            .iter()
            .filter_map(Node::text)
            .map(str::to_owned)
            .collect();
        // The account that images with Ignition have for this.
        let user = if user == "core" { "" } else { user };
        if !keys.is_empty() {
            self.keys.insert(user.to_owned(), keys);
        }
    }

    /// A unit with its drop-ins, by the names that a language has for them.
    fn unit(&mut self, unit: &Node, [content, drop_ins, enable]: [&str; 3]) {
        let name = unit.string("name").unwrap_or_default();
        if let Some(text) = unit.string(content) {
            self.add(&format!("{UNITS}/{name}"), 0o644, text.as_bytes().to_vec());
        }
        for drop_in in unit.list(drop_ins) {
            let file = drop_in.string("name").unwrap_or_default();
            let text = drop_in.string(content).unwrap_or_default();
            self.add(
                &format!("{UNITS}/{name}.d/{file}"),
                0o644,
                text.as_bytes().to_vec(),
            );
        }
        if unit.string(enable) == Some("true") {
            self.enabled.insert(name.to_owned());
        }
    }
}
