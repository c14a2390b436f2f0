//! Bad input in what is said of pools, roles, several machines and the
//! balancer: told with its place, and nothing written.

mod common;

use common::{Folder, refused};

const MASTER: &str = "nodes: [{name: m, role: master, address: 10.0.0.1}]\n";

fn all_refused(cases: &[(&str, &[&str])]) {
    for (settings, expected) in cases {
        let told = refused(&format!("{settings}{MASTER}"));
        for part in *expected {
            assert!(told.contains(part), "{settings}\nlacks {part:?}:\n{told}");
        }
    }
}

#[test]
fn pools_are_refused_with_their_place() {
    all_refused(&[
        (
            "pools: {}\n",
            &["[cluster.yaml:1:8]", "pools: expected a list"],
        ),
        ("pools: [{}]\n", &["pools[0].name: missing"]),
        (
            "pools: [{name: A_B}]\n",
            &["[cluster.yaml:1:16]", "not a DNS label"],
        ),
        (
            "pools: [{name: p, role: node}]\n",
            &["[cluster.yaml:1:19]", "pools[0].role: unknown key"],
        ),
        (
            "pools: [{name: p, tokenTTl: 1h}]\n",
            &["unknown key", "did you mean \"tokenTTL\"?"],
        ),
        (
            "pools: [{name: p, podCIDR: 10.244.0.0/24}]\n",
            &["pools[0].podCIDR: unknown key"],
        ),
        (
            "pools: [{name: p, arch: mips}]\n",
            &["unknown architecture"],
        ),
        (
            "pools: [{name: p, tokenTTL: 24}]\n",
            &["[cluster.yaml:1:29]", "as in 24h"],
        ),
        (
            "pools: [{name: p, tokenTTL: 5m}]\n",
            &["5m is not from 10m to 365d"],
        ),
        (
            "pools: [{name: p, tokenTTL: 366d}]\n",
            &["366d is not from 10m to 365d"],
        ),
        (
            "pools: [{name: p, tokenTTL: forever}]\n",
            &["is not a time"],
        ),
        (
            "pools: [{name: p, labels: {node-role.kubernetes.io/x: ''}}]\n",
            &["[cluster.yaml:1:28]", "a reserved label"],
        ),
        (
            "pools: [{name: p, taints: [{key: a, effect: No}]}]\n",
            &["unknown effect"],
        ),
        (
            "pools: [{name: p, kubelet: {config: {failSwapOn: no}}}]\n",
            &["pools[0].kubelet.config.failSwapOn", "read in two ways"],
        ),
        (
            "pools: [{name: p, kubelet: {confg: {}}}]\n",
            &["did you mean \"config\"?"],
        ),
        (
            "pools: [{name: p, registration: nobody}]\n",
            &["use agent or kubelet"],
        ),
        (
            "pools: [{name: p}, {name: p}]\n",
            &[
                "[cluster.yaml:1:27]",
                "pools[1].name: p is the name of pools[0].name too",
            ],
        ),
        (
            "pools: [{name: m}]\n",
            &["[cluster.yaml:1:16]", "m is the name of nodes[0].name too"],
        ),
    ]);
}

