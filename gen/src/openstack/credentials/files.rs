//! Where credentials are looked for: the environment and files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use zeroize::Zeroizing;

use crate::report::{Finding, Report, Source};
use crate::secret::Secret;
use crate::yaml::{self, Node};

/// Endings of files, in the order in which they are tried.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// Variables that choose, and are no credentials.
const CHOICES: [&str; 5] = [
    "OS_CLOUD",
    "OS_CLIENT_CONFIG_FILE",
    "OS_CLIENT_SECURE_FILE",
    "OS_REGION_NAME",
    "OS_CACERT",
];
/// Keys beside `auth` that are read.
const PLAIN: [&str; 10] = [
    "auth_type",
    "region_name",
    "interface",
    "endpoint_type",
    "cacert",
    "verify",
    "insecure",
    "network_endpoint_override",
    "default_domain",
    "profile",
];

/// The variables of a process, and where it is.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: BTreeMap<String, Secret>,
    /// Folders in which clouds.yaml is looked for, in this order.
    folders: Vec<PathBuf>,
    home: Option<PathBuf>,
}

impl Environment {
    /// That of this process. Variables that are empty are as good as absent.
    pub fn of_process() -> Self {
        let variables: BTreeMap<String, Secret> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, value)| name.starts_with("OS_") && !value.is_empty())
            .map(|(name, value)| (name, Secret::from(value)))
            .collect();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.filter(|folder| folder.is_absolute());
        let folders = [
            Some(PathBuf::new()),
            config.map(|folder| folder.join("openstack")),
            home.as_ref().map(|folder| folder.join(".config/openstack")),
            Some(PathBuf::from("/etc/xdg/openstack")),
            Some(PathBuf::from("/etc/openstack")),
        ];
        Self {
            variables,
            folders: folders.into_iter().flatten().collect(),
            home,
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).and_then(Secret::expose_text)
    }

    /// The first file of a name that there is, `variable`'s before all.
    fn file(&self, variable: &str, stem: &str) -> Result<Option<(PathBuf, Zeroizing<String>)>> {
        let named = self.get(variable).map(PathBuf::from);
        let in_folders = self
            .folders
            .iter()
            .flat_map(|folder| ENDINGS.map(|ending| folder.join(format!("{stem}.{ending}"))));
        for path in named.into_iter().chain(in_folders) {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Some((path, Zeroizing::new(text)))),
                Err(error) if absent(&error) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("reading {}", path.display()));
                }
            }
        }
        Ok(None)
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// One cloud, as it was typed.
#[derive(Debug, Clone)]
pub struct Cloud {
    /// Where it was read from.
    pub source: String,
    auth: BTreeMap<String, Secret>,
    plain: BTreeMap<String, Secret>,
}

impl Cloud {
    /// The value of a key below `auth`.
    pub fn auth(&self, key: &str) -> Option<&str> {
        self.auth.get(key).and_then(Secret::expose_text)
    }

    /// The value of a key beside `auth`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.plain.get(key).and_then(Secret::expose_text)
    }

    /// Whether certificates are not to be looked at.
    pub fn is_insecure(&self) -> bool {
        let is = |key: &str, words: [&str; 4]| {
            let value = self.text(key).map(str::to_ascii_lowercase);
            value.is_some_and(|value| words.contains(&value.as_str()))
        };
        is("verify", ["false", "no", "off", "0"]) || is("insecure", ["true", "yes", "on", "1"])
    }

    /// Takes over what a node of clouds.yaml says.
    fn lay(&mut self, node: &Node) {
        for (key, value) in node.entries() {
            if let Some(text) = value.text().filter(|text| !text.is_empty()) {
                self.plain
                    .insert(key.text.clone(), Secret::from(text.to_owned()));
            }
        }
        // Older files have these beside auth.
        for (key, value) in node.get("auth").map_or(&[][..], Node::entries) {
            if let Some(text) = value.text().filter(|text| !text.is_empty()) {
                self.auth
                    .insert(key.text.clone(), Secret::from(text.to_owned()));
            }
        }
        for key in [
            "username",
            "password",
            "auth_url",
            "project_name",
            "project_id",
            "token",
        ] {
            if let (Some(text), None) = (node.string(key), self.auth.get(key)) {
                self.auth
                    .insert(key.to_owned(), Secret::from(text.to_owned()));
            }
        }
        // What projects were called once.
        for (old, new) in [("tenant_name", "project_name"), ("tenant_id", "project_id")] {
            if let (Some(value), None) = (self.auth.get(old).cloned(), self.auth.get(new)) {
                self.auth.insert(new.to_owned(), value);
            }
        }
    }
}

