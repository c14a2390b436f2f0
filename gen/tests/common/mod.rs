//! A folder to work in, and the program run in it.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod azure;
pub mod cloud;
pub mod landing;
pub mod linter;
pub mod mirror;
pub mod openssl;
pub mod openstack;
pub mod served;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A cluster with every role, addresses known.
pub const CLUSTER: &str = "\
name: test
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: node-1, role: node, address: 10.0.0.11, labels: {example.com/rack: a1}}
- {name: node-2, role: node, address: 10.0.0.12}
- {name: etcd-1, role: etcd, address: 10.0.0.13}
";

/// A public key of nobody's.
pub const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBZbfAqJaC5IZUUG35d9b9SRRvo82jvYblSpYtQtbVq1 ops@example.com";

/// A certificate of nobody's.
pub const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUFAKNsc+nrhofGpXT/6cNYG29uH0wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbWlycm9yMCAXDTI2MTEyMDE2MDEzOFoYDzIxMjYxMDI3MTYw
MTM4WjARMQ8wDQYDVQQDDAZtaXJyb3IwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATdgwmdalcDqH59gL/9C3vGT8e0a88p1COQ14/NcM0fgnExDxAjKl+dYhxKk8xs
rl3Crg/x5cGtayHcRGPbwswto1MwUTAdBgNVHQ4EFgQUg7wBeTfel3qpb4Lxd05d
uubaaPowHwYDVR0jBBgwFoAUg7wBeTfel3qpb4Lxd05duubaaPowDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAllQKIPMYjSJkyaX2QVnkNgeJLBvyt
St2Wo0OwWyJj8gIgLS9y3si5DPZB++U5kiqfMo3BUN3HIg/Tljw3FsgMi2c=
-----END CERTIFICATE-----
";

/// Writes what the documented settings refer to.
pub fn beside(folder: &Folder) {
    folder.write("proxy-url", "http://kgen:hunter2@proxy.example.com:3128\n");
    folder.write("id_ed25519.pub", PUBLIC_KEY);
    folder.write("mirror-password", "hunter2\n");
    folder.write("mirror-ca.crt", CERTIFICATE);
    folder.write("registry-password", "hunter2\n");
    folder.write("backup.sh", "#!/bin/sh\nexec true\n");
    folder.write("disk.sh", "#!/bin/sh\nmount /dev/vdb /var/lib/etcd\n");
}

/// Runs `kgen render`, which has to refuse and write nothing; what it said.
pub fn refused(settings: &str) -> String {
    let folder = Folder::with(settings);
    beside(&folder);
    refused_in(&folder)
}

/// The same in a folder with what is wrong in it.
pub fn refused_in(folder: &Folder) -> String {
    let before = folder.tree();
    let output = folder
        .kgen()
        .args(["render", "-o", "out"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(folder.tree(), before, "something was written: {told}");
    told
}

/// The same; what it said has to have all parts.
pub fn refused_with(settings: &str, parts: &[&str]) {
    let told = refused(settings);
    // Long lines are broken where they are shown.
    let flat = told.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(flat.contains(part), "{part}\n{settings}\n{told}");
    }
}

/// A lock that names knode: for which processor, and where.
pub fn lock(sha256: &str, sources: &[(&str, &str)]) -> String {
    let mut urls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (arch, url) in sources {
        urls.entry(arch).or_default().push(format!("'{url}'"));
    }
    let mut text = "version: 1\nartifacts:\n".to_owned();
    for (arch, urls) in urls {
        let urls = urls.join(", ");
        text.push_str(&format!(
            "- {{name: knode, version: 0.1.0, arch: {arch}, urls: [{urls}], sha256: {sha256}}}\n"
        ));
    }
    text
}

/// Says by name what was not tested, and why; tests/run counts the lines.
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED {name}: {reason}\n");
    eprint!("{line}");
    if let Some(file) = std::env::var_os("KNODE_TEST_SKIPS").filter(|file| !file.is_empty()) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// A folder that goes when the test is over.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with a lock that names knode.
    pub fn new() -> Self {
        let folder = Self::empty();
        let hash = "0123456789abcdef".repeat(4);
        folder.write(
            "kgen.lock",
            &lock(&hash, &[("amd64", "http://10.0.0.1/knode")]),
        );
        folder
    }

    /// A folder with nothing in it.
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with a lock and a cluster.yaml.
    pub fn with(settings: &str) -> Self {
        let folder = Self::new();
        folder.write("cluster.yaml", settings);
        folder
    }

    /// A path in the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// The program, to be run in the folder.
    pub fn kgen(&self) -> Command {
        let mut command = Command::cargo_bin("kgen").unwrap();
        command.current_dir(self.0.path());
        command
    }

    /// Runs the program, which has to succeed.
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.kgen().args(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kgen {args:?}: {told}");
        output
    }

    /// The user-data that the program prints.
    pub fn user_data(&self, args: &[&str]) -> String {
        String::from_utf8(self.run(args).stdout).unwrap()
    }

    /// Every file beneath the folder: its bytes and its permission bits.
    pub fn tree(&self) -> BTreeMap<String, (Vec<u8>, u32)> {
        let mut tree = BTreeMap::new();
        walk(self.0.path(), self.0.path(), &mut tree);
        tree
    }
}

