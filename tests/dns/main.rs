//! Add-ons on a real cluster: accepted by the API server, kept by the masters,
//! gone with their settings; and the cluster's DNS, asked from a pod (P41, P42,
//! P43).

mod server;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use server::Server;
use tests::cluster::{Cluster, Machine};
use tests::scenario::with_kubernetes;
use tests::{report, wait};

const MACHINES: [Machine; 2] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
];
const BOOT: Duration = Duration::from_secs(300);
/// Two rounds of the master's agent, and some.
const ROUNDS: Duration = Duration::from_secs(150);
/// The tenth address of the services' range.
const CLUSTER_DNS: &str = "10.96.0.10";
const IMAGE: &str = "knode.test/coredns:1";
const OUTSIDE: (u16, Ipv4Addr) = (5301, Ipv4Addr::new(192, 0, 2, 7));
const STUB: (u16, Ipv4Addr) = (5302, Ipv4Addr::new(192, 0, 2, 8));
/// Objects of each add-on.
const COREDNS: [&str; 5] = [
    "deployment/coredns",
    "service/kube-dns",
    "configmap/coredns",
    "poddisruptionbudget/coredns",
    "clusterrole/system:coredns",
];
const OPTIONAL: [&str; 6] = [
    "deployment/metrics-server",
    "apiservice/v1beta1.metrics.k8s.io",
    "rolebinding/metrics-server-auth-reader",
    "deployment/headlamp",
    "service/headlamp",
    "configmap/of-the-operator",
];

#[test]
fn dns() -> Result<()> {
    with_kubernetes("dns", || Cluster::new(&MACHINES), whole_way)
}

fn whole_way(cluster: &mut Cluster) -> Result<()> {
    let outside = Server::start(cluster.network(), OUTSIDE.0, OUTSIDE.1)?;
    let stub = Server::start(cluster.network(), STUB.0, STUB.1)?;
    fs::write(
        cluster.path("operators.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: of-the-operator, namespace: kube-system}\n\
         data: {a: '1'}\n",
    )?;
    set(cluster, true)?;
    for Machine { name, .. } in MACHINES {
        cluster.boot(name)?;
    }
    for Machine { name, .. } in MACHINES {
        cluster.import_images(name, BOOT)?;
        cluster.wait_until_ready(name, BOOT)?;
    }
    all_objects_are_accepted(cluster)?;
    a_token_logs_in(cluster)?;
    what_is_changed_or_deleted_comes_back_and_nothing_else_moves(cluster)?;
    match env::var_os("COREDNS_IMAGE").filter(|path| !path.is_empty()) {
        Some(path) => names_are_answered(cluster, &PathBuf::from(path), &outside, &stub)?,
        None => report::skip("dns_queries", "no image archive in $COREDNS_IMAGE"),
    }
    what_leaves_the_settings_leaves_the_cluster(cluster)
}

/// The settings' add-ons: DNS, and with `all` every other.
fn set(cluster: &Cluster, all: bool) -> Result<()> {
    let gateway = cluster.network().gateway();
    let dns = format!(
        "image: {IMAGE}, forward: [\"{gateway}:{}\"], stubDomains: {{corp.test: [\"{gateway}:{}\"]}}",
        OUTSIDE.0, STUB.0
    );
    let others = if all {
        ", metricsServer: {enabled: true}, dashboard: {enabled: true}, \
         manifests: [operators.yaml]"
    } else {
        ""
    };
    cluster.addons(&format!("{{dns: {{{dns}}}{others}}}"))
}

/// What there is of these; each is `KIND/NAME`.
fn there<'a>(cluster: &Cluster, objects: &[&'a str]) -> Result<BTreeSet<&'a str>> {
    let mut found = BTreeSet::new();
    for object in objects {
        let arguments = [
            "--namespace=kube-system",
            "get",
            "--ignore-not-found",
            "--output=name",
            object,
        ];
        if !cluster.kubectl(&arguments, "")?.ok()?.is_empty() {
            found.insert(*object);
        }
    }
    Ok(found)
}

