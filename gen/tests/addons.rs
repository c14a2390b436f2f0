//! Add-ons: the cluster's DNS, and what else masters keep. (P41 P42 P43)

mod common;

use std::collections::BTreeSet;

use common::Folder;
use common::landing::Landing;
use serde_json::Value;

const OBJECTS: &str = "/etc/knode/objects/";
const MACHINES: &str = "\
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: node-1, role: node, address: 10.0.0.11}
";

fn landing(folder: &Folder, role: &str) -> Landing {
    Landing::of(&folder.user_data(&["--role", role, "--format", "cloud-init"]))
}

/// The master of these settings.
fn master(settings: &str) -> Landing {
    landing(&Folder::with(&format!("{settings}{MACHINES}")), "master")
}

/// The objects of one of the master's files.
fn objects(landing: &Landing, file: &str) -> Vec<Value> {
    serde_yaml::from_multiple(&landing.text(&format!("{OBJECTS}{file}.yaml"))).unwrap()
}

fn object(landing: &Landing, file: &str, kind: &str) -> Value {
    let mut all = objects(landing, file).into_iter();
    let found = all.find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("{file} has no {kind}"))
}

fn container(landing: &Landing, file: &str) -> Value {
    let deployment = object(landing, file, "Deployment");
    deployment["spec"]["template"]["spec"]["containers"][0].clone()
}

fn files(landing: &Landing) -> BTreeSet<String> {
    let all = landing.files.keys();
    all.filter_map(|path| path.strip_prefix(OBJECTS))
        .map(str::to_owned)
        .collect()
}