fn walk(root: &Path, folder: &Path, tree: &mut BTreeMap<String, (Vec<u8>, u32)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() {
            tree.insert(format!("{name}/"), (Vec::new(), mode));
            walk(root, &path, tree);
        } else {
            tree.insert(name, (fs::read(&path).unwrap(), mode));
        }
    }
}

/// A document of either language, as its reader sees it.
#[derive(Debug, Deserialize)]
pub struct Document {
    #[serde(default)]
    pub hostname: String,
    pub write_files: Vec<File>,
    #[serde(default)]
    pub coreos: Coreos,
    #[serde(default)]
    pub ssh_authorized_keys: Vec<String>,
    #[serde(default)]
    pub users: Vec<serde_json::Value>,
    #[serde(default)]
    pub packages: Vec<String>,
    #[serde(default)]
    pub runcmd: Vec<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub struct File {
    pub path: String,
    pub permissions: String,
    pub owner: String,
    pub encoding: Option<String>,
    pub defer: Option<bool>,
    pub content: String,
}

#[derive(Debug, Default, Deserialize)]
pub struct Coreos {
    pub units: Vec<Unit>,
}

#[derive(Debug, Deserialize)]
pub struct Unit {
    pub name: String,
    pub enable: bool,
    pub command: Option<String>,
    pub content: Option<String>,
}

impl Document {
    pub fn parse(text: &str) -> Self {
        assert!(text.starts_with("#cloud-config\n"));
        serde_yaml::from_str(text).unwrap()
    }

    /// What lands on the machine: path → mode and bytes.
    pub fn files(&self) -> BTreeMap<String, (String, Vec<u8>)> {
        let mut files: BTreeMap<_, _> = self
            .write_files
            .iter()
            .map(|f| (f.path.clone(), (f.permissions.clone(), f.bytes())))
            .collect();
        for unit in &self.coreos.units {
            let path = format!("/etc/systemd/system/{}", unit.name);
            let Some(content) = unit.content.clone() else {
                continue;
            };
            let bytes = content.into_bytes();
            assert!(files.insert(path, ("0644".to_owned(), bytes)).is_none());
        }
        files
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> String {
        let files = self.files();
        let (_, bytes) = files
            .get(path)
            .unwrap_or_else(|| panic!("{path} is missing"));
        String::from_utf8(bytes.clone()).unwrap()
    }
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        match self.encoding.as_deref() {
            None => self.content.clone().into_bytes(),
            Some("b64") => STANDARD.decode(&self.content).unwrap(),
            Some("gz+b64") => {
                let packed = STANDARD.decode(&self.content).unwrap();
                let mut bytes = Vec::new();
                flate2::read::GzDecoder::new(&packed[..])
                    .read_to_end(&mut bytes)
                    .unwrap();
                bytes
            }
            Some(other) => panic!("unknown encoding {other}"),
        }
    }
}
