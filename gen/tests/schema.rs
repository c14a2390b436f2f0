//! The JSON schema of cluster.yaml knows what the program reads, no more and no
//! less.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use boon::{Compiler, SchemaIndex, Schemas};
use common::Folder;
use kgen::commands::init::TEMPLATE;
use kgen::report::Source;
use kgen::settings;
use serde_json::Value;

const DOCS: &str = include_str!("../../docs/settings.md");

/// Every mapping that there can be, once.
const COMPLETE: &str = "\
nodes:
- {name: m, role: master, mac: 52:54:00:00:00:01, taints: [{key: a, effect: NoSchedule}],
   files: [{path: /etc/a, content: a}],
   units: [{name: a.service, start: true, dropIns: [{name: a.conf, content: a}]}],
   hooks: {}, kubelet: {}}
pools:
- {name: p, taints: [{key: a, effect: NoSchedule}], kubelet: {},
   files: [{path: /etc/a, content: a}],
   units: [{name: a.service, start: true, dropIns: [{name: a.conf, content: a}]}],
   hooks: {}}
docker: {}
ssh: {authorizedKeys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBZbfAqJaC5IZUUG35d9b9SRRvo82jvYblSpYtQtbVq1 ops]}
pxe: {server: 'http://boot:8080', images: {amd64: {}, arm64: {}}, dhcp: {interface: eth0, network: 10.0.0.0/24}}
azure: {subnets: [{name: a, range: 10.0.0.0/24}], sizes: {}, images: {}, pools: [{name: p}]}
openstack: {flavors: {}, pools: [{name: p}]}
roles:
  etcd:
    files: [{path: /etc/a, content: a}]
    units: [{name: a.service, start: true, dropIns: [{name: a.conf, content: a}]}]
    hooks: {}
  master:
    taints: [{key: a, effect: NoSchedule}]
    kubelet: {}
    files: [{path: /etc/a, content: a}]
    units: [{name: a.service, start: true, dropIns: [{name: a.conf, content: a}]}]
    hooks: {}
  node:
    taints: [{key: a, effect: NoSchedule}]
    kubelet: {}
    files: [{path: /etc/a, content: a}]
    units: [{name: a.service, start: true, dropIns: [{name: a.conf, content: a}]}]
    hooks: {}
files: [{path: /etc/a, content: a}]
units: [{name: a.service, start: true, dropIns: [{name: a.conf, content: a}]}]
hooks: {}
network: {}
hostAliases: [{ip: 10.0.0.1, hostnames: [a]}]
images: {}
addons: {dns: {stubDomains: {}}, metricsServer: {}, dashboard: {}, manifests: []}
runtime: {}
kubelet: {}
kubeProxy: {}
etcd: {snapshots: {}}
apiServer: {}
controllerManager: {}
scheduler: {}
proxy: {http: 'http://proxy:3128'}
ntp: {servers: [time]}
registries:
- host: a
  login: {username: a, password: b}
  mirrors: [{url: 'https://a', login: {username: a, password: b}}]
artifacts: {neighbours: true, versions: {}}
";

fn schema() -> Value {
    serde_json::from_str(settings::SCHEMA).unwrap()
}

