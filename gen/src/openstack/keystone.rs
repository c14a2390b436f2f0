//! From credentials to a token and Neutron's address.
//! Source: OpenStack Identity API v3, "Authentication and token management".

use anyhow::Result;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::credentials::{Access, Auth, CredentialId, Domain, Identity, Named};
use super::http::{self, Trouble};
use crate::secret::Secret;

/// The type of Neutron in the catalogue.
const SERVICE: &str = "network";

/// What is sent with every request, and where to.
#[derive(Debug)]
pub struct Session {
    /// The token, if there is one.
    pub token: Option<Secret>,
    /// Neutron's address, without a version.
    pub neutron: String,
}

/// Becomes who the credentials say.
pub async fn session(client: &Client, access: &Access) -> Result<Session, Trouble> {
    let (url, identity, project) = match &access.auth {
        Auth::Direct { endpoint, token } => {
            let endpoint = access.endpoint.as_ref().unwrap_or(endpoint);
            return Ok(Session {
                token: token.clone(),
                neutron: unversioned(endpoint),
            });
        }
        Auth::Keystone {
            url,
            identity,
            project,
        } => (url, identity, project),
    };
    let body = body(identity, project.as_ref());
    let request = http::request(Method::POST, http::url(url, "auth/tokens")?, Some(&body));
    let answer = http::send(client, request).await.map_err(|trouble| {
        trouble
            .when(StatusCode::UNAUTHORIZED, |why| {
                let source = &access.source;
                format!("{source}: Keystone does not let these credentials in: {why}")
            })
            .when(StatusCode::NOT_FOUND, |why| {
                format!("{why}: auth_url is not Keystone's address")
            })
    })?;
    let token = answer.headers.get("x-subject-token");
    let token = token.and_then(|token| token.to_str().ok()).ok_or_else(|| {
        Trouble::refused(format!("{url}: the answer has no token: is it Keystone?"))
    })?;
    let neutron = match &access.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => endpoint(&answer.body, access)?,
    };
    Ok(Session {
        token: Some(Secret::from(token.to_owned())),
        neutron: unversioned(&neutron),
    })
}

fn body(identity: &Identity, project: Option<&Named>) -> Value {
    let text = |secret: &Secret| secret.expose_text().map(str::to_owned);
    let identity = match identity {
        Identity::Password { user, password } => {
            let mut user = named(user);
            user["password"] = json!(text(password));
            json!({"methods": ["password"], "password": {"user": user}})
        }
        Identity::ApplicationCredential { id, secret } => {
            let mut credential = match id {
                CredentialId::Id(id) => json!({"id": id}),
                CredentialId::Name { name, user } => json!({"name": name, "user": named(user)}),
            };
            credential["secret"] = json!(text(secret));
            json!({"methods": ["application_credential"], "application_credential": credential})
        }
        Identity::Token(token) => json!({"methods": ["token"], "token": {"id": text(token)}}),
    };
    let mut auth = json!({"identity": identity});
    if let Some(project) = project {
        auth["scope"] = json!({"project": named(project)});
    }
    json!({"auth": auth})
}

fn named(named: &Named) -> Value {
    match named {
        Named::Id(id) => json!({"id": id}),
        Named::Name { name, domain } => {
            let domain = match domain {
                Domain::Id(id) => json!({"id": id}),
                Domain::Name(name) => json!({"name": name}),
            };
            json!({"name": name, "domain": domain})
        }
    }
}

/// Neutron's address in the catalogue of a token.
fn endpoint(answer: &Value, access: &Access) -> Result<String, Trouble> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let catalog = list(&answer["token"]["catalog"]);
    let services = catalog.iter().filter(|service| service["type"] == SERVICE);
    let endpoints: Vec<Value> = services.flat_map(|s| list(&s["endpoints"])).collect();
    let region = |endpoint: &Value| {
        let region = endpoint["region_id"]
            .as_str()
            .or(endpoint["region"].as_str());
        region.unwrap_or_default().to_owned()
    };
    let fits = |endpoint: &&Value| {
        endpoint["interface"] == access.interface.as_str()
            && access
                .region
                .as_ref()
                .is_none_or(|r| *r == region(endpoint))
    };
    let found: Vec<&Value> = endpoints.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => match one["url"].as_str() {
            Some(url) => Ok(url.to_owned()),
            None => Err(Trouble::refused(
                "the catalogue has no URL for Neutron".to_owned(),
            )),
        },
        [] if catalog.is_empty() => Err(Trouble::refused(format!(
            "{}: the token has no catalogue: it is for no project; write project_name or OS_PROJECT_NAME",
            access.source
        ))),
        [] => {
            let mut regions: Vec<String> = endpoints.iter().map(region).collect();
            regions.sort();
            regions.dedup();
            Err(Trouble::refused(format!(
                "the catalogue has no {SERVICE} with the interface {} in the region {}; there is one in: {}",
                access.interface,
                access.region.as_deref().unwrap_or("any"),
                if regions.is_empty() {
                    "none".to_owned()
                } else {
                    regions.join(", ")
                }
            )))
        }
        several => {
            let mut regions: Vec<String> = several.iter().map(|e| region(e)).collect();
            regions.sort();
            Err(Trouble::refused(format!(
                "there is a Neutron in each of the regions {}: write region_name or OS_REGION_NAME",
                regions.join(", ")
            )))
        }
    }
}

/// Some catalogues have the version in an address, most have not.
fn unversioned(url: &str) -> String {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v2.0").unwrap_or(url).to_owned()
}
