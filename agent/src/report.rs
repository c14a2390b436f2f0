//! `knode report`: one archive with what tells how this machine is.
//!
//! What goes in is a list of files and programs in which no secrets belong
//! ([`FILES`], [`PROGRAMS`]); kubeconfigs, keys, tokens and a proxy's password
//! are in none of them. All of it goes through [`crate::scrub`] besides.

mod gzip;

use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;

use crate::error::{Code, Context as _, Error, Result};
use crate::scrub::scrub;
use crate::supervise::evidence;
use crate::sys::program;
use crate::sys::root::Root;
use units::paths;

/// No more than this is packed, and so no more comes out: 8 MiB.
const ALL: usize = 8 * 1024 * 1024 - 64 * 1024;
/// The last bytes of a long file or of what a program says.
const ONE: u64 = 1024 * 1024;
/// How long one program may take.
const LIMIT: Duration = Duration::from_secs(15);
/// The archive's one folder.
const FOLDER: &str = "knode-report";

/// Files without secrets, the most telling ones first.
const FILES: [&str; 22] = [
    paths::STATUS,
    crate::metrics::FILE,
    paths::NODE_CONFIG,
    paths::KUBELET_CONFIG,
    paths::KUBE_PROXY_CONFIG,
    paths::CONTAINERD_CONFIG,
    paths::ETCD_CONFIG,
    paths::CNI_CONFIG,
    paths::KUBELET_ENVIRONMENT,
    paths::KUBE_PROXY_ENVIRONMENT,
    paths::KNODE_SOURCES,
    "/etc/os-release",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc/version",
    "/proc/cmdline",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
];

/// Whose journals are packed, knode's own first.
const UNITS: [&str; 9] = [
    "knode",
    "knode-bootstrap",
    "kubelet",
    "containerd",
    "kube-proxy",
    "kube-apiserver",
    "etcd",
    "kube-controller-manager",
    "kube-scheduler",
];

/// A file's name in the archive, and the program whose words it holds.
const PROGRAMS: [(&str, &[&str]); 11] = [
    (
        "units.txt",
        &[
            "systemctl",
            "list-units",
            "--no-pager",
            "--all",
            "kube*",
            "etcd*",
            "containerd*",
            "knode*",
            "docker*",
        ],
    ),
    ("failed.txt", &["systemctl", "--no-pager", "--failed"]),
    ("jobs.txt", &["systemctl", "--no-pager", "list-jobs"]),
    (
        "programs.txt",
        &["ls", "-l", paths::KUBERNETES_BIN, paths::CNI_BIN],
    ),
    ("disks.txt", &["df", "--human-readable", "--print-type"]),
    (
        "network/addresses.txt",
        &["ip", "-details", "address", "show"],
    ),
    (
        "network/routes.txt",
        &["ip", "route", "show", "table", "all"],
    ),
    ("network/neighbours.txt", &["ip", "neighbour", "show"]),
    ("network/tables.txt", &["nft", "list", "tables"]),
    (
        "network/knode.txt",
        &["nft", "list", "table", "inet", "knode"],
    ),
    (
        "kernel.txt",
        &["journalctl", "--no-pager", "--dmesg", "--lines=1000"],
    ),
];

/// Packs the report; `checks` is what `knode check` found, in words. Waits for
/// the disk and for programs.
///
/// # Errors
///
/// [`Code::Disk`]: it could not be packed. What is not there or cannot be
/// asked is no error: it says so in its place.
pub fn pack(root: &Root, checks: &str) -> Result<Vec<u8>> {
    let mut bundle = Bundle::new();
    let version = concat!("knode ", env!("CARGO_PKG_VERSION"), "\n");
    bundle.add("version.txt", version)?;
    bundle.add("checks.txt", checks)?;
    for path in FILES {
        if let Some(text) = file(root, Path::new(path)) {
            bundle.add(&format!("files{path}"), &text)?;
        }
    }
    for (name, command) in PROGRAMS {
        bundle.add(name, &program::output(command, LIMIT, ONE))?;
    }
    for unit in UNITS {
        let unit_argument = format!("--unit={unit}.service");
        let command = [
            "journalctl",
            "--no-pager",
            "--output=short-precise",
            "--lines=4000",
            &unit_argument,
        ];
        let said = program::output(&command, LIMIT, ONE);
        bundle.add(&format!("journal/{unit}.txt"), &said)?;
    }
    // The latest first, in case there is no room for all.
    let folders = root.list(evidence::DIRECTORY).unwrap_or_default();
    for folder in folders.into_iter().rev() {
        let folder = Path::new(evidence::DIRECTORY).join(folder.name);
        for entry in root.list(&folder).unwrap_or_default() {
            let path = folder.join(entry.name);
            if let Some(text) = file(root, &path) {
                bundle.add(&format!("files{}", path.display()), &text)?;
            }
        }
    }
    bundle.finish()
}

