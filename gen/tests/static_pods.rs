//! The control plane as static pods of the masters' kubelets. (P36)

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::landing::Landing;
use common::{CLUSTER, Folder};
use serde::Deserialize;
use serde_json::{Value, json};
use units::node_config::Service;

const STACKED: &str = "\
name: test
nodes:
- {name: master, role: master, address: 10.0.0.10}
- {name: node-1, role: node, address: 10.0.0.11}
";
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const CONTROL_PLANE: [&str; 3] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// core/v1 Pod, as far as we write it: a key that is none of a Pod's at its
/// place is an error, as it is to the API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Pod {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    host_network: bool,
    priority: i32,
    priority_class_name: String,
    security_context: Value,
    containers: [Container; 1],
    volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Container {
    name: String,
    image: String,
    image_pull_policy: String,
    command: Vec<String>,
    #[serde(default)]
    env: Vec<BTreeMap<String, String>>,
    resources: Value,
    security_context: Value,
    liveness_probe: Probe,
    readiness_probe: Probe,
    startup_probe: Probe,
    volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Probe {
    http_get: HttpGet,
    #[serde(default)]
    initial_delay_seconds: u32,
    period_seconds: u32,
    timeout_seconds: u32,
    failure_threshold: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpGet {
    host: String,
    port: u16,
    path: String,
    scheme: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: String,
    read_only: bool,
}

impl Pod {
    fn container(&self) -> &Container {
        &self.spec.containers[0]
    }

    /// What a program sees of the machine: path in the pod → path of the
    /// machine, its kind, and whether it is written to.
    fn mounts(&self) -> BTreeMap<String, (String, String, bool)> {
        let volumes = self.spec.volumes.iter();
        let volumes: BTreeMap<_, _> = volumes.map(|v| (&v.name, &v.host_path)).collect();
        assert_eq!(volumes.len(), self.spec.volumes.len(), "a name twice");
        let mounts = self.container().volume_mounts.iter();
        mounts
            .map(|mount| {
                let host = volumes[&mount.name];
                let kind = host.get("type").cloned().unwrap_or_default();
                (
                    mount.mount_path.clone(),
                    (host["path"].clone(), kind, !mount.read_only),
                )
            })
            .collect()
    }

    fn flags(&self) -> BTreeSet<String> {
        let flags = self.container().command.iter().skip(1);
        flags.map(|flag| flag.replace("$$", "$")).collect()
    }
}

fn static_pods(settings: &str) -> String {
    format!("controlPlane: static-pods\n{settings}")
}

fn master(folder: &Folder, args: &[&str]) -> Landing {
    Landing::of(&folder.user_data(&[&["--name", "master"], args].concat()))
}

fn pod(landing: &Landing, name: &str) -> Pod {
    serde_yaml::from_str(&landing.text(&format!("{MANIFESTS}/{name}.yaml"))).unwrap()
}

#[test]
fn masters_bring_pods_instead_of_services_in_every_language() {
    let folder = Folder::with(&static_pods(STACKED));
    let mut manifests = BTreeSet::new();
    for format in ["coreos", "cloud-init", "ignition"] {
        let landing = master(&folder, &["--format", format]);
        let config = landing.node_config();
        assert_eq!(
            config.services,
            [Service::Containerd, Service::Kubelet, Service::KubeProxy]
        );
        assert_eq!(
            config.static_pods,
            [
                Service::Etcd,
                Service::KubeApiserver,
                Service::KubeControllerManager,
                Service::KubeScheduler
            ]
        );
        let mut told = Vec::new();
        for service in &config.static_pods {
            let name = service.to_string();
            let path = format!("{MANIFESTS}/{name}.yaml");
            assert_eq!(landing.files[&path].0, 0o600, "{path}");
            assert!(config.manifest.iter().any(|entry| entry.path == path));
            let pod = pod(&landing, &name);
            assert_eq!((pod.api_version.as_str(), pod.kind.as_str()), ("v1", "Pod"));
            assert_eq!(pod.metadata.name, name);
            assert_eq!(pod.metadata.namespace, "kube-system");
            assert_eq!(pod.metadata.labels["tier"], "control-plane");
            assert!(pod.spec.host_network);
            assert_eq!(pod.spec.priority_class_name, "system-node-critical");
            assert_eq!(pod.spec.priority, 2_000_001_000);
            let profile = json!({"seccompProfile": {"type": "RuntimeDefault"}});
            assert_eq!(pod.spec.security_context, profile);
            let container = pod.container();
            assert_eq!(container.name, name);
            assert_eq!(container.command[0], name);
            assert_eq!(container.image_pull_policy, "IfNotPresent");
            assert_eq!(
                container.security_context["allowPrivilegeEscalation"],
                false
            );
            assert!(container.resources["requests"]["cpu"].is_string());
            assert!(container.env.is_empty());
            told.push(landing.text(&path));
            let unit = format!("{name}.service");
            let units = landing.files.keys().filter(|path| path.contains(&unit));
            assert_eq!(units.count(), 0, "{unit}");
        }
        manifests.insert(told);
        for artifact in &config.artifacts {
            for file in &artifact.files {
                assert!(
                    !file.path.contains("etcd")
                        && !CONTROL_PLANE.iter().any(|p| file.path.ends_with(p)),
                    "{}",
                    file.path
                );
            }
        }
        let kubelet: Value =
            serde_yaml::from_str(&landing.text("/etc/kubernetes/kubelet.yaml")).unwrap();
        assert_eq!(kubelet["staticPodPath"], MANIFESTS);
    }
    assert_eq!(manifests.len(), 1, "the languages differ");
    let node = Landing::of(&folder.user_data(&["--name", "node-1"]));
    assert!(node.node_config().static_pods.is_empty());
    assert!(!node.files.keys().any(|path| path.starts_with(MANIFESTS)));
}

/// One source of flags: the pods' are those of the drop-ins.
#[test]
fn flags_are_those_of_the_services() {
    let extra = "apiServer: {extraArgs: {v: '2', x: 'a b%$(HOME)', oidc-ca-file: /srv/oidc.crt}}\n\
                 controllerManager: {extraArgs: {secure-port: '10357'}}\n";
    let folder = Folder::with(&format!("{extra}{STACKED}"));
    let services = master(&folder, &[]);
    folder.write("cluster.yaml", &static_pods(&format!("{extra}{STACKED}")));
    let pods = master(&folder, &[]);
    for name in CONTROL_PLANE {
        let path = format!("/etc/systemd/system/{name}.service.d/10-kgen.conf");
        let text = services.text(&path);
        let of_service: BTreeSet<String> = text
            .lines()
            .filter_map(|line| {
                let line = line.trim().trim_end_matches(" \\").trim_matches('"');
                line.starts_with("--")
                    .then(|| line.replace("%%", "%").replace("$$", "$"))
            })
            .collect();
        let pod = pod(&pods, name);
        assert!(of_service.len() > 5, "{text}");
        assert_eq!(pod.flags(), of_service, "{name}");
    }
    let server = pod(&pods, "kube-apiserver");
    assert!(server.flags().contains("--x=a b%$(HOME)"));
    let mounts = server.mounts();
    assert_eq!(mounts["/srv/oidc.crt"].0, "/srv/oidc.crt");
    let controllers = pod(&pods, "kube-controller-manager");
    assert_eq!(controllers.container().liveness_probe.http_get.port, 10357);
    assert_eq!(
        services.text("/etc/kubernetes/etcd.yaml"),
        pods.text("/etc/kubernetes/etcd.yaml")
    );
}

#[test]
fn pods_see_what_they_need_and_nothing_else() {
    let folder = Folder::with(&static_pods(STACKED));
    let landing = master(&folder, &[]);
    let mounts = |name: &str| {
        let mounts = pod(&landing, name).mounts();
        let told = mounts.into_iter();
        told.map(|(path, (_, kind, written))| {
            let written = if written { " rw" } else { "" };
            format!("{path} {kind}{written}")
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(
        mounts("kube-apiserver"),
        [
            "/etc/kubernetes/audit-policy.yaml File",
            "/etc/kubernetes/authentication.yaml File",
            "/etc/kubernetes/encryption.yaml File",
            "/etc/kubernetes/pki Directory",
            "/etc/ssl/certs Directory",
            "/var/log/kubernetes DirectoryOrCreate rw",
        ]
    );
    assert_eq!(
        mounts("kube-controller-manager"),
        [
            "/etc/kubernetes/controller-manager.conf File",
            "/etc/kubernetes/pki Directory",
            "/etc/ssl/certs Directory",
            "/var/lib/kubelet/volumeplugins DirectoryOrCreate",
        ]
    );
    assert_eq!(
        mounts("kube-scheduler"),
        ["/etc/kubernetes/scheduler.conf File"]
    );
    assert_eq!(
        mounts("etcd"),
        [
            "/etc/kubernetes/etcd.yaml File",
            "/etc/kubernetes/pki/etcd Directory",
            "/var/lib/etcd Directory rw",
        ]
    );
    // Every file that is mounted is brought.
    for name in [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ] {
        for (path, (host, kind, _)) in pod(&landing, name).mounts() {
            if kind == "File" {
                assert!(landing.files.contains_key(&host), "{name}: {path}");
            }
        }
    }
}

#[test]
fn probes_ask_where_the_programs_answer() {
    let folder = Folder::with(&static_pods(&format!("endpoint: 10.0.0.10:443\n{STACKED}")));
    let landing = master(&folder, &[]);
    for (name, scheme, port, live, ready) in [
        ("etcd", "HTTP", 2381, "/livez", "/readyz"),
        ("kube-apiserver", "HTTPS", 443, "/livez", "/readyz"),
        (
            "kube-controller-manager",
            "HTTPS",
            10257,
            "/healthz",
            "/healthz",
        ),
        ("kube-scheduler", "HTTPS", 10259, "/healthz", "/healthz"),
    ] {
        let pod = pod(&landing, name);
        let container = pod.container();
        let (alive, serves) = (&container.liveness_probe, &container.readiness_probe);
        assert_eq!(alive.http_get.path, live, "{name}");
        assert_eq!(serves.http_get.path, ready, "{name}");
        for probe in [alive, serves, &container.startup_probe] {
            let get = &probe.http_get;
            assert_eq!((get.scheme.as_str(), get.port), (scheme, port), "{name}");
            assert_eq!(get.host, "127.0.0.1");
            assert!(probe.period_seconds >= 1 && probe.failure_threshold >= 3);
            assert!(probe.timeout_seconds > 1 && probe.initial_delay_seconds <= 10);
        }
    }
}

#[test]
fn images_come_from_where_the_operator_says() {
    let folder = Folder::with(&static_pods(STACKED));
    let image = |name: &str| pod(&master(&folder, &[]), name).container().image.clone();
    assert_eq!(
        image("kube-scheduler"),
        "registry.k8s.io/kube-scheduler:v1.36.1"
    );
    let etcd = image("etcd");
    let tag = etcd.strip_prefix("registry.k8s.io/etcd:3.");
    assert!(tag.is_some_and(|tag| tag.ends_with("-0")), "{etcd}");
    let images =
        "images: {registry: 'mirror.example.com:5000/k8s', etcd: 'quay.io/etcd:v3.6.14'}\n";
    folder.write("cluster.yaml", &static_pods(&format!("{images}{STACKED}")));
    assert_eq!(
        image("kube-apiserver"),
        "mirror.example.com:5000/k8s/kube-apiserver:v1.36.1"
    );
    assert_eq!(image("etcd"), "quay.io/etcd:v3.6.14");
    let pause = |landing: Landing| landing.node_config().runtime.unwrap().sandbox_image;
    assert_eq!(
        pause(master(&folder, &[])),
        "mirror.example.com:5000/k8s/pause:3.10.1"
    );
    let typed = format!("{images}runtime: {{sandboxImage: other/pause:1}}\n{STACKED}");
    folder.write("cluster.yaml", &static_pods(&typed));
    assert_eq!(pause(master(&folder, &[])), "other/pause:1");
}

#[test]
fn machines_for_etcd_alone_keep_the_service() {
    let folder = Folder::with(&static_pods(CLUSTER));
    let landing = master(&folder, &[]);
    let path = format!("{MANIFESTS}/etcd.yaml");
    assert!(!landing.files.contains_key(&path));
    assert!(!landing.node_config().static_pods.contains(&Service::Etcd));
    let server = pod(&landing, "kube-apiserver");
    assert!(
        server
            .flags()
            .contains("--etcd-servers=https://10.0.0.13:2379")
    );
    let etcd = Landing::of(&folder.user_data(&["--name", "etcd-1"]));
    let config = etcd.node_config();
    assert_eq!(config.services, [Service::Etcd]);
    assert!(config.static_pods.is_empty());
    assert!(etcd.files.contains_key("/etc/systemd/system/etcd.service"));
}

/// A proxy's password is read by root alone, as beside services.
#[test]
fn a_proxy_reaches_the_pods_that_may_need_it() {
    let proxy = "proxy: {http: 'http://kgen:hunter2@proxy.example.com:3128'}\n";
    let folder = Folder::with(&static_pods(&format!("{proxy}{STACKED}")));
    let landing = master(&folder, &[]);
    for (name, wanted) in [("kube-apiserver", true), ("kube-scheduler", false)] {
        let pod = pod(&landing, name);
        let env = &pod.container().env;
        let given = env.iter().any(|v| v["value"].contains("hunter2"));
        assert_eq!(given, wanted, "{name}");
        assert_eq!(landing.files[&format!("{MANIFESTS}/{name}.yaml")].0, 0o600);
    }
}

/// B14: the benchmark's score is no worse than that of services.
#[test]
fn hardening_is_judged_by_the_manifests() {
    let judged = |settings: &str, args: &[&str]| {
        let folder = Folder::with(settings);
        let output = folder
            .kgen()
            .args(["hardening", "--json"])
            .args(args)
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let count = |json: &Value| json["recommendations"].as_array().unwrap().len();
    let not_kept = |json: &Value| count(json) - json["kept"].as_u64().unwrap() as usize;
    let broken = |json: &Value| {
        let all = json["recommendations"].as_array().unwrap();
        let broken = all.iter().filter(|r| r["broken"].is_object());
        let ids: Vec<String> = broken.map(|r| r["id"].as_str().unwrap().into()).collect();
        ids
    };
    let services = judged(STACKED, &[]);
    let pods = judged(&static_pods(STACKED), &[]);
    assert_eq!(broken(&pods), [""; 0]);
    assert_eq!(
        count(&pods),
        count(&services) + 4,
        "1.1.1, 1.1.3, 1.1.5, 1.1.7"
    );
    assert_eq!(not_kept(&pods), not_kept(&services));
    for (set, id) in [
        ("apiServer.extraArgs.profiling=true", "1.2.15"),
        ("controllerManager.extraArgs.bind-address=0.0.0.0", "1.3.7"),
        ("etcd.config.data-dir=/srv/etcd", "1.1.11"),
    ] {
        let loose = judged(&static_pods(STACKED), &["--set", set]);
        assert_eq!(broken(&loose), [id], "{set}");
    }
}
