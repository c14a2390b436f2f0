use super::*;
use crate::changes::good;
use tokio::signal::unix::{SignalKind, signal};
use units::node_config::{ManifestEntry, Service};
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
    let text = include_str!("../../../../units/testdata/node-v1.yaml");
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

/// B12: the one before it comes back, and stays when a boot brings the
/// refused one again.
#[tokio::test]
async fn a_refused_one_gives_way_until_there_is_another() {
    let mut world = World::new();
    let good = sample();
    world.write(&text(&good));
    assert_eq!(world.next().await, good);
    good::keep(&world.root, &good).unwrap();
    let mut bad = good.clone();
    bad.node.labels.clear();
    world.write(&text(&bad));
    assert_eq!(world.next().await, bad);
    let known = good::read(&world.root).unwrap().unwrap();
    let refused = (world.follower.digest(), &bad);
    refusal::refuse(&world.root, Service::Kubelet, &known, refused).unwrap();
    world.follower.refused().notify_one();
    assert_eq!(world.next().await, good);
    world.told(Some(Code::RolledBack)).await;
    world.write(&text(&bad));
    let there = || world.root.read_to_string(paths::NODE_CONFIG).unwrap();
    let back = async {
        while there() != text(&good) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = back => {}
        _ = world.follower.next(&world.status) => panic!("taken"),
        () = tokio::time::sleep(LIMIT) => panic!("it stays"),
    }
    // One that is of no use does not make it welcome again.
    world.write("version: 1");
    world.told(Some(Code::ConfigInvalid)).await;
    world.write(&text(&bad));
    world.told(Some(Code::RolledBack)).await;
    bad.node.taints.clear();
    bad.host_aliases.clear();
    world.write(&text(&bad));
    assert_eq!(world.next().await, bad);
    world.told(None).await;
}
