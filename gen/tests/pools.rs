//! Pools: one document for any number of machines that nobody lists.
//! (P6 P15 P48 P60 B10)

mod common;

use std::collections::BTreeMap;
use std::process::Output;

use common::Folder;
use common::landing::Landing;
use kgen::cluster::Cluster;
use kgen::pki::Pki;
use kgen::report::Source;
use kgen::settings;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use units::types::{Role, TaintEffect};

const FORMATS: [&str; 3] = ["coreos", "cloud-init", "ignition"];

const POOLS: &str = "\
serviceAccountKey: ecdsa-p256
name: test
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: node-1, role: node, address: 10.0.0.11}
pools:
- name: workers
  labels: {example.com/pool: workers}
  taints: [{key: example.com/gpu, effect: NoSchedule}]
  kubelet: {config: {maxPods: 50}}
- {name: large, tokenTTL: 7d}
";

fn landing(folder: &Folder, args: &[&str]) -> Landing {
    Landing::of(&folder.user_data(args))
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs kgen, which has to refuse and write nothing; what it said.
fn refused(folder: &Folder, args: &[&str]) -> String {
    let before = folder.tree();
    let output = folder.kgen().args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    assert_eq!(folder.tree(), before, "{args:?} wrote something");
    told(&output)
}

/// The token of a pool and its end, as kept.
fn token(folder: &Folder, pool: &str) -> (String, OffsetDateTime) {
    let text = folder.read(&format!("pki/pools/{pool}.token"));
    let kept: BTreeMap<String, String> = serde_yaml::from_str(&text).unwrap();
    let expires = OffsetDateTime::parse(&kept["expires"], &Rfc3339).unwrap();
    (kept["token"].clone(), expires)
}

/// A Secret's data, decoded.
fn data(text: &str) -> BTreeMap<String, String> {
    use base64::Engine as _;
    let object: Value = serde_yaml::from_str(text).unwrap();
    let entries = object["data"].as_object().unwrap().iter();
    let decoded = |value: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap());
        String::from_utf8(bytes.unwrap()).unwrap()
    };
    entries.map(|(k, v)| (k.clone(), decoded(v))).collect()
}

/// Makes everything of a cluster as it was made so long ago.
fn aged(settings: &str, ago: Duration) -> Folder {
    let folder = Folder::with(settings);
    let checked = settings::load(&Source::new("cluster.yaml", settings)).unwrap();
    let cluster = Cluster::new(&checked);
    let mut pki = Pki::open(&folder.path(""), OffsetDateTime::now_utc() - ago).unwrap();
    for machine in cluster.documents() {
        pki.machine(&cluster, machine).unwrap();
    }
    pki.commit().unwrap();
    folder
}

