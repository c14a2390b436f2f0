//! What etcd.yaml says of this machine's member, and the same file for one that
//! joins a ring that is there.
//! Source: etcd's etcd.conf.yml.sample.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Code, Context, Error, Result};
use crate::sys::etcd::Member;
use crate::sys::root::Root;
use units::paths;

/// Keys that a member reads once, before it has data.
const FIRST_ONLY: [&str; 3] = [
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
];

/// What the document says of this machine's member.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Where others reach it.
    pub peer_url: String,
    /// Its data.
    pub data: PathBuf,
    /// Its write-ahead log: with it, it has been a member.
    pub wal: PathBuf,
    /// All members of the document: name and URL for members.
    pub members: Vec<(String, String)>,
    /// The ring is there already, the document says; a new one is not begun.
    pub existing: bool,
    /// The ring's name.
    pub token: String,
    /// Bytes that the database may have; 0: etcd's default.
    pub quota: u64,
    all: Value,
}

impl Config {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`Code::ConfigInvalid`]: it says not what is needed; [`Code::Disk`].
    pub fn read(root: &Root) -> Result<Self> {
        Self::parse(&root.read_to_string(paths::ETCD_CONFIG)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let doing = || format!("reading {}", paths::ETCD_CONFIG);
        let all: Value = serde_yaml::from_str(text).context(Code::ConfigInvalid, doing)?;
        let word = |key: &str| all[key].as_str().map(str::to_owned);
        let need = |key: &str| {
            let missing = || Error::new(Code::ConfigInvalid, doing()).because(format!("no {key}"));
            word(key).ok_or_else(missing)
        };
        // One of several would do; etcd lists the first one by itself.
        let first = |urls: String| urls.split(',').next().unwrap_or_default().to_owned();
        let data = PathBuf::from(word("data-dir").unwrap_or_else(|| paths::ETCD_DATA.to_owned()));
        let wal = word("wal-dir").filter(|path| !path.is_empty());
        let members = need("initial-cluster")?;
        let members = members.split(',').filter_map(|one| {
            let (name, url) = one.split_once('=')?;
            Some((name.trim().to_owned(), url.trim().to_owned()))
        });
        Ok(Self {
            name: need("name")?,
            peer_url: first(need("initial-advertise-peer-urls")?),
            wal: wal.map_or_else(|| data.join("member/wal"), PathBuf::from),
            data,
            members: members.collect(),
            existing: all["initial-cluster-state"] == "existing",
            token: word("initial-cluster-token").unwrap_or_else(|| "etcd-cluster".to_owned()),
            quota: all["quota-backend-bytes"].as_u64().unwrap_or_default(),
            all,
        })
    }

    /// The members of the document besides this one.
    pub fn others(&self) -> impl Iterator<Item = &(String, String)> {
        self.members.iter().filter(|(name, _)| *name != self.name)
    }

    /// Whether the unit itself knows where the log is.
    pub fn is_at_its_place(&self) -> bool {
        self.wal == Path::new(paths::ETCD_DATA).join("member/wal")
    }

    /// Whether the member has been one: it has a log.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`].
    pub fn has_data(&self, root: &Root) -> Result<bool> {
        let entries = match root.list(&self.wal) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let is_log = |name: &str| name.ends_with(".wal");
        Ok(entries
            .iter()
            .any(|entry| entry.name.to_str().is_some_and(is_log)))
    }

    /// etcd.yaml for a member that comes into the ring of these members. JSON
    /// is YAML.
    pub fn joining(&self, ring: &[Member]) -> String {
        let mut all = self.all.clone();
        let mut members = Vec::new();
        for member in ring {
            let own = member.peer_urls.contains(&self.peer_url);
            // One that was never started has no name yet; its URL is what counts.
            let name = match (own, member.name.as_str()) {
                (true, _) => self.name.clone(),
                (false, "") => super::hex(member.id),
                (false, name) => name.to_owned(),
            };
            members.extend(member.peer_urls.iter().map(|url| format!("{name}={url}")));
        }
        all["initial-cluster"] = json!(members.join(","));
        all["initial-cluster-state"] = json!("existing");
        format!("{all:#}\n")
    }
}

