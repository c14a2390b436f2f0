//! Follows node.yaml: what is new, valid and whole is handed on, what is not
//! is told while the one before it goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::Instant;

use crate::document;
use crate::error::{Code, Error, Result};
use crate::retry::Backoff;
use crate::run::read_configuration;
use crate::status::Status;
use crate::sys::folder;
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::NodeConfig;
use units::paths;
use units::types::NodeName;

/// Files of a document come one after the other: how long it is quiet before
/// node.yaml is looked at.
const QUIET: Duration = Duration::from_millis(300);
/// How long a document may be on its way before what is missing is told.
const DELIVERY: Duration = Duration::from_secs(10);
/// The first and the longest pause between two looks at what is no use yet.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What one look found.
enum Look {
    /// What is applied, in other words or none.
    Same,
    /// Something else, valid and whole.
    New(Box<(NodeName, NodeConfig)>),
    /// No use.
    Bad(Error),
}

/// Follows node.yaml.
#[derive(Debug)]
pub struct Follower {
    root: Root,
    /// `systemctl reload knode`: SIGHUP.
    asked: Signal,
    ears: Option<folder::Watch>,
    /// The digest of the last node.yaml that was taken, or says the same.
    seen: String,
    taken: Option<(NodeName, NodeConfig)>,
    /// Since when it is of no use, and whether and how that was told.
    bad: Option<(Instant, Option<String>)>,
    backoff: Backoff,
}

impl Follower {
    /// Follows the node.yaml below `root`; `asked` is to make it look.
    pub fn new(root: Root, asked: Signal) -> Self {
        let mut follower = Self {
            root,
            asked,
            ears: None,
            seen: String::new(),
            taken: None,
            bad: None,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
        };
        follower.listen();
        follower
    }

    /// The next node.yaml that differs from the last one, is valid, and whose
    /// files are all there; at the start, the first valid one, since what is
    /// wrong with its files is told by the step `identity`. A bad one is told.
    /// Nothing is lost when it is dropped and called again.
    pub async fn next(&mut self, status: &Status) -> (NodeName, NodeConfig) {
        loop {
            match self.look() {
                Ok(Look::New(found)) => {
                    self.good(status);
                    self.taken = Some((*found).clone());
                    return *found;
                }
                Ok(Look::Same) => self.good(status),
                Ok(Look::Bad(error)) | Err(error) => self.tell(status, &error),
            }
            self.wait().await;
        }
    }