#[test]
fn a_pools_machines_have_nothing_of_their_own_but_a_token() {
    let folder = Folder::with(POOLS);
    let pool = landing(&folder, &["--pool", "workers"]);
    let files: Vec<String> = pool
        .files
        .iter()
        .filter(|(path, _)| path.starts_with("/etc/kubernetes/") || path.starts_with("/etc/knode/"))
        .map(|(path, (mode, _))| format!("{mode:04o} {path}"))
        .collect();
    insta::assert_snapshot!(files.join("\n"), @r"
    0755 /etc/knode/bootstrap.sh
    0644 /etc/knode/knode.list
    0600 /etc/knode/node.yaml
    0600 /etc/kubernetes/bootstrap-kubelet.conf
    0600 /etc/kubernetes/kube-proxy.conf
    0644 /etc/kubernetes/kube-proxy.yaml
    0600 /etc/kubernetes/kubelet.conf
    0600 /etc/kubernetes/kubelet.yaml
    0644 /etc/kubernetes/pki/ca.crt
    ");
    let (token, expires) = token(&folder, "workers");
    let bootstrap: Value =
        serde_yaml::from_str(&pool.text("/etc/kubernetes/bootstrap-kubelet.conf")).unwrap();
    assert_eq!(bootstrap["users"][0]["name"], "tls-bootstrap-token-user");
    assert_eq!(bootstrap["users"][0]["user"]["token"], token.as_str());
    let cluster = &bootstrap["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], "https://10.0.0.10:6443");
    assert!(cluster["certificate-authority-data"].is_string());
    for file in ["kubelet.conf", "kube-proxy.conf"] {
        let text = pool.text(&format!("/etc/kubernetes/{file}"));
        let config: Value = serde_yaml::from_str(&text).unwrap();
        let user = config["users"][0]["user"].as_object().unwrap();
        let rotated = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        assert_eq!(user.len(), 2, "{text}");
        assert_eq!(user["client-certificate"], rotated);
        assert_eq!(user["client-key"], rotated);
    }
    assert!(
        !pool
            .files
            .values()
            .any(|(_, bytes)| { String::from_utf8_lossy(bytes).contains("PRIVATE KEY") })
    );
    let node = pool.node_config();
    assert_eq!((node.node.name, node.node.role), (None, Role::Node));
    assert!(node.node.pod_cidrs.is_empty() && node.by_hostname.is_empty());
    assert_eq!(node.node.labels["example.com/pool"], "workers");
    assert_eq!(node.node.taints[0].effect, TaintEffect::NoSchedule);
    let bootstrap = node.bootstrap.unwrap();
    assert_eq!(bootstrap.pool, "workers");
    assert_eq!(bootstrap.expires, expires.format(&Rfc3339).unwrap());
    let kubelet: Value = serde_yaml::from_str(&pool.text("/etc/kubernetes/kubelet.yaml")).unwrap();
    assert_eq!(kubelet["serverTLSBootstrap"], true);
    assert_eq!(kubelet["rotateCertificates"], true);
    assert!(kubelet.get("tlsCertFile").is_none() && kubelet.get("tlsPrivateKeyFile").is_none());
    assert_eq!(kubelet["maxPods"], 50);
    assert_eq!(kubelet["registerWithTaints"][0]["key"], "example.com/gpu");
}

#[test]
fn pools_documents_are_the_same_in_all_languages_and_every_time() {
    let folder = Folder::with(POOLS);
    let landings = FORMATS.map(|format| {
        let args = ["--pool", "workers", "--format", format];
        let first = folder.user_data(&args);
        assert_eq!(folder.user_data(&args), first, "{format}");
        // The host name is the cloud's to give.
        assert!(!first.contains("\nhostname:") && !first.contains("/etc/hostname"));
        Landing::of(&first)
    });
    assert_eq!(landings[0], landings[1]);
    assert_eq!(landings[0].enabled, landings[2].enabled);
    for (path, file) in &landings[0].files {
        assert_eq!(landings[2].files.get(path), Some(file), "{path}");
    }
    folder.run(&["render", "-o", "out"]);
    let rendered = folder.read("out/workers/user-data");
    assert_eq!(rendered, folder.user_data(&["--pool", "workers"]));
    let before = folder.tree();
    folder.run(&["render", "-o", "out"]);
    assert_eq!(folder.tree(), before);
}

#[test]
fn masters_make_every_token_known() {
    let folder = Folder::with(POOLS);
    // A pool may be asked for before any master was.
    folder.run(&["--pool", "workers"]);
    let master = landing(&folder, &["--role", "master"]);
    folder.run(&["render", "-o", "out"]);
    for (pool, life) in [
        ("workers", Duration::hours(24)),
        ("large", Duration::days(7)),
    ] {
        let (token, expires) = token(&folder, pool);
        let (id, proof) = token.split_once('.').unwrap();
        assert_eq!((id.len(), proof.len()), (6, 16), "{token}");
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        assert!(id.bytes().chain(proof.bytes()).all(good), "{token}");
        let left = expires - OffsetDateTime::now_utc();
        assert!(left <= life && left > life - Duration::minutes(5), "{left}");
        let path = "/etc/knode/objects/bootstrap-tokens.yaml";
        let all = master.text(path);
        assert_eq!(all.split("---\n").count(), 2);
        let name = format!("bootstrap-token-{id}");
        let text = all.split("---\n").find(|text| text.contains(&name));
        let text = text.unwrap().to_owned();
        assert_eq!(master.files[path].0, 0o600);
        let object: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(object["type"], "bootstrap.kubernetes.io/token");
        assert_eq!(object["metadata"]["name"], format!("bootstrap-token-{id}"));
        assert_eq!(object["metadata"]["namespace"], "kube-system");
        let data = data(&text);
        let expected: BTreeMap<String, String> = [
            ("auth-extra-groups", "system:bootstrappers:knode"),
            ("description", &format!("Machines of {pool}, made by kgen")),
            ("expiration", &expires.format(&Rfc3339).unwrap()),
            ("token-id", id),
            ("token-secret", proof),
            ("usage-bootstrap-authentication", "true"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        assert_eq!(data, expected);
        // A running cluster is told the same by kubectl.
        let file = format!("out/pools/{pool}-token.yaml");
        assert_eq!(folder.read(&file), text);
        let tree = folder.tree();
        assert_eq!(tree[&file].1, 0o600);
        assert_eq!(tree[&format!("pki/pools/{pool}.token")].1, 0o600);
        assert_eq!(tree["pki/pools/"].1, 0o700);
    }
    // Each pool knows its own token, and named nodes none.
    let (workers, large) = (token(&folder, "workers").0, token(&folder, "large").0);
    let pool = landing(&folder, &["--pool", "large"]);
    assert!(pool.holds(&large) && !pool.holds(&workers));
    let node = landing(&folder, &["--name", "node-1"]);
    assert!(!node.holds(&large) && !node.holds(&workers));
    assert!(node.node_config().bootstrap.is_none());
    assert!(!node.files.keys().any(|path| path.contains("/objects/")));
}

#[test]
fn tokens_of_pools_that_are_gone_are_not_applied_again() {
    let folder = Folder::with(POOLS);
    folder.run(&["render", "-o", "out"]);
    folder.write("out/pools/notes.yaml", "the operator's own");
    folder.write("cluster.yaml", &POOLS.replace("name: large", "name: small"));
    let output = folder.run(&["render", "-o", "out"]);
    let gone = "kgen: removed out/pools/large-token.yaml\n";
    assert!(told(&output).contains(gone), "{}", told(&output));
    let files: Vec<String> = folder.tree().into_keys().collect();
    let left: Vec<&str> = files
        .iter()
        .filter_map(|file| file.strip_prefix("out/pools/"))
        .filter(|file| !file.is_empty())
        .collect();
    assert_eq!(
        left,
        ["notes.yaml", "small-token.yaml", "workers-token.yaml"]
    );
}

#[test]
fn tokens_are_never_told() {
    let folder = Folder::with(POOLS);
    let output = folder.run(&["render", "-o", "out"]);
    let listed = folder.run(&["certs", "list", "--json"]);
    let differs = folder
        .kgen()
        .args(["diff", "-o", "elsewhere"])
        .output()
        .unwrap();
    for output in [output, listed, differs] {
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        for pool in ["workers", "large"] {
            let (token, _) = token(&folder, pool);
            let (_, proof) = token.split_once('.').unwrap();
            assert!(!all.contains(proof), "{all}");
        }
    }
}

#[test]
fn a_token_is_kept_until_its_last_quarter() {
    let kept = aged(POOLS, Duration::hours(17));
    let before = token(&kept, "workers");
    kept.run(&["--pool", "workers"]);
    assert_eq!(token(&kept, "workers"), before);

    for (hours, why) in [(19, "it expires on "), (25, "it had expired on ")] {
        let folder = aged(POOLS, Duration::hours(hours));
        let old = token(&folder, "workers");
        let long = token(&folder, "large");
        let output = folder.run(&["--pool", "workers"]);
        for part in [
            "made pki/pools/workers.token anew: ",
            why,
            "kubectl apply -f OUT/pools",
        ] {
            assert!(told(&output).contains(part), "{}", told(&output));
        }
        let new = token(&folder, "workers");
        assert!(new.0 != old.0 && new.1 > old.1);
        // Masters made anew have the new one and not the old one.
        let master = landing(&folder, &["--role", "master"]);
        let has = |token: &str| {
            let id = token.split_once('.').unwrap().0;
            let all = master.text("/etc/knode/objects/bootstrap-tokens.yaml");
            all.contains(&format!("bootstrap-token-{id}"))
        };
        assert!(has(&new.0) && !has(&old.0));
        // Whoever still has time keeps its own.
        assert_eq!(token(&folder, "large"), long);
    }
}

#[test]
fn what_only_looks_makes_no_token() {
    let folder = aged(POOLS, Duration::hours(25));
    let before = folder.tree();
    folder.run(&["validate"]);
    folder.run(&["sizes"]);
    folder.run(&["certs", "list"]);
    let differs = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
    assert_eq!(differs.status.code(), Some(1));
    assert_eq!(folder.tree(), before);
}

#[test]
fn a_changed_life_takes_effect() {
    let folder = Folder::with(POOLS);
    folder.run(&["--pool", "large"]);
    let old = token(&folder, "large");
    folder.write("cluster.yaml", &POOLS.replace("7d", "90m"));
    let output = folder.run(&["--pool", "large"]);
    assert!(
        told(&output).contains("tokenTTL has changed"),
        "{}",
        told(&output)
    );
    let new = token(&folder, "large");
    assert!(new.0 != old.0 && new.1 < old.1);
    // A role's is that of all its pools.
    folder.write(
        "cluster.yaml",
        &format!("roles: {{node: {{tokenTTL: 2d}}}}\n{POOLS}"),
    );
    folder.run(&["--role", "master"]);
    let left = token(&folder, "workers").1 - OffsetDateTime::now_utc();
    assert!(left > Duration::hours(47), "{left}");
}

#[test]
fn a_damaged_token_is_refused_and_not_shown() {
    let folder = Folder::with(POOLS);
    folder.run(&["--pool", "workers"]);
    folder.write(
        "pki/pools/workers.token",
        "token: abcdef.0123456789ABCDEF\n",
    );
    for args in [
        &["--pool", "workers"][..],
        &["--role", "master"],
        &["render", "-o", "out"],
    ] {
        let told = refused(&folder, args);
        assert!(
            told.contains("pki/pools/workers.token: is not a token"),
            "{told}"
        );
        assert!(!told.contains("0123456789"), "{told}");
    }
}

#[test]
fn certs_shows_tokens_and_makes_them_anew() {
    let folder = aged(POOLS, Duration::hours(20));
    let output = folder.run(&["certs", "list", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = json["certificates"].as_array().unwrap();
    let tokens: Vec<&Value> = all.iter().filter(|c| c["kind"] == "token").collect();
    assert_eq!(tokens.len(), 2);
    let (large, workers) = (tokens[0], tokens[1]);
    assert_eq!(large["name"], "pools/large");
    assert_eq!(workers["file"], "pki/pools/workers.token");
    let (kept, expires) = token(&folder, "workers");
    assert_eq!(workers["notAfter"], expires.format(&Rfc3339).unwrap());
    let user = format!("system:bootstrap:{}", kept.split_once('.').unwrap().0);
    assert_eq!(workers["subject"], user);
    assert_eq!(
        (&workers["daysLeft"], &large["daysLeft"]),
        (&0.into(), &6.into())
    );
    assert!(all.iter().filter(|c| c["kind"] == "certificate").count() > 10);
    let table = String::from_utf8(folder.run(&["certs", "list"]).stdout).unwrap();
    assert!(table.contains("pools/workers "), "{table}");
    assert!(table.contains("(bootstrap token)"), "{table}");

    // One that is near its end is shown. It is no reason to be woken up.
    let output = folder.run(&["certs", "check", "--days", "30"]);
    let shown = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        shown.contains("pools/workers") && !shown.contains("pools/large"),
        "{shown}"
    );
    assert!(
        told(&output).contains("new bootstrap tokens"),
        "{}",
        told(&output)
    );
    assert!(told(&output).contains("none of "), "{}", told(&output));

    let large = token(&folder, "large");
    let output = folder.run(&["certs", "renew", "pools/large"]);
    assert!(
        told(&output).contains("pki/pools/large.token anew: as asked"),
        "{}",
        told(&output)
    );
    assert!(
        told(&output).contains("changed of master, large:"),
        "{}",
        told(&output)
    );
    assert_ne!(token(&folder, "large"), large);
    // All certificates are not all tokens.
    let before = token(&folder, "workers");
    folder.run(&["certs", "renew"]);
    assert_eq!(token(&folder, "workers"), before);
    let error = refused(&folder, &["certs", "renew", "pools/work"]);
    assert!(
        error.contains("no certificate or token in pki/ is called pools/work"),
        "{error}"
    );
}

/// P27: ranges that the controller manager gives are given by it to all.
#[test]
fn with_pools_the_controller_manager_gives_all_pod_ranges() {
    let folder = Folder::with(POOLS);
    for args in [["--name", "master"], ["--name", "node-1"]] {
        let config = landing(&folder, &args).node_config();
        assert!(config.node.pod_cidrs.is_empty(), "{args:?}");
    }
    // A master among pools is not alone: it keeps pods away.
    let folder = Folder::with("nodes: [{name: m, role: master}]\npools: [{name: p}]\n");
    assert_eq!(
        landing(&folder, &["--role", "master"])
            .node_config()
            .node
            .taints
            .len(),
        1
    );
}

#[test]
fn kubelets_of_unknown_address_are_reached_by_address_with_pools() {
    let settings = POOLS.replace(", address: 10.0.0.11", "");
    let folder = Folder::with(&settings);
    let master = landing(&folder, &["--role", "master"]);
    let flags = master.text("/etc/systemd/system/kube-apiserver.service.d/10-kgen.conf");
    assert!(flags.contains("--kubelet-preferred-address-types=InternalIP,Hostname "));
    let node = landing(&folder, &["--name", "node-1"]);
    assert!(
        node.text("/etc/kubernetes/kubelet.yaml")
            .contains("serverTLSBootstrap: true\n")
    );
    assert!(!node.files.contains_key("/etc/kubernetes/pki/kubelet.key"));
    // It is known by name in any case: it has its own client certificate.
    assert!(
        node.text("/etc/kubernetes/kubelet.conf")
            .contains("client-key-data")
    );
    let known = landing(&folder, &["--role", "master"]);
    assert!(known.files.contains_key("/etc/kubernetes/pki/kubelet.key"));
}

#[test]
fn who_is_meant_has_to_be_clear() {
    let folder = Folder::with(POOLS);
    for (args, parts) in [
        (
            &["--pool", "worker"][..],
            &["no pool is called worker", "did you mean workers?"][..],
        ),
        (&["--pool", "zzz"], &["there are workers, large"]),
        (&["--pool", "node-1"], &["no pool is called node-1"]),
        (
            &["--pool", "workers", "--role", "node"],
            &["cannot be used with"],
        ),
        (
            &["--pool", "workers", "--name", "a"],
            &["cannot be used with"],
        ),
        (
            &["--role", "etcd"],
            &["no machine has the role etcd", "--pool workers"],
        ),
    ] {
        let told = refused(&folder, args);
        for part in parts {
            assert!(told.contains(part), "{args:?}: {told}");
        }
    }
    let without = Folder::new();
    let told = refused(&without, &["--pool", "workers"]);
    assert!(told.contains("there is no cluster.yaml"), "{told}");
    let none = Folder::with("nodes: [{name: m, role: master}]\n");
    let told = refused(&none, &["--pool", "workers"]);
    assert!(told.contains("pools: [{name: workers}]"), "{told}");
}

#[test]
fn validate_and_diff_know_pools() {
    let folder = Folder::with(POOLS);
    let valid = folder.run(&["validate"]);
    assert_eq!(valid.stdout, b"cluster.yaml: valid, 2 machines, 2 pools\n");
    folder.run(&["render", "-o", "out"]);
    let diff = |expected: i32| {
        let output = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(diff(0), "");
    folder.write("cluster.yaml", &POOLS.replace("maxPods: 50", "maxPods: 60"));
    let text = diff(1);
    assert!(
        text.starts_with("workers: /etc/kubernetes/kubelet.yaml:\n"),
        "{text}"
    );
    assert!(text.contains("+ maxPods: 60"), "{text}");
    folder.write("cluster.yaml", &POOLS.replace("name: large", "name: small"));
    let text = diff(1);
    for part in [
        "small: new, ",
        "large: is in out, and no longer in the settings\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn routes_to_unknown_machines_are_warned_of() {
    let folder = Folder::with(&format!("network: {{mode: routed}}\n{POOLS}"));
    let output = folder.run(&["validate"]);
    assert!(told(&output).contains("something of the cloud's has to make a route"));
    let folder = Folder::with(&POOLS.replace("7d", "60d"));
    let output = folder.run(&["validate"]);
    assert!(told(&output).contains("longer than 30 days"));
    let folder = Folder::with(POOLS);
    assert_eq!(told(&folder.run(&["validate"])), "");
}

/// B1: what reads a document takes it without a host name.
#[test]
fn documents_without_a_host_name_are_valid_in_every_language() {
    let folder = Folder::with(POOLS);
    for format in FORMATS {
        folder.write(
            "user-data",
            &folder.user_data(&["--pool", "workers", "--format", format]),
        );
        let output = folder.run(&["validate", "--strict", "user-data"]);
        assert_eq!(
            output.stdout,
            format!("user-data: valid for {format}\n").into_bytes()
        );
    }
}
