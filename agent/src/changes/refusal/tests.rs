use super::*;
use units::types::FileMode;

const PROXY: &str = "/etc/kubernetes/kube-proxy.yaml";
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/20-mine.conf";
const HOSTS: &str = "/etc/containerd/certs.d/mine/hosts.toml";
const KEY: &str = "/etc/kubernetes/pki/kubelet.key";

fn write(root: &Root, path: &str, text: &str, mode: u32) {
    let folder = Path::new(path).parent().unwrap();
    root.create_dir(folder, 0o755).unwrap();
    root.write_atomic(path, text.as_bytes(), mode).unwrap();
}

/// Delivers a document of these files; says what its node.yaml is.
fn deliver(root: &Root, files: &[(&str, &str, &str)]) -> NodeConfig {
    let sample = include_str!("../../../../units/testdata/node-v1.yaml");
    let mut config: NodeConfig = serde_yaml::from_str(sample).unwrap();
    config.manifest.clear();
    for (path, mode, text) in files {
        let mode: FileMode = mode.parse().unwrap();
        write(root, path, text, mode.bits());
        config.manifest.push(ManifestEntry {
            path: (*path).to_owned(),
            mode,
            digest: sha256(text.as_bytes()),
        });
    }
    let text = serde_yaml::to_string(&config).unwrap();
    write(root, paths::NODE_CONFIG, &text, 0o600);
    config
}

struct World {
    _folder: tempfile::TempDir,
    root: Root,
    good: NodeConfig,
}

const OLD: [(&str, &str, &str); 4] = [
    (paths::KUBELET_CONFIG, "0644", "old"),
    (PROXY, "0640", "the same"),
    (HOSTS, "0600", "of the old one alone"),
    (KEY, "0600", "key"),
];
const NEW: [(&str, &str, &str); 4] = [
    (paths::KUBELET_CONFIG, "0600", "new"),
    (PROXY, "0640", "the same"),
    (DROP_IN, "0644", "of the new one alone"),
    (KEY, "0600", "key"),
];

/// A machine that was healthy with the old document and has the new one.
fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new(folder.path());
    let good = deliver(&root, &OLD);
    assert!(good::keep(&root, &good).unwrap());
    World {
        _folder: folder,
        root,
        good,
    }
}