/// P27: a range that was typed may be another machine's already.
#[test]
fn typed_pod_ranges_do_not_go_with_pools() {
    let told = refused(
        "pools: [{name: p}]\nnodes:\n- {name: m, role: master}\n\
         - {name: n, role: node, podCIDR: 10.244.7.0/24}\n",
    );
    for part in [
        "[cluster.yaml:4:34]",
        "nodes[1].podCIDR: with pools the controller manager gives out all pod ranges",
        "it may have given 10.244.7.0/24 to a machine of a pool before",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn roles_and_machines_are_refused_with_their_place() {
    all_refused(&[
        (
            "roles: {etcd: {labels: {}}}\n",
            &["roles.etcd.labels: unknown key"],
        ),
        (
            "roles: {nodes: {}}\n",
            &["roles.nodes: unknown key", "did you mean \"node\"?"],
        ),
        (
            "roles: {node: {taint: []}}\n",
            &["roles.node.taint: unknown key", "taints"],
        ),
        (
            "roles: {master: {tokenTTL: 1h}}\n",
            &["roles.master.tokenTTL: unknown key"],
        ),
        (
            "roles: {node: {tokenTTL: 1h}}\n",
            &["[cluster.yaml:1:26]", "no machine comes by a token"],
        ),
        (
            "roles: {master: {labels: {a b: c}}}\n",
            &["not a label's name"],
        ),
        (
            "runtime: {config: []}\n",
            &["runtime.config: expected a mapping"],
        ),
        (
            "runtime: {config: {a: 0x10}}\n",
            &["runtime.config.a: 0x10 can be read in two ways"],
        ),
        (
            "controlPlane: docker\n",
            &["[cluster.yaml:1:15]", "under systemd or as static pods"],
        ),
        (
            "images: {registry: 'https://mirror/k8s'}\n",
            &["[cluster.yaml:1:20]", "images.registry", "HOST[:PORT]"],
        ),
        ("images: {registry: a//b}\n", &["images.registry"]),
        ("images: {etcd: 'a b'}\n", &["images.etcd"]),
        ("images: {pause: a}\n", &["pause"]),
        (
            "nodeDocuments: one\n",
            &["[cluster.yaml:1:16]", "neither each nor by-hostname"],
        ),
    ]);
    for (id, why) in [
        ("x", "not a provider's name"),
        ("'://x'", "not"),
        ("'aws:///'", "not"),
    ] {
        let told = refused(&format!(
            "nodes: [{{name: m, role: master, providerID: {id}}}]\n"
        ));
        assert!(
            told.contains(why) && told.contains("nodes[0].providerID"),
            "{told}"
        );
    }
}

#[test]
fn what_cannot_be_in_one_document_for_all_nodes_is_refused() {
    let with = |first: &str, second: &str| {
        refused(&format!(
            "nodeDocuments: by-hostname\nnodes:\n- {{name: m, role: master}}\n\
             - {{name: a, role: node{first}}}\n- {{name: b, role: node{second}}}\n"
        ))
    };
    for (first, second, parts) in [
        (
            "",
            ", kubelet: {config: {maxPods: 1}}",
            [
                "[cluster.yaml:5:10]",
                "nodes[2].kubelet: cannot be in one document",
                "roles.node",
            ],
        ),
        (
            "",
            ", providerID: 'a://b'",
            [
                "[cluster.yaml:5:10]",
                "nodes[2].providerID",
                "nodeDocuments: each",
            ],
        ),
        (
            "",
            ", registration: kubelet",
            ["[cluster.yaml:5:10]", "nodes[2].registration", "roles.node"],
        ),
        (
            "",
            ", arch: arm64",
            [
                "[cluster.yaml:5:10]",
                "nodes[2].arch",
                "a pool for each kind",
            ],
        ),
        (
            ", registration: kubelet",
            ", registration: kubelet, taints: [{key: a, effect: NoExecute}]",
            [
                "[cluster.yaml:5:10]",
                "nodes[2].taints",
                "registration: agent",
            ],
        ),
    ] {
        let told = with(first, second);
        for part in parts {
            assert!(told.contains(part), "{first} {second} lacks {part}: {told}");
        }
    }
    for named in [
        "nodes: [{name: m, role: master}, {name: node, role: node}]\n",
        "nodes: [{name: m, role: master}, {name: n, role: node}]\npools: [{name: node}]\n",
    ] {
        let told = refused(&format!("nodeDocuments: by-hostname\n{named}"));
        assert!(
            told.contains("the document of all nodes is called node"),
            "{told}"
        );
    }
}

#[test]
fn whatever_else_listens_where_the_balancer_does_is_refused() {
    for (settings, path) in [
        ("endpoint: m:7443\n", "endpoint"),
        (
            "apiServer: {extraArgs: {secure-port: 7443}}\n",
            "apiServer.extraArgs.secure-port",
        ),
        (
            "scheduler: {extraArgs: {--secure-port: '7443'}}\n",
            "scheduler.extraArgs.secure-port",
        ),
        (
            "apiServer: {extraArgs: {service-node-port-range: 7000-8000}}\n",
            "apiServer.extraArgs.service-node-port-range",
        ),
        (
            "kubelet: {config: {healthzPort: 7443}}\n",
            "kubelet.config.healthzPort",
        ),
        (
            "roles: {node: {kubelet: {config: {port: 7443}}}}\n",
            "roles.node.kubelet.config.port",
        ),
        (
            "pools: [{name: p, kubelet: {config: {readOnlyPort: 7443}}}]\n",
            "pools[0].kubelet.config.readOnlyPort",
        ),
        (
            "kubeProxy: {config: {metricsBindAddress: '0.0.0.0:7443'}}\n",
            "kubeProxy.config.metricsBindAddress",
        ),
        (
            "etcd: {config: {listen-client-urls: 'https://127.0.0.1:7443,https://10.0.0.1:2379'}}\n",
            "etcd.config.listen-client-urls",
        ),
    ] {
        let told = refused(&format!("balancer: true\n{settings}{MASTER}"));
        let expected = format!("{path}: the port 7443 is the balancer's");
        assert!(told.contains(&expected), "{settings}: {told}");
        assert!(told.contains("[cluster.yaml:"), "{told}");
        // Without a balancer the port is anybody's.
        let folder = Folder::with(&format!("{settings}{MASTER}"));
        folder.run(&["validate"]);
    }
    let told = refused(&format!("balancer: maybe\n{MASTER}"));
    assert!(told.contains("neither true nor false"), "{told}");
}
