//! What a plan says, in the form in which rules ask for it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use units::node_config::Service;
use units::paths;

use crate::plan::{Content, NodePlan, PlannedFile};

/// One machine's plan.
#[derive(Debug)]
pub struct Facts {
    /// Permission bits by path.
    modes: BTreeMap<String, u32>,
    /// Whether there is key material in a file, by path.
    secret: BTreeMap<String, bool>,
    /// Flags by service.
    flags: BTreeMap<Service, BTreeMap<String, String>>,
    /// Units by path.
    units: BTreeMap<String, String>,
    /// Configuration files by path.
    files: BTreeMap<&'static str, Value>,
}

/// The services with flags of their own.
const WITH_FLAGS: [Service; 3] = [
    Service::KubeApiserver,
    Service::KubeControllerManager,
    Service::KubeScheduler,
];
/// The files whose contents are asked for.
const READ: [&str; 7] = [
    paths::NODE_CONFIG,
    paths::KUBELET_CONFIG,
    paths::KUBE_PROXY_CONFIG,
    paths::ETCD_CONFIG,
    "/etc/kubernetes/authentication.yaml",
    "/etc/kubernetes/audit-policy.yaml",
    "/etc/kubernetes/encryption.yaml",
];

impl Facts {
    /// Reads a plan.
    pub fn of(plan: &NodePlan) -> Result<Self> {
        let mut facts = Self {
            modes: BTreeMap::new(),
            secret: BTreeMap::new(),
            flags: BTreeMap::new(),
            units: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        for file in &plan.files {
            facts.modes.insert(file.path.clone(), file.mode.bits());
            let secret = matches!(file.content, Content::Secret(_));
            facts.secret.insert(file.path.clone(), secret);
            if let Content::Public(text) = &file.content
                && file.path.ends_with(".service")
            {
                facts.units.insert(file.path.clone(), text.to_string());
            }
        }
        for path in READ {
            if let Some(file) = plan.file(path) {
                facts.files.insert(path, yaml(file)?);
            }
        }
        for service in WITH_FLAGS {
            let folder = format!("/etc/systemd/system/{}.d/", service.unit());
            let drop_ins = plan.files.iter().filter(|f| f.path.starts_with(&folder));
            for file in drop_ins {
                let flags = facts.flags.entry(service).or_default();
                flags.extend(flags_in(file));
            }
            let manifest = format!("{}/{service}.yaml", paths::STATIC_PODS);
            if let Some(file) = plan.file(&manifest) {
                let flags = facts.flags.entry(service).or_default();
                flags.extend(flags_of_pod(&yaml(file)?));
            }
        }
        Ok(facts)
    }

    /// Whether the machine runs a service.
    pub fn runs(&self, service: Service) -> bool {
        self.is_among("services", service) || self.in_pod(service)
    }

    /// Whether the machine runs a service as a static pod.
    pub fn in_pod(&self, service: Service) -> bool {
        self.is_among("staticPods", service)
    }

    fn is_among(&self, list: &str, service: Service) -> bool {
        let name = service.to_string();
        self.at(paths::NODE_CONFIG, list)
            .as_array()
            .is_some_and(|services| services.iter().any(|s| *s == name.as_str()))
    }

    /// A flag's value; none where it is not given.
    pub fn flag(&self, service: Service, flag: &str) -> Option<&str> {
        self.flags.get(&service)?.get(flag).map(String::as_str)
    }

    /// Whether a unit has a line.
    pub fn says(&self, unit: &str, line: &str) -> bool {
        let text = self.units.get(unit).map_or("", String::as_str);
        text.lines().any(|l| l.trim() == line)
    }

    /// What stands in a file at a path of keys with dots; null where nothing does.
    pub fn at(&self, file: &str, path: &str) -> &Value {
        let mut value = self.files.get(file).unwrap_or(&Value::Null);
        for key in path.split('.') {
            value = &value[key];
        }
        value
    }

    /// A file's permission bits; none where there is no such file.
    pub fn mode(&self, path: &str) -> Option<u32> {
        self.modes.get(path).copied()
    }

    /// All files: path, permission bits, and whether there are keys in it.
    pub fn files(&self) -> impl Iterator<Item = (&str, u32, bool)> {
        self.modes.iter().map(|(path, mode)| {
            let secret = self.secret.get(path).copied().unwrap_or(true);
            (path.as_str(), *mode, secret)
        })
    }
}

fn yaml(file: &PlannedFile) -> Result<Value> {
    let text = std::str::from_utf8(file.content.bytes())
        .with_context(|| format!("{} is not text", file.path))?;
    // The reader's own error would show the lines around it, keys too.
    serde_yaml::from_str(text).map_err(|_| anyhow::anyhow!("{} is not readable", file.path))
}

/// The flags of a pod's one container, as the kubelet hands them over.
fn flags_of_pod(pod: &Value) -> BTreeMap<String, String> {
    let command = pod["spec"]["containers"][0]["command"].as_array();
    let arguments = command.into_iter().flatten().filter_map(Value::as_str);
    arguments
        .filter_map(|argument| {
            let (flag, value) = argument.strip_prefix("--")?.split_once('=')?;
            Some((flag.to_owned(), value.replace("$$", "$")))
        })
        .collect()
}

/// The flags of an ExecStart with one argument a line.
fn flags_in(file: &PlannedFile) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(file.content.bytes()).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let line = line.trim().trim_end_matches('\\').trim_end();
            let flag = line.trim_matches('"').strip_prefix("--")?;
            let (flag, value) = flag.split_once('=')?;
            Some((flag.to_owned(), value.to_owned()))
        })
        .collect()
}
