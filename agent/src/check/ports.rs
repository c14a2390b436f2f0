//! Who listens on which TCP port, from /proc.

use std::collections::BTreeMap;
use std::path::Path;

use crate::sys::root::{Kind, Root};

/// A port that a service needs, and that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// The service that needs it, or knode itself.
    pub service: String,
    /// The program that has it; absent where that cannot be found out.
    pub program: Option<String>,
}

impl Listener {
    /// Whether the service itself has it. The kernel cuts names of programs.
    pub fn is_rightful(&self) -> bool {
        const COMM: usize = 15;
        let name = &self.service;
        self.program.as_deref() == name.get(..COMM.min(name.len()))
    }
}

/// Which of these ports are in use, and by whom.
pub fn listeners(root: &Root, wanted: &BTreeMap<u16, String>) -> Vec<Listener> {
    let mut found: BTreeMap<u16, u64> = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = root.read_to_string(table).unwrap_or_default();
        found.extend(
            listening(&text)
                .into_iter()
                .filter(|(port, _)| wanted.contains_key(port)),
        );
    }
    if found.is_empty() {
        return Vec::new();
    }
    let programs = programs(root);
    found
        .into_iter()
        .filter_map(|(port, inode)| {
            Some(Listener {
                port,
                service: wanted.get(&port)?.clone(),
                program: programs.get(&inode).cloned(),
            })
        })
        .collect()
}

/// The program that listens on the port; absent where nobody does, or that
/// cannot be found out.
pub fn holder(root: &Root, port: u16) -> Option<String> {
    listeners(root, &BTreeMap::from([(port, String::new())]))
        .into_iter()
        .find_map(|listener| listener.program)
}

/// Ports and inodes of listening sockets in a table of the kernel's.
/// Source: the kernel's documentation, networking/proc_net_tcp.
pub fn listening(table: &str) -> Vec<(u16, u64)> {
    const LISTEN: &str = "0A";
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let listens = *fields.get(3)? == LISTEN;
        let port = u16::from_str_radix(port, 16).ok()?;
        let inode = fields.get(9)?.parse().ok()?;
        listens.then_some((port, inode))
    };
    table.lines().skip(1).filter_map(entry).collect()
}

/// The program of every socket, by its inode.
fn programs(root: &Root) -> BTreeMap<u64, String> {
    let mut programs = BTreeMap::new();
    // A process that ends meanwhile has no sockets any more.
    for process in root.list("/proc").unwrap_or_default() {
        // Beside the processes there are links to the one that asks.
        if process.kind != Kind::Dir {
            continue;
        }
        let folder = Path::new("/proc").join(&process.name);
        let Ok(open) = root.list(folder.join("fd")) else {
            continue;
        };
        let comm = root.read_to_string(folder.join("comm")).unwrap_or_default();
        for entry in open {
            let target = root.read_link(folder.join("fd").join(&entry.name));
            let inode = target.ok().flatten().and_then(|target| {
                let text = target.to_str()?.strip_prefix("socket:[")?;
                text.strip_suffix(']')?.parse().ok()
            });
            if let Some(inode) = inode {
                programs.insert(inode, comm.trim_end().to_owned());
            }
        }
    }
    programs
}