fn get(cluster: &Cluster, object: &str) -> Result<Value> {
    cluster.get(&["--namespace=kube-system", object])
}

fn all_objects_are_accepted(cluster: &mut Cluster) -> Result<()> {
    let step = cluster.wait_for_step("master", "objects", BOOT)?;
    eprintln!("objects: {}", step["detail"]);
    let all = [&COREDNS[..], &OPTIONAL].concat();
    let found = there(cluster, &all)?;
    ensure!(found.len() == all.len(), "{found:?}");
    for object in all {
        let labels = get(cluster, object)?["metadata"]["labels"].clone();
        ensure!(
            labels["app.kubernetes.io/managed-by"] == "knode",
            "{object}: {labels}"
        );
    }
    let service = get(cluster, "service/kube-dns")?;
    ensure!(service["spec"]["clusterIP"] == CLUSTER_DNS, "{service:#}");
    let kubelet = cluster
        .node("node-1")?
        .read_file("/etc/kubernetes/kubelet.yaml")?;
    ensure!(kubelet.contains(CLUSTER_DNS), "{kubelet}");
    // Nothing of it is on a node.
    ensure!(!cluster.node("node-1")?.exists("/etc/knode/objects")?);
    Ok(())
}

/// P42: what docs/operations.md says to type.
fn a_token_logs_in(cluster: &mut Cluster) -> Result<()> {
    let namespace = "--namespace=kube-system";
    let account = ["create", "serviceaccount", "viewer", namespace];
    cluster.kubectl(&account, "")?.ok()?;
    cluster
        .kubectl(
            &[
                "create",
                "clusterrolebinding",
                "viewer",
                "--clusterrole=view",
                "--serviceaccount=kube-system:viewer",
            ],
            "",
        )?
        .ok()?;
    let token = ["create", "token", "viewer", namespace, "--duration=8h"];
    let token = cluster.kubectl(&token, "")?.ok()?;
    let header = format!("Authorization: Bearer {}", token.trim());
    let node = cluster.node("master")?;
    let ask = |path: &str| -> Result<String> {
        let url = format!("https://10.99.0.11:6443{path}");
        let authority = "/etc/kubernetes/pki/ca.crt";
        let to = ["--silent", "--output", "/dev/null", "--cacert", authority];
        let as_whom = ["--write-out", "%{http_code}", "--header", &header, &url];
        node.exec(&[&["curl"][..], &to, &as_whom].concat())?.ok()
    };
    // The authorizer learns of a new binding by a watch, and the role `view` is put
    // together by the controller manager: neither is there at once.
    wait::until("the token to be let in", Duration::from_secs(60), || {
        let code = ask("/api/v1/namespaces/default/pods")?;
        ensure!(["200", "403"].contains(&code.as_str()), "answered {code}");
        Ok((code == "200").then_some(()))
    })?;
    let secrets = ask("/api/v1/namespaces/default/secrets")?;
    ensure!(secrets == "403", "secrets: {secrets}");
    Ok(())
}

/// P43: kept, and in no loop with what is there already.
fn what_is_changed_or_deleted_comes_back_and_nothing_else_moves(
    cluster: &mut Cluster,
) -> Result<()> {
    let versions = |cluster: &Cluster| -> Result<Vec<Value>> {
        let objects = ["configmap/coredns", "clusterrole/system:coredns"];
        let still = objects.iter();
        still
            .map(|object| Ok(get(cluster, object)?["metadata"]["resourceVersion"].clone()))
            .collect()
    };
    let before = versions(cluster)?;
    let delete = |cluster: &Cluster, object: &str| -> Result<()> {
        let arguments = ["--namespace=kube-system", "delete", object];
        cluster.kubectl(&arguments, "")?.ok()?;
        Ok(())
    };
    delete(cluster, "service/kube-dns")?;
    delete(cluster, "configmap/of-the-operator")?;
    let scale = [
        "--namespace=kube-system",
        "scale",
        "deployment/coredns",
        "--replicas=0",
    ];
    cluster.kubectl(&scale, "")?.ok()?;
    wait::until("service, replicas and manifest again", ROUNDS, || {
        let found = there(cluster, &["service/kube-dns", "configmap/of-the-operator"])?;
        let replicas = get(cluster, "deployment/coredns")?["spec"]["replicas"].clone();
        Ok((found.len() == 2 && replicas == 2).then_some(()))
    })?;
    let service = get(cluster, "service/kube-dns")?;
    ensure!(service["spec"]["clusterIP"] == CLUSTER_DNS, "{service:#}");
    ensure!(
        versions(cluster)? == before,
        "objects that were as they should be were written again"
    );
    Ok(())
}

