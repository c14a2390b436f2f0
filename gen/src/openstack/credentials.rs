//! How a cloud is reached, read from where every OpenStack client reads it:
//! clouds.yaml with secure.yaml, or variables `OS_…`.
//! Source: openstacksdk documentation, "Configuring OpenStack SDK Applications".
//!
//! Nothing that is read here is shown: errors name keys and variables alone.

mod files;

use std::fmt;
use std::path::PathBuf;

use crate::report::{Finding, Report};
use crate::secret::Secret;

pub use files::{Cloud, Environment, load};

/// How to become somebody.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A token of Keystone's for these.
    Keystone {
        /// Keystone's address, `/v3` at its end.
        url: String,
        /// Who it is.
        identity: Identity,
        /// For which project; absent: as the credential says itself.
        project: Option<Named>,
    },
    /// No Keystone: the address, and maybe a token that is sent as it is.
    Direct {
        /// Neutron's address.
        endpoint: String,
        /// What is sent as a token.
        token: Option<Secret>,
    },
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A user.
    Password {
        /// The user.
        user: Named,
        /// The password.
        password: Secret,
    },
    /// An application credential.
    ApplicationCredential {
        /// Its ID, or its name with its user.
        id: CredentialId,
        /// Its secret.
        secret: Secret,
    },
    /// Whoever has this token.
    Token(Secret),
}

/// What an application credential is found by.
#[derive(Debug, Clone)]
pub enum CredentialId {
    /// An ID.
    Id(String),
    /// A name, which is one user's.
    Name {
        /// The name.
        name: String,
        /// Whose it is.
        user: Named,
    },
}

/// A user or project: by ID, or by name within a domain.
#[derive(Debug, Clone)]
pub enum Named {
    /// An ID.
    Id(String),
    /// A name.
    Name {
        /// The name.
        name: String,
        /// The domain.
        domain: Domain,
    },
}

/// A domain.
#[derive(Debug, Clone)]
pub enum Domain {
    /// By ID.
    Id(String),
    /// By name.
    Name(String),
}

/// Everything that is needed to ask a cloud.
#[derive(Debug, Clone)]
pub struct Access {
    /// How to become somebody.
    pub auth: Auth,
    /// The region; absent: the only one that there is.
    pub region: Option<String>,
    /// Which of a service's addresses is taken: `public`, `internal`, `admin`.
    pub interface: String,
    /// Neutron's address, where the catalogue's is not to be taken.
    pub endpoint: Option<String>,
    /// The authority of the cloud's certificates; absent: the system's.
    pub authority: Option<PathBuf>,
    /// Where it was read from.
    pub source: String,
}

/// One key of credentials: in clouds.yaml below `auth`, and as a variable.
struct Key(&'static str);

impl Key {
    fn variable(&self) -> String {
        format!("OS_{}", self.0.to_ascii_uppercase())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "auth.{} ({})", self.0, self.variable())
    }
}

impl Access {
    /// Checks what was read, and says everything that is missing at once.
    pub fn new(cloud: &Cloud) -> Result<Self, Report> {
        let mut missing = Vec::new();
        let auth = auth(cloud, &mut missing);
        let mut report = Report::default();
        if !missing.is_empty() {
            let missing: Vec<String> = missing.iter().map(Key::to_string).collect();
            let message = format!("{}: missing: {}", cloud.source, missing.join(", "));
            let help = "source the project's openrc file, or name a cloud of clouds.yaml with \
                        --os-cloud or OS_CLOUD";
            report.add(Finding::new(message).help(help));
        }
        if cloud.is_insecure() {
            let message = format!(
                "{}: certificates would not be looked at (verify: false, OS_INSECURE)",
                cloud.source
            );
            let help = "who answers could be anybody, and would be given the password: name the \
                        cloud's authority in cacert or OS_CACERT";
            report.add(Finding::new(message).help(help));
        }
        let auth = match auth {
            Ok(auth) => auth,
            Err(kind) => {
                let message = format!("{}: auth_type {kind}: kgen does not know it", cloud.source);
                let help = "use password, v3applicationcredential, token, none or admin_token";
                report.add(Finding::new(message).help(help));
                None
            }
        };
        let interface = cloud.text("interface").or(cloud.text("endpoint_type"));
        let interface = interface.unwrap_or("public");
        let interface = interface.strip_suffix("URL").unwrap_or(interface);
        if !["public", "internal", "admin"].contains(&interface) {
            let message = format!(
                "{}: interface {interface:?} is none of public, internal, admin",
                cloud.source
            );
            report.add(Finding::new(message));
        }
        report.into_result()?;
        let Some(auth) = auth else {
            return Err(Finding::new(format!("{}: no credentials", cloud.source)).into());
        };
        Ok(Self {
            auth,
            region: cloud.text("region_name").map(str::to_owned),
            interface: interface.to_owned(),
            endpoint: cloud.text("network_endpoint_override").map(str::to_owned),
            authority: cloud.text("cacert").map(PathBuf::from),
            source: cloud.source.clone(),
        })
    }
}