/// What of etcd.yaml a member with data reads: a ring that grows is no reason
/// to restart those that are in it.
pub fn of_running(text: &str) -> Option<Vec<u8>> {
    let mut all: Value = serde_yaml::from_str(text).ok()?;
    let map = all.as_object_mut()?;
    for key in FIRST_ONLY {
        map.remove(key);
    }
    serde_json::to_vec(&all).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub const SAMPLE: &str = "\
name: etcd-1
data-dir: /var/lib/etcd
initial-advertise-peer-urls: https://10.0.0.11:2380
initial-cluster: etcd-1=https://10.0.0.11:2380,etcd-2=https://10.0.0.12:2380,etcd-3=https://10.0.0.13:2380
initial-cluster-state: new
initial-cluster-token: prod
quota-backend-bytes: 4294967296
";

    pub fn sample() -> Config {
        Config::parse(SAMPLE).unwrap()
    }

    #[test]
    fn the_document_says_who_is_in_the_ring() {
        let config = sample();
        assert_eq!(config.peer_url, "https://10.0.0.11:2380");
        assert!(config.is_at_its_place());
        let elsewhere = format!("{SAMPLE}wal-dir: /srv/wal\n");
        assert!(!Config::parse(&elsewhere).unwrap().is_at_its_place());
        let others: Vec<_> = config.others().map(|(name, _)| name.as_str()).collect();
        assert_eq!(others, ["etcd-2", "etcd-3"]);
        assert!(!config.existing);
        let error = Config::parse("name: a\n").unwrap_err();
        assert_eq!(error.code(), Code::ConfigInvalid);
    }

    #[test]
    fn one_with_a_log_has_been_a_member() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let config = sample();
        assert!(!config.has_data(&root).unwrap());
        // What etcd leaves where it was refused by the others.
        root.create_dir("/var/lib/etcd/member/snap", 0o700).unwrap();
        root.write_atomic("/var/lib/etcd/member/snap/db", b"", 0o600)
            .unwrap();
        root.create_dir("/var/lib/etcd/member/wal", 0o700).unwrap();
        assert!(!config.has_data(&root).unwrap());
        root.write_atomic("/var/lib/etcd/member/wal/0-0.wal", b"x", 0o600)
            .unwrap();
        assert!(config.has_data(&root).unwrap());
    }

    #[test]
    fn who_joins_names_the_ring_as_it_is() {
        let member = |id, name: &str, last| Member {
            id,
            name: name.to_owned(),
            peer_urls: vec![format!("https://10.0.0.{last}:2380")],
            client_urls: Vec::new(),
            learner: false,
        };
        let ring = [
            member(7, "", 11),
            member(8, "etcd-2", 12),
            member(175, "", 13),
        ];
        let text = sample().joining(&ring);
        let config = Config::parse(&text).unwrap();
        let members: Vec<_> = config
            .members
            .iter()
            .map(|(n, u)| format!("{n}={u}"))
            .collect();
        assert_eq!(
            members,
            [
                "etcd-1=https://10.0.0.11:2380",
                "etcd-2=https://10.0.0.12:2380",
                "af=https://10.0.0.13:2380"
            ]
        );
        assert!(config.existing);
        assert_eq!(config.quota, 4_294_967_296);
    }

    #[test]
    fn a_ring_that_grows_changes_nothing_for_who_is_in_it() {
        let grown = SAMPLE
            .replace("10.0.0.13", "10.0.0.14")
            .replace("new", "existing");
        assert_ne!(grown, SAMPLE);
        assert_eq!(of_running(&grown), of_running(SAMPLE));
        let other = SAMPLE.replace("4294967296", "8589934592");
        assert_ne!(of_running(&other), of_running(SAMPLE));
    }
}
