//! What is served: a table of all paths there are. What is not in it is not
//! there, whatever lies on the disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::cluster::{BaseUrl, Mac};
use crate::pxe::{index::Index, ipxe, seed};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub file: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// For which machine, if for one alone.
    pub machine: Option<Machine>,
}

/// A machine, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its network card.
    pub mac: Mac,
    /// Its name.
    pub name: String,
}

/// Which files are handled alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A few lines that anybody may read.
    Text,
    /// A kernel or an initrd.
    Boot,
    /// A document: keys are in it.
    Document,
}

/// All paths.
#[derive(Debug, Default)]
pub struct Table {
    entries: HashMap<String, Entry>,
    /// What comes before every path, one a server.
    prefixes: Vec<String>,
    cluster: String,
}

impl Table {
    /// What the index of `folder` says is there; kernels and initrds are in
    /// `boot`.
    ///
    /// # Errors
    ///
    /// In words: what in the index cannot be meant.
    pub fn new(index: &Index, folder: &Path, boot: &Path) -> Result<Self, String> {
        let mut table = Self {
            cluster: index.cluster.clone(),
            ..Self::default()
        };
        for url in [&index.server, &index.documents] {
            let url: BaseUrl = url.parse().map_err(|e| format!("{e}"))?;
            table.prefixes.push(url.path().to_owned());
        }
        table.prefixes.dedup();
        table.add(ipxe::BOOT, folder.join(ipxe::BOOT), Kind::Text, None);
        for name in &index.boot {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
                return Err(format!("{name:?} is not the name of a file"));
            }
            table.add(name, boot.join(name), Kind::Boot, None);
        }
        for known in &index.machines {
            let mac: Mac = known.mac.parse().map_err(|e| format!("{e}"))?;
            let machine = Machine {
                mac,
                name: known.name.clone(),
            };
            let own = mac.hyphens();
            let script = format!("{own}.ipxe");
            let file = folder.join(&script);
            table.add(&script, file, Kind::Text, Some(machine.clone()));
            for name in seed::FILES {
                let kind = match name {
                    seed::USER_DATA => Kind::Document,
                    _ => Kind::Text,
                };
                let path = format!("{own}/{name}");
                let file = folder.join(&own).join(name);
                table.add(&path, file, kind, Some(machine.clone()));
            }
        }
        Ok(table)
    }

    fn add(&mut self, path: &str, file: PathBuf, kind: Kind, machine: Option<Machine>) {
        let entry = Entry {
            file,
            kind,
            machine,
        };
        self.entries.insert(path.to_owned(), entry);
    }

    /// What is at the path of a URL.
    pub fn find(&self, path: &str) -> Option<&Entry> {
        let mut names = self.names(path);
        names.find_map(|name| self.entries.get(name))
    }

    /// Why nothing is there, for whoever reads the answer.
    pub fn missing(&self, path: &str) -> String {
        let stranger = self.names(path).find_map(|name| {
            let first = name.split('/').next().unwrap_or_default();
            let mac: Mac = first.strip_suffix(".ipxe").unwrap_or(first).parse().ok()?;
            let known = self
                .entries
                .contains_key(&format!("{}.ipxe", mac.hyphens()));
            (!known).then_some(mac)
        });
        match stranger {
            Some(mac) => format!("no machine of {} has the network card {mac}", self.cluster),
            None => "there is nothing here".to_owned(),
        }
    }

    /// The machine with this name or network card.
    pub fn machine(&self, word: &str) -> Option<&Machine> {
        let mac: Option<Mac> = word.parse().ok();
        let mut machines = self.entries.values().filter_map(|e| e.machine.as_ref());
        machines.find(|m| m.name == word || Some(m.mac) == mac)
    }

    /// Kernels and initrds.
    pub fn boot_files(&self) -> Vec<&Path> {
        let boot = self.entries.values().filter(|e| e.kind == Kind::Boot);
        let mut files: Vec<&Path> = boot.map(|e| e.file.as_path()).collect();
        files.sort_unstable();
        files
    }

    fn names<'t>(&'t self, path: &'t str) -> impl Iterator<Item = &'t str> {
        let prefixes = self.prefixes.iter();
        prefixes.filter_map(|prefix| path.strip_prefix(prefix.as_str())?.strip_prefix('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pxe::index::Known;

    fn index() -> Index {
        Index {
            version: 1,
            cluster: "test".to_owned(),
            server: "http://10.0.0.5:8080".to_owned(),
            documents: "https://10.0.0.5/secret".to_owned(),
            boot: vec!["vmlinuz".to_owned()],
            knode: Default::default(),
            machines: vec![Known {
                name: "node-1".to_owned(),
                mac: "52:54:00:00:00:01".to_owned(),
            }],
        }
    }

    #[test]
    fn only_what_is_in_the_table_is_there() {
        let table = Table::new(&index(), Path::new("out"), Path::new("boot")).unwrap();
        let file = |path: &str| table.find(path).map(|e| e.file.display().to_string());
        assert_eq!(file("/boot.ipxe").unwrap(), "out/boot.ipxe");
        assert_eq!(file("/vmlinuz").unwrap(), "boot/vmlinuz");
        let document = table.find("/secret/52-54-00-00-00-01/user-data").unwrap();
        assert_eq!(document.kind, Kind::Document);
        for path in [
            "",
            "/",
            "boot.ipxe",
            "//boot.ipxe",
            "/./boot.ipxe",
            "/machines.json",
            "/dnsmasq.conf",
            "/served.jsonl",
            "/../pki/ca.key",
            "/%2e%2e/x",
            "/52-54-00-00-00-01",
            "/52-54-00-00-00-01/",
            "/52-54-00-00-00-01/../boot.ipxe",
            "/52:54:00:00:00:01.ipxe",
            "/vmlinuz/",
            "/secret",
        ] {
            assert_eq!(file(path), None, "{path}");
        }
        assert_eq!(table.machine("node-1"), table.machine("52-54-00-00-00-01"));
        assert_eq!(table.machine("node-2"), None);
    }

    #[test]
    fn a_stranger_is_told_so() {
        let table = Table::new(&index(), Path::new("out"), Path::new("boot")).unwrap();
        for path in ["/52-54-00-00-00-02.ipxe", "/52-54-00-00-00-02/user-data"] {
            let why = table.missing(path);
            assert!(why.contains("network card 52:54:00:00:00:02"), "{why}");
        }
        assert_eq!(
            table.missing("/52-54-00-00-00-01/x"),
            "there is nothing here"
        );
    }

    #[test]
    fn an_index_cannot_lead_elsewhere() {
        for name in ["../a", "/etc/passwd", "", ".hidden", "a/b"] {
            let index = Index {
                boot: vec![name.to_owned()],
                ..index()
            };
            assert!(Table::new(&index, Path::new("out"), Path::new("boot")).is_err());
        }
    }
}
