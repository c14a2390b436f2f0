//! What machines are given besides Kubernetes: the proxy, the clock, registries,
//! logins, and the operator's own files, units, packages and scripts.
//!
//! There are secrets in it, each as a [`Secret`]; this is why it is kept beside
//! the cluster and not in it.

use std::collections::BTreeMap;
use std::fmt;

use units::types::{FileMode, NodeName, Role};

use crate::report::{Finding, Place};
use crate::secret::Secret;

/// The operating system's side of the settings.
#[derive(Debug, Clone, Default)]
pub struct System {
    /// How machines reach what is outside.
    pub proxy: Option<Proxy>,
    /// Time servers, names or addresses; empty: those of the image.
    pub ntp_servers: Vec<String>,
    /// Image registries that need more than their name.
    pub registries: Vec<Registry>,
    /// Who may log in.
    pub ssh: Ssh,
    /// What every machine gets.
    pub all: Extras,
    /// What the machines of a role get besides.
    pub roles: BTreeMap<Role, Extras>,
    /// What a machine gets besides.
    pub machines: BTreeMap<NodeName, Extras>,
    /// Objects that masters keep in the cluster, by file.
    pub manifests: Vec<Manifest>,
}

/// A file of objects of the operator's own.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its name, without the ending.
    pub name: String,
    /// Its bytes, which are YAML.
    pub bytes: Secret,
    /// Whether there is a Secret among its objects.
    pub is_secret: bool,
    /// Where it was named.
    pub origin: Origin,
}

impl System {
    /// What a machine gets, from the least to the most specific. A machine that
    /// has no name of its own yet gets what its role gets.
    pub fn extras<'s>(
        &'s self,
        role: Role,
        name: Option<&NodeName>,
    ) -> impl Iterator<Item = &'s Extras> + use<'s> {
        let own = name.and_then(|name| self.machines.get(name));
        std::iter::once(&self.all)
            .chain(self.roles.get(&role))
            .chain(own)
    }
}

/// Where in the settings something was typed, for what later stages find.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `files[0]`.
    pub path: String,
    /// The place.
    pub place: Place,
}

impl Origin {
    /// A finding about what was typed there.
    pub fn finding(&self, message: impl fmt::Display) -> Finding {
        Finding::new(format!("{}: {message}", self.path)).at(self.place.clone())
    }
}

/// The HTTP proxy.
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    /// For `http://`; a URL, perhaps with a password.
    pub http: Option<Secret>,
    /// For `https://`.
    pub https: Option<Secret>,
    /// What is reached without it, besides what belongs to the cluster.
    pub no_proxy: Vec<String>,
}

/// An image registry. Source: containerd, docs/hosts.md.
#[derive(Debug, Clone)]
pub struct Registry {
    /// `HOST[:PORT]` as in images' names, or `_default` for all others.
    pub host: String,
    /// Where it really is; absent: at its host.
    pub server: Option<String>,
    /// Tried before it, in this order.
    pub mirrors: Vec<Mirror>,
    /// How it is spoken to.
    pub access: Access,
}

/// Another place for a registry's images.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Its URL.
    pub url: String,
    /// What it is trusted with: `pull`, `resolve`, `push`.
    pub capabilities: Vec<&'static str>,
    /// Whether the URL has the API's root in it, as with Harbor's projects.
    pub override_path: bool,
    /// How it is spoken to.
    pub access: Access,
}

/// How a registry or a mirror is spoken to.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who logs in.
    pub login: Option<Login>,
    /// The authority of its certificate, PEM.
    pub ca: Option<String>,
    /// Whether its certificate is not looked at.
    pub skip_verify: bool,
}

/// A name and a password.
#[derive(Debug, Clone)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// Who may log in by ssh.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// The account; absent: the one that the image has for this.
    pub user: Option<String>,
    /// Public keys, as in authorized_keys.
    pub authorized_keys: Vec<String>,
}

impl Ssh {
    /// The same; without keys, of nobody.
    pub fn of_use(&self) -> Self {
        if self.authorized_keys.is_empty() {
            return Self::default();
        }
        self.clone()
    }
}

/// The operator's own.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Files.
    pub files: Vec<ExtraFile>,
    /// Units.
    pub units: Vec<ExtraUnit>,
    /// Packages of the distribution.
    pub packages: Vec<Package>,
    /// Scripts.
    pub hooks: Hooks,
}

impl Extras {
    /// Where the first of it was typed; none if there is nothing.
    pub fn first(&self) -> Option<&Origin> {
        let files = self.files.iter().map(|file| &file.origin);
        let units = self.units.iter().map(|unit| &unit.origin);
        let packages = self.packages.iter().map(|package| &package.origin);
        let hooks = [&self.hooks.before_knode, &self.hooks.after_ready];
        let hooks = hooks.into_iter().flatten().map(|hook| &hook.origin);
        files.chain(units).chain(packages).chain(hooks).next()
    }
}

/// A file.
#[derive(Debug, Clone)]
pub struct ExtraFile {
    /// The absolute path.
    pub path: String,
    /// The permission bits.
    pub mode: FileMode,
    /// Whose it is; absent: root's.
    pub owner: Option<Owner>,
    /// The bytes, and whether they may be shown.
    pub content: ExtraContent,
    /// Where it was typed.
    pub origin: Origin,
}

/// Bytes of the operator's.
#[derive(Debug, Clone)]
pub struct ExtraContent {
    /// The bytes.
    pub bytes: Secret,
    /// Whether nobody is shown them.
    pub is_secret: bool,
}

/// An owner: `USER` or `USER:GROUP`, names or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: String,
    /// The group; the user's own name or number where none was typed.
    pub group: String,
}

impl Owner {
    /// root, whose everything is by default.
    pub const ROOT: &'static str = "root:root";

    /// The user and the group that are named, and not given as numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [self.user.as_str(), self.group.as_str()]
            .into_iter()
            .filter(|name| name.parse::<u32>().is_err())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

/// A unit of systemd's.
#[derive(Debug, Clone)]
pub struct ExtraUnit {
    /// Its name: `backup.timer`.
    pub name: String,
    /// The unit itself; absent where the image has it.
    pub content: Option<ExtraContent>,
    /// Drop-ins, by the names of their files.
    pub drop_ins: Vec<(String, ExtraContent)>,
    /// Whether it is enabled, as its [Install] says.
    pub enable: bool,
    /// Whether it is started when the machine's target is.
    pub start: bool,
    /// Where it was typed.
    pub origin: Origin,
}

/// A package of the distribution.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name, as the distribution's program takes it.
    pub name: String,
    /// Where it was typed.
    pub origin: Origin,
}

/// Scripts that run at certain moments of a boot.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Before knode begins.
    pub before_knode: Option<Hook>,
    /// When the machine's Node is Ready.
    pub after_ready: Option<Hook>,
}

/// A script.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Its text.
    pub content: ExtraContent,
    /// Where it was typed.
    pub origin: Origin,
}
