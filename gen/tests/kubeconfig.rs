//! `kgen kubeconfig --merge`: the operator's own kubeconfig is kept. (P18)

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use common::{CLUSTER, Folder, skip};
use serde_json::{Value, json};

/// What kubectl and others write, and what none of us knows.
const MINE: &str = "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: b3RoZXI=
    extensions:
    - extension: {last-update: 'Mon', provider: minikube.sigs.k8s.io, number: 012}
      name: cluster_info
    server: https://192.168.49.2:8443
  name: minikube
contexts:
- context: {cluster: minikube, user: minikube, namespace: 'no'}
  name: minikube
current-context: minikube
kind: Config
preferences: {colors: true}
users:
- name: minikube
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      args: [get-token, \"--id\", '12']
      command: login
      env: null
      interactiveMode: IfAvailable
";

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

fn merge(folder: &Folder, args: &[&str]) -> Output {
    let mut command = folder.kgen();
    command
        .env_remove("KUBECONFIG")
        .env("HOME", folder.path("home"));
    command.args(["kubeconfig", "--merge"]).args(args);
    command.output().unwrap()
}

fn merged(folder: &Folder, args: &[&str]) -> String {
    let output = merge(folder, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    assert!(output.stdout.is_empty());
    text(&output)
}

fn meaning(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

fn item(config: &Value, section: &str, name: &str) -> Value {
    let items = config[section].as_array().unwrap();
    let found: Vec<&Value> = items.iter().filter(|i| i["name"] == name).collect();
    assert_eq!(found.len(), 1, "{section} {name}");
    found[0].clone()
}

fn mode(folder: &Folder, file: &str) -> u32 {
    fs::metadata(folder.path(file))
        .unwrap()
        .permissions()
        .mode()
        & 0o777
}

#[test]
fn what_is_in_it_is_kept_and_ours_added() {
    let folder = Folder::with(CLUSTER);
    folder.write("config", MINE);
    fs::set_permissions(folder.path("config"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = merged(&folder, &["config"]);
    assert!(told.contains("kgen: kept config as "), "{told}");
    assert!(
        told.contains("kubectl --context kubernetes-admin@test get nodes"),
        "{told}"
    );
    assert_eq!(folder.read("config.bak-1"), MINE);
    assert_eq!(
        (mode(&folder, "config"), mode(&folder, "config.bak-1")),
        (0o600, 0o600)
    );
    assert!(!folder.path("config.lock").exists());
    let (old, new) = (meaning(MINE), meaning(&folder.read("config")));
    for section in ["clusters", "contexts", "users"] {
        assert_eq!(
            item(&new, section, "minikube"),
            item(&old, section, "minikube")
        );
        assert_eq!(new[section].as_array().unwrap().len(), 2);
    }
    for key in ["current-context", "preferences", "kind", "apiVersion"] {
        assert_eq!(new[key], old[key], "{key}");
    }
    // Ours is what is printed.
    let printed = meaning(&folder.user_data(&["kubeconfig"]));
    let name = "kubernetes-admin@test";
    assert_eq!(item(&new, "clusters", "test"), printed["clusters"][0]);
    assert_eq!(
        item(&new, "users", name)["user"],
        printed["users"][0]["user"]
    );
    assert_eq!(
        item(&new, "contexts", name)["context"],
        json!({"cluster": "test", "user": name})
    );
    // Again: nothing changes, and no copy is made.
    let before = folder.tree();
    assert_eq!(
        merged(&folder, &["config"]),
        "kgen: config is as it should be\n"
    );
    assert_eq!(folder.tree(), before);
    let told = merged(&folder, &["config", "--use"]);
    assert!(told.contains("which is the current one now"), "{told}");
    assert_eq!(meaning(&folder.read("config"))["current-context"], name);
    assert!(folder.path("config.bak-2").exists());
}

/// kubectl itself reads what is written.
#[test]
fn kubectl_reads_it() {
    let folder = Folder::with(CLUSTER);
    folder.write("config", MINE);
    merged(
        &folder,
        &["config", "--super-admin", "--server", "10.0.0.10:7443"],
    );
    let kubectl = |args: &[&str]| {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .arg("--kubeconfig")
            .arg(folder.path("config"));
        command.output()
    };
    let Ok(output) = kubectl(&["config", "view", "--raw", "-o", "json"]) else {
        return skip("kubectl_reads_it", "there is no kubectl");
    };
    assert!(output.status.success(), "{}", text(&output));
    let view: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cluster = item(&view, "clusters", "test");
    assert_eq!(cluster["cluster"]["server"], "https://10.0.0.10:7443");
    let output = kubectl(&["config", "get-contexts", "-o", "name"]).unwrap();
    assert_eq!(text(&output), "kubernetes-super-admin@test\nminikube\n");
}

#[test]
fn where_there_is_none_one_is_made() {
    let folder = Folder::with(CLUSTER);
    let told = merged(&folder, &[]);
    assert!(told.contains("home/.kube/config has the context"), "{told}");
    assert!(told.contains("which is the current one now"), "{told}");
    assert_eq!(mode(&folder, "home/.kube/config"), 0o600);
    assert_eq!(mode(&folder, "home/.kube"), 0o700);
    let config = meaning(&folder.read("home/.kube/config"));
    assert_eq!(config["current-context"], "kubernetes-admin@test");
    assert_eq!(config["kind"], "Config");
    // The first of several, as kubectl does.
    folder.write("first", "");
    let mut command = folder.kgen();
    command.env("KUBECONFIG", ":first:second");
    let output = command.args(["kubeconfig", "--merge"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(meaning(&folder.read("first")), config);
}

#[test]
fn a_link_stays_a_link() {
    let folder = Folder::with(CLUSTER);
    folder.write("real", MINE);
    symlink(folder.path("real"), folder.path("config")).unwrap();
    merged(&folder, &["config"]);
    assert!(
        fs::symlink_metadata(folder.path("config"))
            .unwrap()
            .is_symlink()
    );
    assert!(folder.read("real").contains("kubernetes-admin@test"));
}

#[test]
fn what_is_ours_is_brought_up_to_date_and_the_rest_of_it_kept() {
    let folder = Folder::with(CLUSTER);
    merged(&folder, &["config"]);
    let with_more = folder
        .read("config")
        .replace(
            "    user: kubernetes-admin@test\n",
            "    user: kubernetes-admin@test\n    namespace: mine\n",
        )
        .replace(
            "    server:",
            "    proxy-url: socks5://localhost:1080\n    server:",
        );
    assert_eq!(
        with_more.lines().count(),
        folder.read("config").lines().count() + 2
    );
    folder.write("config", &with_more);
    // A renewed certificate, an authority half replaced, another address.
    for args in [
        &["certs", "renew", "admin"][..],
        &["certs", "rotate-ca", "cluster", "--stage", "prepare"],
    ] {
        folder.run(args);
        let told = merged(&folder, &["config", "--server", "lb.example.com"]);
        assert!(told.contains("does not name lb.example.com"), "{told}");
    }
    let config = meaning(&folder.read("config"));
    let cluster = &item(&config, "clusters", "test")["cluster"];
    assert_eq!(cluster["proxy-url"], "socks5://localhost:1080");
    assert_eq!(cluster["server"], "https://lb.example.com:6443");
    let printed = meaning(&folder.user_data(&["kubeconfig"]));
    assert_eq!(
        cluster["certificate-authority-data"],
        printed["clusters"][0]["cluster"]["certificate-authority-data"]
    );
    let context = item(&config, "contexts", "kubernetes-admin@test");
    assert_eq!(context["context"]["namespace"], "mine");
    folder.run(&[
        "certs",
        "rotate-ca",
        "cluster",
        "--stage",
        "switch",
        "--now",
    ]);
    merged(&folder, &["config"]);
}

#[test]
fn names_that_others_have_are_refused() {
    let (one, two) = (Folder::with(CLUSTER), Folder::with(CLUSTER));
    let config = one.path("config").display().to_string();
    merged(&one, &[&config]);
    let before = one.tree();
    let output = merge(&two, &[&config]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("the cluster test is there, with another authority"),
        "{told}"
    );
    assert!(told.contains("--context NAME"), "{told}");
    assert_eq!(one.tree(), before);
    merged(&two, &[&config, "--context", "second"]);
    let both = meaning(&one.read("config"));
    let second = item(&both, "contexts", "second");
    assert_eq!(
        second["context"],
        json!({"cluster": "second", "user": "kubernetes-admin@second"})
    );
    assert_eq!(both["current-context"], "kubernetes-admin@test");
    // A context or a user of that name, for something else.
    for (mine, why) in [
        (
            "contexts: [{name: mine, context: {cluster: x, user: y}}]\n",
            "the context mine is there, for another cluster",
        ),
        (
            "users: [{name: kubernetes-admin@mine, user: {token: abc}}]\n",
            "the user kubernetes-admin@mine is there",
        ),
    ] {
        one.write("config", mine);
        let output = merge(&one, &[&config, "--context", "mine"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(why), "{}", text(&output));
        assert_eq!(one.read("config"), mine);
    }
}

#[test]
fn what_is_no_kubeconfig_is_left_alone_and_not_shown() {
    let folder = Folder::with(CLUSTER);
    for (mine, why) in [
        ("a: [hunter2", "config:1:"),
        ("- hunter2\n", "is no kubeconfig"),
        ("kind: Secret\ndata: {a: hunter2}\n", "its kind is another"),
        ("users: hunter2\n", "users: is not a list"),
    ] {
        folder.write("config", mine);
        let output = merge(&folder, &["config"]);
        let told = text(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(why) && !told.contains("hunter2"), "{told}");
        assert_eq!(folder.read("config"), mine);
        assert!(!folder.path("config.bak-1").exists());
        assert!(!folder.path("config.lock").exists());
    }
    // Another program is at it.
    folder.write("config", MINE);
    folder.write("config.lock", "");
    let output = merge(&folder, &["config"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("config.lock: is there"),
        "{}",
        text(&output)
    );
    assert!(folder.path("config.lock").exists());
    assert_eq!(folder.read("config"), MINE);
}
