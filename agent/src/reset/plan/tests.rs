use super::*;
use units::node_config::Peer;

fn sample() -> NodeConfig {
    serde_yaml::from_str(include_str!("../../../../units/testdata/node-v1.yaml")).unwrap()
}

fn running(units: &[&str]) -> BTreeMap<String, Unit> {
    let state = Unit {
        active: true,
        enabled: false,
    };
    units
        .iter()
        .map(|unit| ((*unit).to_owned(), state))
        .collect()
}

fn words(actions: &[Action]) -> Vec<String> {
    let told = actions.iter();
    told.map(|action| format!("{} {}", action.word(), action.subject()))
        .collect()
}

#[test]
fn a_machine_of_which_nothing_is_left_has_nothing_to_do() {
    assert_eq!(plan(&Facts::default(), Wishes::default()), []);
    assert!(remarks(&Facts::default()).is_empty());
}

#[test]
fn who_needs_whom_goes_before_it_and_what_says_so_last() {
    let config = sample();
    let document = [
        "/etc/systemd/system/kubelet.service",
        "/etc/systemd/system/kube-proxy.service",
        "/etc/systemd/system/etcd.service",
        "/etc/systemd/system/mine.timer",
    ];
    let applied = Applied {
        files: document
            .map(|path| (path.to_owned(), "ab".to_owned()))
            .into(),
        ..Applied::default()
    };
    let owned = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let mut facts = Facts {
        units: running(&[
            "knode.service",
            "kubernetes-node.target",
            "kubelet.service",
            "kube-proxy.service",
            "containerd.service",
            "etcd.service",
            "mine.timer",
        ]),
        ring: Ring::Member,
        etcd_data: Some("/var/lib/etcd".to_owned()),
        pods: owned(&["default/web"]),
        mounts: owned(&["/var/lib/kubelet/pods/a/b"]),
        network: owned(&["cbr0"]),
        rules: true,
        hosts: true,
        files: vec![(
            "/etc/systemd/system/kubelet.service".to_owned(),
            "ab".to_owned(),
        )],
        links: owned(&["/opt/kubernetes/bin/kubelet"]),
        folders: owned(&["/var/lib/kubelet", "/var/lib/knode"]),
        config: Some(config),
        applied,
        ..Facts::default()
    };
    let actions = plan(&facts, Wishes::default());
    assert_eq!(
        words(&actions),
        [
            "stop knode.service",
            "stop kubelet.service",
            "leave etcd's ring",
            "end 1 pods: default/web",
            "stop kube-proxy.service",
            "clean kube-proxy's rules",
            "stop etcd.service",
            "stop mine.timer",
            "stop kubernetes-node.target",
            "clean cbr0",
            "clean iptables",
            "unmount /var/lib/kubelet/pods/a/b",
            "clean /etc/hosts",
            "remove /etc/systemd/system/kubelet.service",
            "reload systemd",
            // The distribution's own, which the document only configures.
            "restart containerd.service",
            "keep /var/lib/etcd beside itself",
            "remove /opt/kubernetes/bin/kubelet",
            "remove /var/lib/kubelet",
            "remove /var/lib/knode",
        ]
    );
    let last = actions.iter().position(Action::is_last);
    assert_eq!(last, Some(actions.len() - 1));
    let told = remarks(&facts).join("\n");
    assert!(told.contains("kubectl delete node node-1") && told.contains("kubectl drain"));
    facts.ring = Ring::Alone;
    let wishes = Wishes {
        etcd_data: true,
        abandon: false,
    };
    let told = words(&plan(&facts, wishes));
    assert!(!told.contains(&"leave etcd's ring".to_owned()));
    assert!(told.contains(&"remove /var/lib/etcd".to_owned()));
    assert!(remarks(&facts).join("\n").contains("the only member"));
}

/// A kubelet that could remove its Node could come back without its taints.
#[test]
fn only_a_master_beside_others_removes_its_node() {
    let mut config = sample();
    assert_eq!(own_node(&config), None);
    config.node.role = Role::Master;
    let network = config.network.as_mut().unwrap();
    network.peers.clear();
    assert_eq!(own_node(&config), None, "nobody is left to be told");
    let network = config.network.as_mut().unwrap();
    network.peers.push(Peer {
        name: "other".parse().unwrap(),
        role: Role::Master,
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
    });
    assert_eq!(own_node(&config), config.node.name);
}

#[test]
fn what_is_in_folders_of_our_own_goes_with_them() {
    let applied = Applied {
        files: [
            "/etc/knode/bootstrap.sh",
            "/etc/kubernetes/kubelet.yaml",
            "/etc/motd",
        ]
        .map(|path| (path.to_owned(), "ab".to_owned()))
        .into(),
        ..Applied::default()
    };
    let files = files(None, &applied);
    let names: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        names,
        [
            "/etc/kubernetes/kubelet.yaml",
            "/etc/motd",
            paths::CONTAINERD_CONFIG
        ]
    );
    assert!(!folders(false).contains(&"/var/lib/containerd"));
    assert!(folders(true).contains(&"/var/lib/containerd"));
}