/// The end of a file; none where it is not there.
fn file(root: &Root, path: &Path) -> Option<String> {
    let mut file = root.open(path).ok()?;
    // Files of /proc have no length, and no end to begin from.
    let said = match path.starts_with("/proc") {
        true => root.read_to_string(path).ok()?,
        false => program::tail(&mut file, ONE).ok()?,
    };
    Some(said)
}

/// An archive that does not grow beyond its limit.
struct Bundle {
    archive: tar::Builder<Vec<u8>>,
    room: usize,
    left_out: Vec<String>,
    now: u64,
}

impl Bundle {
    fn new() -> Self {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        Self {
            archive: tar::Builder::new(Vec::new()),
            room: ALL,
            left_out: Vec::new(),
            now: now.try_into().unwrap_or_default(),
        }
    }

    /// Adds a text, scrubbed; for one that has no room, its name is told.
    fn add(&mut self, name: &str, text: &str) -> Result<()> {
        let text = scrub(text);
        // A header and the last block's padding; packed it is not larger,
        // whatever it is.
        let size = text.len() + 1024;
        if size > self.room {
            self.left_out.push(name.to_owned());
            return Ok(());
        }
        self.room -= size;
        self.append(name, text.as_bytes())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        let path = PathBuf::from(FOLDER).join(name.trim_start_matches('/'));
        self.archive
            .append_data(&mut header, path, bytes)
            .context(Code::Disk, || format!("packing {name}"))
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        if !self.left_out.is_empty() {
            let names = self.left_out.join("\n") + "\n";
            self.append("left-out.txt", names.as_bytes())?;
        }
        let doing = || "packing the report".to_owned();
        let archive = self.archive.into_inner().context(Code::Disk, doing)?;
        let bytes = gzip::pack(&archive);
        if bytes.len() > 8 * 1024 * 1024 {
            return Err(Error::new(Code::Disk, "the report is larger than 8 MiB"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Read as _;

    fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(path, text);
        }
        files
    }

    /// Keys, tokens, kubeconfigs and the proxy's password are all over the
    /// machine, and nowhere in the report.
    #[test]
    fn no_secret_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let put = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let key =
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEverysecret\n-----END RSA PRIVATE KEY-----\n";
        put(paths::CA_KEY, key);
        put(
            paths::BOOTSTRAP_KUBECONFIG,
            "token: abcdef.0123456789abcdef\n",
        );
        put(
            paths::PROXY_ENVIRONMENT,
            "HTTPS_PROXY=http://u:pa55word@proxy:1\n",
        );
        put(
            paths::NODE_CONFIG,
            "urls: [\"https://u:pa55word@mirror/x\"]\n",
        );
        put(paths::STATUS, &format!("{{\"ready\": false}}\n{key}"));
        let evidence = format!("{}/20261120T100000Z-kubelet", evidence::DIRECTORY);
        put(
            &format!("{evidence}/journal.txt"),
            "goroutine 1\nBearer abc.def\n",
        );

        let files = unpacked(&pack(&root, "all is well\n").unwrap());
        let all: String = files.values().cloned().collect();
        for secret in ["verysecret", "0123456789abcdef", "pa55word", "abc.def"] {
            assert!(!all.contains(secret), "{secret}");
        }
        let of = |name: &str| files.get(&format!("knode-report/{name}")).unwrap();
        assert_eq!(of("checks.txt"), "all is well\n");
        assert!(of("files/run/knode/status.json").contains("\"ready\": false"));
        assert!(of("files/etc/knode/node.yaml").contains("@mirror"));
        assert!(of(&format!("files{evidence}/journal.txt")).contains("goroutine 1"));
        assert!(
            files
                .keys()
                .all(|name| !name.contains("pki") && !name.contains("proxy.env"))
        );
    }

    #[test]
    fn it_is_never_larger_than_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        // Text that can hardly be compressed.
        let noise: String = (0..900_000).map(|_| fastrand::alphanumeric()).collect();
        for number in 0..12 {
            let place = format!("{}/2026112{number:02}", evidence::DIRECTORY);
            fs::create_dir_all(root.path(&place)).unwrap();
            fs::write(root.path(format!("{place}/journal.txt")), &noise).unwrap();
        }
        let bytes = pack(&root, "").unwrap();
        assert!(bytes.len() <= 8 * 1024 * 1024, "{}", bytes.len());
        let files = unpacked(&bytes);
        assert!(files["knode-report/left-out.txt"].contains("journal.txt"));
        let latest = format!("{}/202611211/journal.txt", evidence::DIRECTORY);
        assert!(files.contains_key(&format!("knode-report/files{latest}")));
    }
}