/// The schema that a `$ref` stands for.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    match schema["$ref"].as_str() {
        Some(path) => root.pointer(path.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

/// The keys of every mapping with keys of our own, by its path.
fn walk(root: &Value, schema: &Value, path: &str, keys: &mut BTreeMap<String, BTreeSet<String>>) {
    let described = schema["description"].is_string();
    let schema = resolved(root, schema);
    assert!(
        described || schema["description"].is_string() || path.ends_with("[]"),
        "{path} is not described"
    );
    if let Some(properties) = schema["properties"].as_object() {
        assert_eq!(schema["additionalProperties"], false, "{path}");
        keys.insert(path.to_owned(), properties.keys().cloned().collect());
        for (key, property) in properties {
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            walk(root, property, &path, keys);
        }
    }
    if schema["items"].is_object() {
        walk(root, &schema["items"], &format!("{path}[]"), keys);
    }
}

#[test]
fn the_schema_and_the_program_know_the_same_keys() {
    let root = schema();
    let mut in_schema = BTreeMap::new();
    walk(&root, &root, "", &mut in_schema);
    let asked = settings::keys_asked_for(&Source::new("complete", COMPLETE)).unwrap();
    let asked: BTreeMap<String, BTreeSet<String>> = asked
        .into_iter()
        .map(|(path, keys)| (path, keys.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(in_schema, asked);
    assert!(asked["nodes[]"].contains("podCIDR"));
}

struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let id = "urn:kgen:cluster.yaml";
        compiler.add_resource(id, schema()).unwrap();
        let index = compiler.compile(id, &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn validate(&self, text: &str) -> Result<(), String> {
        let value: Value = serde_yaml::from_str(text).unwrap();
        self.schemas
            .validate(&value, self.index)
            .map_err(|error| format!("{error:#}"))
    }
}

/// The file with what is in its comments put into force.
fn uncommented(text: &str) -> String {
    let is_yaml = |line: &str| {
        let item = line.trim_start();
        let item = item.strip_prefix("- ").unwrap_or(item);
        let key = item.split_once(':').map_or("", |(key, _)| key);
        let word = |c: char| c.is_ascii_alphanumeric() || "-_./\"".contains(c);
        (!key.is_empty() && key.chars().all(word))
            || line.starts_with("  ")
            || line.starts_with("- ")
    };
    // The first line is for editors.
    let lines = text.lines().skip(1).map(|line| {
        let indent = line.len() - line.trim_start().len();
        match line[indent..].strip_prefix("# ") {
            Some(inner) if is_yaml(inner) => format!("{}{inner}\n", &line[..indent]),
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// The first settings file, as it is and with everything in it in force, is
/// valid for editors and for the program. (P1)
#[test]
fn the_file_that_init_writes_is_valid() {
    let validator = Validator::new();
    assert!(TEMPLATE.starts_with("# yaml-language-server: $schema="));
    let full = uncommented(TEMPLATE);
    assert!(full.contains("\n  config: {maxPods: 110}\n"), "{full}");
    for key in [
        "proxy:",
        "registries:",
        "hooks:",
        "artifacts:",
        "ssh:",
        "ntp:",
    ] {
        assert!(full.contains(&format!("\n{key}")), "{key}\n{full}");
    }
    for text in [TEMPLATE, &full] {
        validator.validate(text).unwrap();
        let folder = Folder::with(text);
        common::beside(&folder);
        folder.run(&["validate"]);
        folder.run(&["--role", "node", "--name", "node-2"]);
    }
}

#[test]
fn the_settings_in_the_documentation_are_valid() {
    let validator = Validator::new();
    let mut seen = 0;
    for block in DOCS.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        if block.contains("\nnodes:") {
            validator.validate(block).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 2, "{seen}");
}

/// What the program refuses for its form, the schema refuses too.
#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let validator = Validator::new();
    validator
        .validate("nodes: [{name: m, role: master}]")
        .unwrap();
    for wrong in [
        "nodes: []",
        "name: a",
        "nods: []",
        "nodes: [{name: M, role: master}]",
        "nodes: [{name: m}]",
        "nodes: [{name: m, role: boss}]",
        "format: docker",
        "kubernetesVersion: 1.33.0",
        "kubernetesVersion: 1.36",
        "network: {mtu: 100}",
        "network: {mode: bridge}",
        "runtime: {source: docker}",
        "kubelet: {confg: {}}",
        "proxy: {noProxy: []}",
        "files: [{path: etc/a, content: a}]",
        "files: [{path: /etc/a}]",
        "files: [{path: /etc/a, content: a, source: b}]",
        "units: [{name: a}]",
        "registries: [{host: a, mirrors: [{url: a}]}]",
        "artifacts: {versions: {kubelet: 1.36.1}}",
        "pools: [{labels: {a: b}}]",
        "pools: [{name: a, tokenTTL: 24}]",
        "nodeDocuments: both",
        "controlPlane: pods",
        "images: {registry: 'https://a'}",
        "images: {registry: ''}",
        "images: {etcd: ''}",
        "docker: {port: 0}",
        "addons: {dns: false}",
        "addons: {dns: {replicas: 0}}",
        "addons: {dns: {forward: []}}",
        "addons: {dns: {stubDomains: {a: []}}}",
        "addons: {metricsServer: {image: ''}}",
        "addons: {manifests: [a.txt]}",
        "roles: {worker: {}}",
        "azure: {location: West Europe}",
        "azure: {vnet: 10.0.0.0}",
        "azure: {resourceGroup: a/b}",
        "azure: {subnets: [{name: a}]}",
        "azure: {dnsLabel: 1a}",
        "azure: {sizes: {master: large}}",
        "azure: {images: {amd64: Debian}}",
        "azure: {zones: [4]}",
        "azure: {pools: [{count: 1}]}",
        "openstack: {cidr: 10.0.0.0}",
        "openstack: {apiAddress: master}",
        "openstack: {loadBalancer: haproxy}",
        "openstack: {serverGroups: affinity}",
        "openstack: {volumeGB: 1}",
        "openstack: {image: -v}",
        "openstack: {flavors: {nodes: a}}",
        "openstack: {pools: [{count: 1}]}",
        "nodes: [{name: m, role: master, mac: 52:54:00}]",
        "pxe: {}",
        "pxe: {server: boot}",
        "pxe: {server: 'http://a', images: {amd64: {kernel: a/b}}}",
        "pxe: {server: 'http://a', cmdline: 'a=$b'}",
        "pxe: {server: 'http://a', dhcp: {interface: eth0}}",
        "pxe: {server: 'http://a', dhcp: {interface: eth0, network: 10.0.0.0/24, range: 10.0.0.9}}",
    ] {
        let text = if wrong.starts_with("nod") || wrong == "name: a" {
            wrong.to_owned()
        } else {
            format!("{wrong}\nnodes: [{{name: m, role: master}}]")
        };
        assert!(validator.validate(&text).is_err(), "{wrong}");
        let source = Source::new("cluster.yaml", text);
        assert!(settings::load(&source).is_err(), "{wrong}");
    }
}

#[test]
fn the_schema_is_printed() {
    let folder = Folder::empty();
    let printed = folder.user_data(&["schema"]);
    let schema: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}