impl World {
    fn text(&self, path: &str) -> Option<String> {
        let bytes = self.root.read_if_exists(path).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    fn digest(&self) -> String {
        sha256(self.text(paths::NODE_CONFIG).unwrap().as_bytes()).hex()
    }

    fn look(&self) -> Stand {
        look(&self.root, &self.digest()).unwrap()
    }

    /// The new document comes, as removals leave it, and is refused.
    fn refused(&self) -> String {
        let bad = deliver(&self.root, &NEW);
        self.root.remove(HOSTS).unwrap();
        let digest = self.digest();
        let known = good::read(&self.root).unwrap().unwrap();
        let bad = (digest.as_str(), &bad);
        refuse(&self.root, Service::Kubelet, &known, bad).unwrap();
        digest
    }

    fn is_old(&self) -> bool {
        let mode = |path| self.root.stat(path).unwrap().map(|stat| stat.mode);
        document::whole(&self.root, &self.good.manifest).is_ok()
            && self.text(DROP_IN).is_none()
            && mode(paths::NODE_CONFIG) == Some(0o600)
            && self.digest() == good::read(&self.root).unwrap().unwrap().digest
    }
}

fn is_held(stand: &Stand, changed: bool) -> bool {
    matches!(stand, Stand::Holds(_, again) if *again == changed)
}

#[test]
fn what_is_kept_holds_no_keys_and_is_root_s_alone() {
    let World { root, good, .. } = &world();
    let folder = "/var/lib/knode/good";
    assert_eq!(root.stat(folder).unwrap().unwrap().mode, 0o700);
    let known = good::read(root).unwrap().unwrap();
    assert_eq!(known.config, *good);
    let place = format!("{folder}/{}", known.digest);
    assert_eq!(root.stat(&place).unwrap().unwrap().mode, 0o700);
    let files = root.list(&place).unwrap();
    assert_eq!(files.len(), 4, "node.yaml, and all but the key: {files:?}");
    for file in files {
        let path = Path::new(&place).join(file.name);
        assert_eq!(root.stat(&path).unwrap().unwrap().mode, 0o600);
        assert_ne!(root.read(&path).unwrap(), b"key");
    }
    assert!(!good::keep(root, good).unwrap(), "it is kept already");
    // The next good one takes its place.
    let next = deliver(root, &NEW);
    assert!(
        !good::keep(root, good).unwrap(),
        "that is not there any more"
    );
    assert!(good::keep(root, &next).unwrap());
    assert_eq!(good::read(root).unwrap().unwrap().config, next);
    assert_eq!(root.list(folder).unwrap().len(), 2, "that one and a link");
}

#[test]
fn with_what_each_service_was_healthy_is_kept() {
    let World { root, .. } = &world();
    assert!(good::proven(root).unwrap().is_empty());
    good::prove(root, Service::Kubelet, "ab").unwrap();
    good::prove(root, Service::KubeProxy, "cd").unwrap();
    good::prove(root, Service::Kubelet, "ef").unwrap();
    let known = good::proven(root).unwrap();
    assert_eq!(known[&Service::Kubelet], "ef");
    assert_eq!(known[&Service::KubeProxy], "cd");
}

#[test]
fn a_document_that_is_not_whole_is_not_kept() {
    let World { root, good, .. } = &world();
    let next = deliver(root, &NEW);
    write(root, paths::KUBELET_CONFIG, "an operator's", 0o600);
    let error = good::keep(root, &next).unwrap_err();
    assert_eq!(error.code(), Code::ConfigAltered);
    // Killed in the middle of the next copy.
    let half = "/var/lib/knode/good/half";
    write(root, &format!("{half}/node.yaml"), "version: 1", 0o600);
    assert_eq!(good::read(root).unwrap().unwrap().config, *good);
    write(root, paths::KUBELET_CONFIG, "new", 0o600);
    assert!(good::keep(root, &next).unwrap());
    assert!(!root.exists(half).unwrap());
}

#[test]
fn the_good_one_comes_back_whole_with_its_modes() {
    let world = world();
    assert_eq!(world.look(), Stand::Free);
    let digest = world.refused();
    // Renewed, and so neither as the document has it nor put back.
    write(&world.root, KEY, "renewed", 0o600);
    let stand = world.look();
    assert!(is_held(&stand, true));
    assert_eq!(world.text(KEY).unwrap(), "renewed");
    write(&world.root, KEY, "key", 0o600);
    assert!(world.is_old());
    let Stand::Holds(refusal, _) = stand else {
        panic!("{stand:?}");
    };
    let told = refusal.told();
    assert_eq!(told.code(), Code::RolledBack);
    assert!(told.story().contains(&digest[..12]), "{}", told.story());
    assert!(is_held(&world.look(), false), "there is nothing more to do");
    let applied = applied::read(&world.root).unwrap();
    assert!(applied.files.contains_key(DROP_IN), "systemd is to be told");
}

/// Wherever it was killed: node.yaml is the last.
#[test]
fn a_way_back_that_was_cut_goes_on() {
    let world = world();
    world.refused();
    write(&world.root, paths::KUBELET_CONFIG, "old", 0o644);
    assert!(!world.is_old());
    assert!(is_held(&world.look(), true));
    assert!(world.is_old());
    // Between node.yaml and the note of when that was written.
    let mut refusal = read(&world.root).unwrap().unwrap();
    refusal.written = None;
    keep(&world.root, &refusal).unwrap();
    assert!(is_held(&world.look(), false));
    assert!(read(&world.root).unwrap().unwrap().written.is_some());
}

/// coreos-cloudinit writes the user-data anew, file by file in any order.
#[test]
fn a_boot_that_brings_it_again_does_not_bring_it_back() {
    let world = world();
    world.refused();
    world.look();
    let inputs = [(paths::KUBELET_CONFIG.to_owned(), sha256(b"old").hex())];
    applied::change(&world.root, |applied| {
        applied.services.insert(Service::Kubelet, inputs.into());
    })
    .unwrap();
    deliver(&world.root, &NEW);
    assert!(is_held(&world.look(), true));
    assert!(world.is_old());
    // What may have been read in between is read anew.
    let applied = applied::read(&world.root).unwrap();
    let read = &applied.services[&Service::Kubelet][paths::KUBELET_CONFIG];
    assert_eq!(*read, sha256(b"new").hex());
    // One that comes after node.yaml.
    write(&world.root, paths::KUBELET_CONFIG, "new", 0o600);
    write(&world.root, DROP_IN, "of the new one alone", 0o644);
    assert!(is_held(&world.look(), true));
    assert!(world.is_old());
    // An operator's hand is not the boot's.
    write(&world.root, paths::KUBELET_CONFIG, "an operator's", 0o644);
    assert!(is_held(&world.look(), false));
    assert_eq!(world.text(paths::KUBELET_CONFIG).unwrap(), "an operator's");
}

#[test]
fn another_document_or_the_good_one_ends_it() {
    let world = world();
    world.refused();
    world.look();
    let mut files = NEW;
    files[0].2 = "mended";
    deliver(&world.root, &files);
    assert_eq!(world.look(), Stand::Other);
    assert_eq!(world.text(paths::KUBELET_CONFIG).unwrap(), "mended");
    forget(&world.root).unwrap();
    assert_eq!(world.look(), Stand::Free);

    world.refused();
    world.look();
    // Somebody delivers what is there already.
    let text = world.text(paths::NODE_CONFIG).unwrap();
    world.root.remove(paths::NODE_CONFIG).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    write(&world.root, paths::NODE_CONFIG, &text, 0o600);
    assert_eq!(world.look(), Stand::Free);
    assert!(read(&world.root).unwrap().is_none());
}

#[test]
fn without_a_good_document_nothing_is_refused() {
    let world = world();
    let known = good::read(&world.root).unwrap().unwrap();
    let copy = sha256(b"old").hex();
    let copy = format!("/var/lib/knode/good/{}/{copy}", known.digest);
    let bad = deliver(&world.root, &NEW);
    write(&world.root, &copy, "damaged", 0o600);
    let digest = world.digest();
    let error = refuse(&world.root, Service::Kubelet, &known, (&digest, &bad)).unwrap_err();
    assert_eq!(error.code(), Code::ConfigAltered);
    assert_eq!(world.look(), Stand::Free);
    write(&world.root, &copy, "old", 0o600);

    world.refused();
    world.root.remove_tree("/var/lib/knode/good").unwrap();
    assert_eq!(world.look(), Stand::Free);
    assert_eq!(world.text(paths::KUBELET_CONFIG).unwrap(), "new");
}