/// P41: by a pod, through the service's address.
fn names_are_answered(
    cluster: &mut Cluster,
    archive: &PathBuf,
    outside: &Server,
    stub: &Server,
) -> Result<()> {
    for Machine { name, .. } in MACHINES {
        import(cluster, name, archive)?;
    }
    wait::until("CoreDNS available", BOOT, || {
        let status = get(cluster, "deployment/coredns")?["status"].clone();
        Ok((status["availableReplicas"] == 2).then_some(()))
    })
    .with_context(|| {
        let arguments = ["--namespace=kube-system", "describe", "pods"];
        let pods = cluster.kubectl(&arguments, "").map(|o| o.stdout);
        let arguments = ["--namespace=kube-system", "logs", "deployment/coredns"];
        let logs = cluster.kubectl(&arguments, "").map(|o| o.stdout);
        format!("{}\n{}", pods.unwrap_or_default(), logs.unwrap_or_default())
    })?;
    let spread = cluster.get(&[
        "--namespace=kube-system",
        "pods",
        "--selector=k8s-app=kube-dns",
    ])?;
    let nodes: BTreeSet<String> = spread["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|pod| pod["spec"]["nodeName"].to_string())
        .collect();
    ensure!(nodes.len() == 2, "both on one machine: {nodes:?}");
    web_pods(cluster)?;
    let pod = |name: &str| -> Result<String> {
        let pod = cluster.get(&["pod", name])?;
        Ok(text(&pod["status"]["podIP"]))
    };
    let web = text(&cluster.get(&["service", "web"])?["spec"]["clusterIP"]);
    let reversed: Vec<&str> = web.rsplit('.').collect();
    let pods = BTreeSet::from([pod("web-1")?, pod("web-2")?]);
    let both: String = pods.iter().map(|ip| format!("A {ip}\n")).collect();
    let domain = "default.svc.cluster.local";
    for (name, kind, expected) in [
        (format!("web.{domain}"), "A", format!("NOERROR\nA {web}\n")),
        (format!("web.{domain}"), "AAAA", "NOERROR\n".to_owned()),
        (
            format!("_http._tcp.web.{domain}"),
            "SRV",
            format!("NOERROR\nSRV 80 web.{domain}.\n"),
        ),
        (format!("peers.{domain}"), "A", format!("NOERROR\n{both}")),
        (
            format!("_http._tcp.peers.{domain}"),
            "SRV",
            format!("NOERROR\nSRV 8080 one.peers.{domain}.\nSRV 8080 two.peers.{domain}.\n"),
        ),
        (
            format!("one.peers.{domain}"),
            "A",
            format!("NOERROR\nA {}\n", pod("web-1")?),
        ),
        (
            format!("{}.in-addr.arpa", reversed.join(".")),
            "PTR",
            format!("NOERROR\nPTR web.{domain}.\n"),
        ),
        (format!("nobody.{domain}"), "A", "NXDOMAIN\n".to_owned()),
        (
            "known.example".to_owned(),
            "A",
            format!("NOERROR\nA {}\n", OUTSIDE.1),
        ),
        ("refused.example".to_owned(), "A", "REFUSED\n".to_owned()),
        ("unknown.example".to_owned(), "A", "NXDOMAIN\n".to_owned()),
        (
            "known.corp.test".to_owned(),
            "A",
            format!("NOERROR\nA {}\n", STUB.1),
        ),
    ] {
        answered(cluster, &name, kind, &format!("rcode {expected}"))?;
    }
    let (asked_outside, asked_stub) = (outside.asked(), stub.asked());
    ensure!(
        asked_outside.contains("known.example."),
        "{asked_outside:?}"
    );
    ensure!(asked_stub.contains("known.corp.test."), "{asked_stub:?}");
    let leaked = asked_outside.iter().any(|n| n.ends_with("cluster.local."));
    ensure!(!leaked, "the cluster's names left it: {asked_outside:?}");
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Asks from a pod until the answer is the expected one: endpoints take a
/// moment to get to CoreDNS.
fn answered(cluster: &Cluster, name: &str, kind: &str, expected: &str) -> Result<()> {
    let mut last = String::new();
    wait::until(&format!("{kind} {name}"), Duration::from_secs(30), || {
        let asked = cluster.kubectl(&["exec", "web-1", "--", "/dns", name, kind], "")?;
        last = format!("{}{}", asked.stdout, asked.stderr);
        Ok((asked.success() && asked.stdout == expected).then_some(()))
    })
    .with_context(|| format!("expected {expected:?}, got {last:?}"))?;
    eprintln!("{kind} {name}: {}", expected.trim().replace('\n', ", "));
    Ok(())
}

/// Two pods behind a service, and a headless service that names them.
fn web_pods(cluster: &Cluster) -> Result<()> {
    let pod = |name: &str, hostname: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "nodeName": "node-1",
                "hostname": hostname,
                "subdomain": "peers",
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never"}],
            },
        })
    };
    let service = |name: &str, more: Value| {
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        });
        if !more.is_null() {
            service["spec"]["clusterIP"] = more;
        }
        service
    };
    let list = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            pod("web-1", "one"),
            pod("web-2", "two"),
            service("web", Value::Null),
            service("peers", json!("None")),
        ],
    });
    cluster
        .kubectl(&["apply", "--filename=-"], &list.to_string())?
        .ok()?;
    for name in ["web-1", "web-2"] {
        wait::until(&format!("{name} running"), BOOT, || {
            let pod = cluster.get(&["pod", name])?;
            let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
            Ok(ready.then_some(()))
        })?;
    }
    Ok(())
}

