//! The machines by role, as Ansible reads it.
//! Source: Ansible documentation, "How to build your inventory" and
//! "Developing dynamic inventory".

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use units::types::{InvalidValue, Role};

use crate::cluster::{Cluster, Machine};

/// In which language an inventory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// A static inventory in YAML.
    #[default]
    Yaml,
    /// A static inventory in INI.
    Ini,
    /// What a dynamic inventory's script prints with `--list`.
    Json,
}

impl Form {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Yaml, Self::Ini, Self::Json];

    /// The word on the command line, and the file's ending.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Ini => "ini",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Form {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let found = Self::ALL.into_iter().find(|form| form.as_str() == text);
        found.ok_or_else(|| InvalidValue(format!("unknown form {text:?}: use yaml, ini or json")))
    }
}

/// The group of groups that kubespray and others call the masters.
const CONTROL_PLANE: &str = "control_plane";

/// The groups and the machines in them; a group without machines is there
/// too, so that plays for it are not wrong.
fn groups(cluster: &Cluster) -> [(&'static str, Vec<&Machine>); 3] {
    [
        ("etcd", cluster.etcd_members().collect()),
        ("masters", cluster.of_role(Role::Master).collect()),
        ("nodes", cluster.of_role(Role::Node).collect()),
    ]
}

/// What is said of a machine. One without an address is reached by its name.
fn variables(machine: &Machine) -> Map<String, Value> {
    let mut variables = Map::new();
    if let Some(address) = machine.address() {
        variables.insert("ansible_host".to_owned(), json!(address));
    }
    variables.insert("node_addresses".to_owned(), json!(machine.addresses));
    variables.insert("node_arch".to_owned(), json!(machine.arch.as_str()));
    variables.insert("node_role".to_owned(), json!(machine.role.as_str()));
    variables.insert("pod_cidrs".to_owned(), json!(machine.pod_cidrs));
    variables
}

/// The inventory of a cluster.
pub fn write(cluster: &Cluster, form: Form) -> Result<String> {
    match form {
        Form::Yaml => yaml(cluster),
        Form::Ini => ini(cluster),
        Form::Json => {
            let text = serde_json::to_string_pretty(&list(cluster)).context("writing JSON")?;
            Ok(text + "\n")
        }
    }
}

fn yaml(cluster: &Cluster) -> Result<String> {
    let hosts: Map<String, Value> = cluster
        .machines
        .iter()
        .map(|machine| (machine.name.to_string(), variables(machine).into()))
        .collect();
    let mut children = Map::new();
    for (group, machines) in groups(cluster) {
        let members = machines.iter().map(|m| (m.name.to_string(), json!({})));
        let members: Map<String, Value> = members.collect();
        children.insert(group.to_owned(), json!({"hosts": members}));
    }
    let masters = json!({"children": {"masters": {}}});
    children.insert(CONTROL_PLANE.to_owned(), masters);
    let inventory = json!({"all": {"hosts": hosts, "children": children}});
    let options = serde_yaml::ser_options! { folded_wrap_chars: 1_000_000 };
    serde_yaml::to_string_with_options(&inventory, options).context("writing YAML")
}

fn ini(cluster: &Cluster) -> Result<String> {
    let mut text = String::new();
    for machine in &cluster.machines {
        text.push_str(machine.name.as_str());
        for (name, value) in variables(machine) {
            // Lists are read as Python's, within a word of a shell's.
            let value = match value {
                Value::String(value) => value,
                other => format!(
                    "'{}'",
                    serde_json::to_string(&other).context("writing JSON")?
                ),
            };
            text.push_str(&format!(" {name}={value}"));
        }
        text.push('\n');
    }
    for (group, machines) in groups(cluster) {
        text.push_str(&format!("\n[{group}]\n"));
        for machine in machines {
            text.push_str(&format!("{}\n", machine.name));
        }
    }
    text.push_str(&format!("\n[{CONTROL_PLANE}:children]\nmasters\n"));
    Ok(text)
}

fn list(cluster: &Cluster) -> Value {
    let mut all = Map::new();
    let machines = cluster.machines.iter();
    let hosts: Map<String, Value> = machines
        .map(|machine| (machine.name.to_string(), variables(machine).into()))
        .collect();
    all.insert("_meta".to_owned(), json!({"hostvars": hosts}));
    let mut names = Vec::new();
    for (group, machines) in groups(cluster) {
        let members: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
        all.insert(group.to_owned(), json!({"hosts": members}));
        names.push(group);
    }
    all.insert(CONTROL_PLANE.to_owned(), json!({"children": ["masters"]}));
    names.push(CONTROL_PLANE);
    all.insert("all".to_owned(), json!({"children": names}));
    all.into()
}