/// What the type of authentication asks for; what of it is not there is in
/// `missing`. An unknown type is the error.
fn auth(cloud: &Cloud, missing: &mut Vec<Key>) -> Result<Option<Auth>, String> {
    let mut need = |key: &'static str| {
        let found = cloud.auth(key).map(str::to_owned);
        if found.is_none() {
            missing.push(Key(key));
        }
        found
    };
    let kind = match cloud.text("auth_type") {
        Some(kind) => kind,
        None if cloud.auth("application_credential_id").is_some()
            || cloud.auth("application_credential_name").is_some() =>
        {
            "v3applicationcredential"
        }
        None if cloud.auth("token").is_some() && cloud.auth("password").is_none() => "token",
        None => "password",
    };
    match kind {
        "none" | "noauth" => {
            let endpoint = need("endpoint");
            return Ok(endpoint.map(|endpoint| Auth::Direct {
                endpoint,
                token: None,
            }));
        }
        "admin_token" => {
            let (endpoint, token) = (need("endpoint"), need("token"));
            return Ok(endpoint.zip(token).map(|(endpoint, token)| Auth::Direct {
                endpoint,
                token: Some(Secret::from(token)),
            }));
        }
        _ => {}
    }
    let url = need("auth_url");
    let identity = match kind {
        "password" | "v3password" => {
            let user = named(cloud, "user_id", "username", "user");
            if user.is_none() {
                need("username");
            }
            let password = need("password");
            user.zip(password)
                .map(|(user, password)| Identity::Password {
                    user,
                    password: Secret::from(password),
                })
        }
        "v3applicationcredential" => {
            let id = cloud.auth("application_credential_id");
            let name = cloud.auth("application_credential_name");
            let id = match (id, name) {
                (Some(id), _) => Some(CredentialId::Id(id.to_owned())),
                (None, Some(name)) => {
                    let user = named(cloud, "user_id", "username", "user");
                    if user.is_none() {
                        need("username");
                    }
                    user.map(|user| CredentialId::Name {
                        name: name.to_owned(),
                        user,
                    })
                }
                (None, None) => {
                    need("application_credential_id");
                    None
                }
            };
            let secret = need("application_credential_secret");
            id.zip(secret)
                .map(|(id, secret)| Identity::ApplicationCredential {
                    id,
                    secret: Secret::from(secret),
                })
        }
        "token" | "v3token" => need("token").map(|token| Identity::Token(Secret::from(token))),
        other => return Err(other.to_owned()),
    };
    // An application credential is one project's by itself.
    let project = match identity {
        Some(Identity::ApplicationCredential { .. }) => None,
        _ => named(cloud, "project_id", "project_name", "project"),
    };
    if project.is_none() && matches!(kind, "password" | "v3password") {
        need("project_name");
    }
    Ok(url.zip(identity).map(|(url, identity)| Auth::Keystone {
        url: versioned(&url),
        identity,
        project,
    }))
}

/// A user or a project, by ID or by name; its domain, if nobody says, is that of
/// the user, or the one that every Keystone has.
fn named(cloud: &Cloud, id: &str, name: &str, what: &str) -> Option<Named> {
    if let Some(id) = cloud.auth(id) {
        return Some(Named::Id(id.to_owned()));
    }
    let name = cloud.auth(name)?.to_owned();
    let of = |whose: &str| {
        let key = |part: &str| format!("{whose}_domain_{part}");
        let id = cloud.auth(&key("id")).map(|id| Domain::Id(id.to_owned()));
        id.or_else(|| Some(Domain::Name(cloud.auth(&key("name"))?.to_owned())))
    };
    let plain = || {
        let id = cloud.auth("domain_id").map(|id| Domain::Id(id.to_owned()));
        id.or_else(|| Some(Domain::Name(cloud.auth("domain_name")?.to_owned())))
    };
    let default = || {
        let id = cloud
            .auth("default_domain_id")
            .or(cloud.text("default_domain"));
        Domain::Id(id.unwrap_or("default").to_owned())
    };
    let domain = of(what).or_else(|| of("user")).or_else(plain);
    Some(Named::Name {
        name,
        domain: domain.unwrap_or_else(default),
    })
}

/// Keystone's address with the version of its API that is spoken here.
fn versioned(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let url = url.strip_suffix("/v2.0").unwrap_or(url);
    if url.ends_with("/v3") {
        return url.to_owned();
    }
    format!("{url}/v3")
}