    /// The SHA-256 of the node.yaml that was taken, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.seen
    }

    /// Looks at node.yaml.
    fn look(&mut self) -> Result<Look> {
        let text = self.root.read_if_exists(paths::NODE_CONFIG)?;
        let digest = sha256(&text.unwrap_or_default()).hex();
        if self.taken.is_some() && digest == self.seen {
            return Ok(Look::Same);
        }
        let found = match read_configuration(&self.root) {
            Ok(found) => found,
            Err(error) => return Ok(Look::Bad(error)),
        };
        match &self.taken {
            // Another comment or order: nothing to do.
            Some(taken) if *taken == found => {
                self.seen = digest;
                return Ok(Look::Same);
            }
            Some(_) => {
                if let Err(error) = document::whole(&self.root, &found.1.manifest) {
                    return Ok(Look::Bad(error));
                }
            }
            None => {}
        }
        self.seen = digest;
        Ok(Look::New(Box::new(found)))
    }

    /// What was wrong is over.
    fn good(&mut self, status: &Status) {
        self.backoff.reset();
        if self.bad.take().is_some_and(|(_, told)| told.is_some()) {
            tracing::info!("{} is good again", paths::NODE_CONFIG);
        }
        status.recovered_outside();
    }

    /// Tells what is wrong, once; of a document on its way nothing is told.
    fn tell(&mut self, status: &Status, error: &Error) {
        let (since, told) = self.bad.get_or_insert((Instant::now(), None));
        let on_its_way = error.code() == Code::ConfigAltered && since.elapsed() < DELIVERY;
        let story = match self.taken {
            Some(_) => format!("{}; the one before it goes on", error.story()),
            None => error.story(),
        };
        if on_its_way || told.as_ref() == Some(&story) {
            return;
        }
        status.failed_outside(&Error::new(error.code(), &*story));
        *told = Some(story);
    }

    /// Until there is a reason to look.
    async fn wait(&mut self) {
        if self.ears.is_none() {
            self.listen();
        }
        // What is no use may become some by files of other folders; and where
        // nothing can be heard, it is looked at.
        let pause = match self.bad.is_some() || self.ears.is_none() {
            true => Some(self.backoff.pause()),
            false => None,
        };
        let again = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let heard = async {
            match &self.ears {
                Some(ears) => ears.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = heard => {
                if !heard {
                    self.ears = None;
                }
                tokio::time::sleep(QUIET).await;
            }
            asked = self.asked.recv() => match asked {
                Some(()) => tracing::info!("asked to look at {}", paths::NODE_CONFIG),
                None => std::future::pending().await,
            },
            () = again => {}
        }
    }

    fn listen(&mut self) {
        let folder = Path::new(paths::NODE_CONFIG).parent();
        let folder: PathBuf = self.root.path(folder.unwrap_or(Path::new("/")));
        match folder::watch(&folder) {
            Ok(ears) => self.ears = Some(ears),
            Err(error) => tracing::debug!("listening to {}: {error}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::signal::unix::{SignalKind, signal};
    use units::node_config::ManifestEntry;
    use units::types::FileMode;

    const LIMIT: Duration = Duration::from_secs(30);

    struct World {
        _folder: tempfile::TempDir,
        root: Root,
        status: Status,
        follower: Follower,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = Root::new(folder.path());
            root.create_dir("/etc/knode", 0o755).unwrap();
            root.create_dir(paths::RUN_DIR, 0o755).unwrap();
            let asked = signal(SignalKind::user_defined1()).unwrap();
            Self {
                _folder: folder,
                status: Status::new(root.clone(), []),
                follower: Follower::new(root.clone(), asked),
                root,
            }
        }

        fn write(&self, text: &str) {
            let text = text.as_bytes();
            self.root
                .write_atomic(paths::NODE_CONFIG, text, 0o600)
                .unwrap();
        }

        async fn next(&mut self) -> NodeConfig {
            let next = self.follower.next(&self.status);
            let next = tokio::time::timeout(LIMIT, next);
            next.await.expect("a node.yaml is taken").1
        }

        /// Follows until `code` is told; that is no node.yaml to be taken.
        async fn told(&mut self, code: Option<Code>) {
            let status = self.status.clone();
            let told = async {
                let code = code.map(|code| code.to_string());
                while status.read(|r| r.failure.as_ref().map(|f| f.code.clone())) != code {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                () = told => {}
                _ = self.follower.next(&self.status) => panic!("taken"),
                () = tokio::time::sleep(LIMIT) => panic!("not told: {code:?}"),
            }
        }
    }

    fn sample() -> NodeConfig {
        let text = include_str!("../../../units/testdata/node-v1.yaml");
        let mut config: NodeConfig = serde_yaml::from_str(text).unwrap();
        config.manifest.clear();
        config
    }

    fn text(config: &NodeConfig) -> String {
        serde_yaml::to_string(config).unwrap()
    }

    #[tokio::test]
    async fn the_first_is_waited_for_and_only_another_is_new() {
        let mut world = World::new();
        world.told(Some(Code::ConfigRead)).await;
        let mut config = sample();
        world.write(&text(&config));
        assert_eq!(world.next().await, config);
        assert!(world.status.read(|report| report.failure.is_none()));
        let digest = world.follower.digest().to_owned();

        world.write(&format!("# A comment.\n{}", text(&config)));
        let pause = Duration::from_secs(1);
        let next = tokio::time::timeout(pause, world.follower.next(&world.status));
        assert!(next.await.is_err(), "it says the same");
        assert_ne!(world.follower.digest(), digest);

        config.node.labels.clear();
        world.write(&text(&config));
        assert_eq!(world.next().await, config);
    }

    #[tokio::test]
    async fn a_bad_one_is_told_until_it_is_mended_or_taken_back() {
        let mut world = World::new();
        let mut config = sample();
        world.write(&text(&config));
        world.next().await;
        world.write("version: 1\nsurprise: 1\n");
        world.told(Some(Code::ConfigInvalid)).await;
        let told = |r: &crate::status::Report| r.failure.clone().unwrap().message;
        let message = world.status.read(told);
        assert!(message.ends_with("the one before it goes on"), "{message}");
        world.root.remove(paths::NODE_CONFIG).unwrap();
        world.told(Some(Code::ConfigRead)).await;
        world.write(&text(&config));
        world.told(None).await;
        config.node.labels.clear();
        world.write(&text(&config));
        assert_eq!(world.next().await, config);
    }

    /// F30: what is cut, or on its way, is not applied in part.
    #[tokio::test]
    async fn a_document_counts_when_all_of_it_is_there() {
        let mut world = World::new();
        let mut config = sample();
        world.write(&text(&config));
        world.next().await;
        config.manifest.push(ManifestEntry {
            path: "/etc/kubernetes/kubelet.yaml".to_owned(),
            mode: FileMode::PUBLIC,
            digest: sha256(b"new"),
        });
        world.write(&text(&config));
        world.told(Some(Code::ConfigAltered)).await;
        world.root.create_dir(paths::KUBERNETES, 0o755).unwrap();
        // In another folder, of which nothing is heard.
        world
            .root
            .write_atomic(paths::KUBELET_CONFIG, b"new", 0o644)
            .unwrap();
        assert_eq!(world.next().await, config);
        assert!(world.status.read(|report| report.failure.is_none()));
    }
}