/// The cloud that is meant: `asked`, else that of `OS_CLOUD`, else the variables
/// `OS_…`, else the only one of clouds.yaml.
pub fn load(environment: &Environment, asked: Option<&str>) -> Result<Cloud> {
    let mut cloud = find(environment, asked)?;
    let beneath = cloud
        .text("cacert")
        .and_then(|path| path.strip_prefix("~/"));
    if let (Some(path), Some(home)) = (beneath, &environment.home) {
        let path = home.join(path).display().to_string();
        cloud.plain.insert("cacert".to_owned(), Secret::from(path));
    }
    Ok(cloud)
}

fn find(environment: &Environment, asked: Option<&str>) -> Result<Cloud> {
    let name = asked.or(environment.get("OS_CLOUD"));
    let is_typed = |name: &&String| !CHOICES.contains(&name.as_str());
    let has_variables = environment.variables.keys().any(|name| is_typed(&name));
    if name == Some("envvars") || (name.is_none() && has_variables) {
        return Ok(of_variables(environment));
    }
    let Some((path, text)) = environment.file("OS_CLIENT_CONFIG_FILE", "clouds")? else {
        let looked = "there is no clouds.yaml here, in ~/.config/openstack or in /etc/openstack";
        let message = match name {
            Some(name) => format!("cloud {name}: {looked}"),
            None => format!("no credentials: no variable OS_… is set, and {looked}"),
        };
        let help = "source the project's openrc file, or download clouds.yaml where the cloud's \
                    dashboard has API access";
        return Err(Report::from(Finding::new(message).help(help)).into());
    };
    let root = parse(&path, &text)?;
    let clouds = root.get("clouds").map_or(&[][..], Node::entries);
    let names: Vec<&str> = clouds.iter().map(|(key, _)| key.text.as_str()).collect();
    let named = |message: String| {
        let help = format!(
            "it has {}: name one with --os-cloud or OS_CLOUD",
            names.join(", ")
        );
        Report::from(Finding::new(message).help(help))
    };
    let found = match (name, clouds) {
        (Some(name), _) => clouds.iter().find(|(key, _)| key.text == name),
        (None, [only]) => Some(only),
        (None, _) => {
            let message = format!("{}: has {} clouds", path.display(), clouds.len());
            return Err(named(message).into());
        }
    };
    let Some((key, node)) = found else {
        let name = name.unwrap_or_default();
        return Err(named(format!("{}: has no cloud {name}", path.display())).into());
    };
    let mut cloud = Cloud {
        source: format!("{}: clouds.{}", path.display(), key.text),
        auth: BTreeMap::new(),
        plain: BTreeMap::new(),
    };
    cloud.lay(node);
    if let Some((path, text)) = environment.file("OS_CLIENT_SECURE_FILE", "secure")? {
        let secure = parse(&path, &text)?;
        if let Some(node) = secure.get("clouds").and_then(|c| c.get(&key.text)) {
            cloud.lay(node);
        }
    }
    if cloud.text("profile").is_some() && cloud.auth("auth_url").is_none() {
        let message = format!("{}: profile: kgen knows no vendors' profiles", cloud.source);
        let help = "write auth.auth_url, and region_name, into it";
        return Err(Report::from(Finding::new(message).help(help)).into());
    }
    // What openrc files leave behind for choosing.
    for (variable, key) in [
        ("OS_REGION_NAME", "region_name"),
        ("OS_INTERFACE", "interface"),
        ("OS_CACERT", "cacert"),
        ("OS_INSECURE", "insecure"),
    ] {
        if let Some(value) = environment.get(variable) {
            cloud
                .plain
                .insert(key.to_owned(), Secret::from(value.to_owned()));
        }
    }
    Ok(cloud)
}

fn of_variables(environment: &Environment) -> Cloud {
    let mut cloud = Cloud {
        source: "the environment".to_owned(),
        auth: BTreeMap::new(),
        plain: BTreeMap::new(),
    };
    for (name, value) in &environment.variables {
        let key = name.trim_start_matches("OS_").to_ascii_lowercase();
        let key = match key.as_str() {
            "tenant_name" => "project_name".to_owned(),
            "tenant_id" => "project_id".to_owned(),
            "url" => "endpoint".to_owned(),
            _ => key,
        };
        let part = if PLAIN.contains(&key.as_str()) {
            &mut cloud.plain
        } else {
            &mut cloud.auth
        };
        part.insert(key, value.clone());
    }
    cloud
}

/// Parses a file; where that fails, its place is told and not its text.
fn parse(path: &Path, text: &str) -> Result<Node, Report> {
    let source = Source::new(path.display().to_string(), text.to_owned());
    source.hide(0..text.len());
    yaml::parse(&source)
}