/// Brings an archive's image under the name that the settings have.
fn import(cluster: &mut Cluster, machine: &str, archive: &PathBuf) -> Result<()> {
    let bytes = fs::read(archive).with_context(|| format!("reading {}", archive.display()))?;
    let node = cluster.node(machine)?;
    let ctr = "ctr --namespace=k8s.io images";
    let list = format!("{ctr} list --quiet | sort");
    let before = node.sh(&list)?;
    let before: BTreeSet<&str> = before.lines().collect();
    let import = ["ctr", "--namespace=k8s.io", "images", "import", "-"];
    node.exec_within(&import, &bytes, BOOT)?.ok()?;
    let after = node.sh(&list)?;
    let new = after.lines().find(|name| !before.contains(name));
    let new = new.context("the archive has no image")?;
    node.sh(&format!("{ctr} tag {new} {IMAGE}"))?;
    Ok(())
}

/// P43: by a new document, while everything runs.
fn what_leaves_the_settings_leaves_the_cluster(cluster: &mut Cluster) -> Result<()> {
    set(cluster, false)?;
    cluster.deliver("master", BOOT)?;
    wait::until("what left the settings is gone", ROUNDS, || {
        Ok(there(cluster, &OPTIONAL)?.is_empty().then_some(()))
    })?;
    let found = there(cluster, &COREDNS)?;
    ensure!(found.len() == COREDNS.len(), "{found:?}");
    let account = there(cluster, &["serviceaccount/viewer"])?;
    ensure!(account.len() == 1, "what is not knode's was removed");
    let list = get(cluster, "configmap/knode-objects")?;
    ensure!(!list.to_string().contains("headlamp"), "{list:#}");
    Ok(())
}