fn refused(settings: &str, beside: &[(&str, &str)]) -> String {
    let folder = Folder::with(&format!("{settings}{MACHINES}"));
    for (name, text) in beside {
        folder.write(name, text);
    }
    let output = folder.kgen().args(["--role", "master"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{settings}: {told}");
    told
}

/// P41: where pods look for it, on masters alone, and off the wire.
#[test]
fn the_clusters_dns_is_there_without_a_word() {
    let folder = Folder::with(MACHINES);
    let landing = landing(&folder, "master");
    assert_eq!(files(&landing), BTreeSet::from(["coredns.yaml".to_owned()]));
    assert_eq!(landing.files[&format!("{OBJECTS}coredns.yaml")].0, 0o600);
    assert_eq!(files(&self::landing(&folder, "node")), BTreeSet::new());
    let kubelet: Value =
        serde_yaml::from_str(&landing.text("/etc/kubernetes/kubelet.yaml")).unwrap();
    let service = object(&landing, "coredns", "Service");
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.10");
    assert_eq!(service["spec"]["clusterIPs"], kubelet["clusterDNS"]);
    let deployment = object(&landing, "coredns", "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let image = container(&landing, "coredns")["image"].clone();
    let image = image.as_str().unwrap();
    assert!(
        image.starts_with("registry.k8s.io/coredns/coredns:v") && image.contains("@sha256:"),
        "{image}"
    );
    // A mirror, another domain and another range.
    let other = master(
        "images: {registry: mirror.example.com/k8s}\n\
         network: {domain: corp.internal, serviceCIDR: 10.200.0.0/16}\n",
    );
    let image = container(&other, "coredns")["image"].clone();
    assert!(
        image
            .as_str()
            .unwrap()
            .starts_with("mirror.example.com/k8s/coredns/coredns:v")
    );
    let service = object(&other, "coredns", "Service");
    assert_eq!(service["spec"]["clusterIP"], "10.200.0.10");
    let corefile = object(&other, "coredns", "ConfigMap")["data"]["Corefile"].to_string();
    assert!(corefile.contains("kubernetes corp.internal "), "{corefile}");
    assert!(corefile.contains("denial corp.internal"), "{corefile}");
    assert!(!corefile.contains("cluster.local"), "{corefile}");
    // Alone, there is one of it.
    let alone = Landing::of(
        &Folder::with("nodes: [{name: m, role: master}]\n").user_data(&[
            "--role",
            "master",
            "--format",
            "cloud-init",
        ]),
    );
    let deployment = object(&alone, "coredns", "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 1);
    // And where nothing is said at all.
    let builtin = Folder::new().user_data(&["--role", "master", "--format", "cloud-init"]);
    object(&Landing::of(&builtin), "coredns", "Deployment");
}

#[test]
fn two_families_are_two_addresses() {
    let dual = master(
        "network:\n  podCIDRs: [10.244.0.0/16, 'fd00:1::/48']\n  \
         serviceCIDRs: [10.96.0.0/16, 'fd00:2::/112']\n",
    );
    let spec = object(&dual, "coredns", "Service")["spec"].clone();
    assert_eq!(
        spec["clusterIPs"],
        serde_json::json!(["10.96.0.10", "fd00:2::a"])
    );
    assert_eq!(spec["ipFamilies"], serde_json::json!(["IPv4", "IPv6"]));
    assert_eq!(spec["ipFamilyPolicy"], "RequireDualStack");
}

#[test]
fn dns_is_as_the_operator_says() {
    let landing = master(
        "addons:\n  dns:\n    replicas: 3\n    image: registry.example.com/coredns:1\n    \
         forward: [192.0.2.1, '[2001:db8::1]:5353']\n    \
         stubDomains: {corp.example.com: [10.9.0.53, '10.9.1.53:5300']}\n",
    );
    let deployment = object(&landing, "coredns", "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 3);
    let container = container(&landing, "coredns");
    assert_eq!(container["image"], "registry.example.com/coredns:1");
    let config = object(&landing, "coredns", "ConfigMap");
    let corefile = config["data"]["Corefile"].as_str().unwrap();
    for part in [
        "  forward . 192.0.2.1:53 [2001:db8::1]:5353 {\n",
        "\ncorp.example.com:1053 {\n  errors\n  cache 30\n  \
         forward . 10.9.0.53:53 10.9.1.53:5300\n}\n",
    ] {
        assert!(corefile.contains(part), "{corefile}");
    }
    assert!(!corefile.contains("resolv.conf"), "{corefile}");
    let off = master("addons: {dns: {enabled: false}}\n");
    assert_eq!(files(&off), BTreeSet::new());
}

/// P42: off, and on with one word.
#[test]
fn the_others_are_switched_on() {
    let landing = master("addons: {metricsServer: {enabled: true}, dashboard: {enabled: true}}\n");
    let all = ["coredns.yaml", "headlamp.yaml", "metrics-server.yaml"];
    assert_eq!(files(&landing), all.map(str::to_owned).into());
    let metrics = container(&landing, "metrics-server");
    let args = metrics["args"].to_string();
    assert!(
        args.contains("--kubelet-preferred-address-types=InternalIP,Hostname"),
        "{args}"
    );
    assert!(!args.contains("insecure"), "{args}");
    let image = metrics["image"].as_str().unwrap();
    assert!(
        image.starts_with("registry.k8s.io/metrics-server/") && image.contains("@sha256:"),
        "{image}"
    );
    let image = container(&landing, "headlamp")["image"].clone();
    assert!(
        image
            .as_str()
            .unwrap()
            .starts_with("ghcr.io/headlamp-k8s/headlamp:v"),
        "{image}"
    );
    // Nothing gives the dashboard a right of its own.
    let kinds = objects(&landing, "headlamp");
    assert!(
        kinds
            .iter()
            .all(|o| !o["kind"].to_string().contains("Role"))
    );
    let mirrored = master(
        "images: {registry: mirror.example.com/k8s}\n\
         addons: {dashboard: {enabled: true}, metricsServer: {enabled: true, image: 'a:1'}}\n",
    );
    let image = container(&mirrored, "headlamp")["image"].clone();
    assert!(
        image
            .as_str()
            .unwrap()
            .starts_with("mirror.example.com/k8s/headlamp-k8s/headlamp:v"),
        "{image}"
    );
    assert_eq!(container(&mirrored, "metrics-server")["image"], "a:1");
}

/// B14: what runs in the cluster for the cluster is held as tight as it goes.
#[test]
fn containers_of_ours_may_do_nothing_that_they_need_not() {
    let landing = master("addons: {metricsServer: {enabled: true}, dashboard: {enabled: true}}\n");
    for file in ["coredns", "headlamp", "metrics-server"] {
        let container = container(&landing, file);
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{file}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{file}");
        assert_eq!(security["capabilities"]["drop"][0], "ALL", "{file}");
        assert!(
            container["resources"]["limits"]["memory"].is_string(),
            "{file}"
        );
        let pod = object(&landing, file, "Deployment")["spec"]["template"]["spec"].clone();
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
            "{file}"
        );
        for object in objects(&landing, file) {
            let rules = object["rules"].to_string();
            assert!(
                !rules.contains('*') && !rules.contains("secrets"),
                "{rules}"
            );
        }
    }
}

/// P43: the operator's own, as they are; with a Secret they are shown nowhere.
#[test]
fn manifests_of_the_operators_are_brought() {
    let public = "# Mine.\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {a: hunter2}\n";
    let folder = Folder::with(&format!(
        "addons: {{manifests: [mine.yaml, theirs.yml]}}\n{MACHINES}"
    ));
    folder.write("mine.yaml", public);
    folder.write("theirs.yml", secret);
    let landing = landing(&folder, "master");
    assert_eq!(landing.text(&format!("{OBJECTS}own-mine.yaml")), public);
    assert_eq!(landing.text(&format!("{OBJECTS}own-theirs.yaml")), secret);
    for name in ["own-mine.yaml", "own-theirs.yaml"] {
        assert_eq!(landing.files[&format!("{OBJECTS}{name}")].0, 0o600);
    }
    folder.run(&["render", "-o", "out"]);
    folder.write("theirs.yml", &secret.replace("hunter2", "hunter3"));
    folder.write("mine.yaml", &public.replace("Mine", "Ours"));
    let diff = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
    let shown = String::from_utf8(diff.stdout).unwrap();
    assert!(
        shown.contains("Ours") && shown.contains("own-theirs.yaml"),
        "{shown}"
    );
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn what_masters_could_not_apply_is_refused_before_anything_boots() {
    for (settings, beside, why) in [
        ("addons: {dns: {replicas: 0}}\n", &[][..], "1 to 1000"),
        ("addons: {dns: {forward: []}}\n", &[], "name 1 to 15"),
        (
            "addons: {dns: {forward: [127.0.0.53]}}\n",
            &[],
            "in a pod that is the pod itself",
        ),
        ("addons: {dns: {forward: [dns.example]}}\n", &[], "address"),
        (
            "addons: {dns: {forward: [192.0.2.1, '192.0.2.1:53']}}\n",
            &[],
            "each once",
        ),
        (
            "addons: {dns: {stubDomains: {Corp: [192.0.2.1]}}}\n",
            &[],
            "not a DNS domain",
        ),
        ("addons: {dns: {upstream: []}}\n", &[], "unknown key"),
        (
            "addons: {manifests: [gone.yaml]}\n",
            &[],
            "reading gone.yaml",
        ),
        ("addons: {manifests: [a.txt]}\n", &[], "ends in .yaml"),
        (
            "addons: {manifests: [a.yaml]}\n",
            &[("a.yaml", "kind: hunter2\n")],
            "without apiVersion",
        ),
        (
            "addons: {manifests: [a.yaml, a.yml]}\n",
            &[
                ("a.yaml", "{apiVersion: v1, kind: A, metadata: {name: a}}"),
                ("a.yml", "{apiVersion: v1, kind: A, metadata: {name: a}}"),
            ],
            "is called a too",
        ),
    ] {
        let told = refused(settings, beside);
        assert!(told.contains(why), "{settings}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
