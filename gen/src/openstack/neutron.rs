//! A router of Neutron's: what it is, and its routes changed.
//! Source: OpenStack Networking API v2.0, "Routers", "Extra routes" and
//! "Routers extraroute-atomic extension".

use anyhow::Result;
use ipnet::IpNet;
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::http::{self, Answer, Trouble};
use super::keystone::Session;
use super::routes::{Route, Surroundings};

/// The extension with which routes are added and removed one by one, whatever
/// others do meanwhile.
const ATOMIC: &str = "extraroute-atomic";

/// Neutron, asked by somebody.
#[derive(Debug)]
pub struct Neutron {
    client: Client,
    session: Session,
}

/// A router as it is.
#[derive(Debug, Clone)]
pub struct Router {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its routes.
    pub routes: Vec<Route>,
    /// How often it has changed; none where Neutron does not count.
    pub revision: Option<u64>,
}

impl Neutron {
    /// Neutron at a session's address.
    pub fn new(client: Client, session: Session) -> Self {
        Self { client, session }
    }

    /// Whether routes are added and removed one by one.
    pub async fn is_atomic(&self) -> Result<bool, Trouble> {
        match self.get(&format!("extensions/{ATOMIC}"), &[]).await {
            Ok(_) => Ok(true),
            Err(Trouble::Refused(_, Some(StatusCode::NOT_FOUND))) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// The one router of this name or ID.
    pub async fn find(&self, wanted: &str) -> Result<Router, Trouble> {
        for key in ["name", "id"] {
            let answer = self.get("routers", &[(key, wanted)]).await?;
            let found = answer.body["routers"].as_array().cloned();
            match found.unwrap_or_default().as_slice() {
                [] => {}
                [one] => return router(one),
                several => {
                    let ids = several.iter().filter_map(|r| r["id"].as_str());
                    let ids: Vec<&str> = ids.collect();
                    return Err(Trouble::refused(format!(
                        "several routers are called {wanted}: name one by its ID: {}",
                        ids.join(", ")
                    )));
                }
            }
        }
        Err(Trouble::refused(format!(
            "no router is called {wanted} in this project: openstack router list"
        )))
    }

    /// A router as it is now.
    pub async fn router(&self, id: &str) -> Result<Router, Trouble> {
        let answer = self.get(&format!("routers/{id}"), &[]).await?;
        router(&answer.body["router"])
    }

    /// A router's own addresses and subnets.
    pub async fn surroundings(&self, id: &str) -> Result<Surroundings, Trouble> {
        let answer = self.get("ports", &[("device_id", id)]).await?;
        let ports = answer.body["ports"].as_array().cloned().unwrap_or_default();
        let mut around = Surroundings::default();
        let mut subnets = Vec::new();
        for fixed in ports
            .iter()
            .filter_map(|p| p["fixed_ips"].as_array())
            .flatten()
        {
            if let Some(address) = fixed["ip_address"].as_str() {
                let address = address.parse();
                around
                    .addresses
                    .push(address.map_err(|_| unclear("an address"))?);
            }
            subnets.extend(fixed["subnet_id"].as_str().map(str::to_owned));
        }
        subnets.sort();
        subnets.dedup();
        if subnets.is_empty() {
            return Ok(around);
        }
        let query: Vec<(&str, &str)> = subnets.iter().map(|id| ("id", id.as_str())).collect();
        let answer = self.get("subnets", &query).await?;
        for subnet in answer.body["subnets"].as_array().into_iter().flatten() {
            let cidr: Option<IpNet> = subnet["cidr"].as_str().and_then(|c| c.parse().ok());
            around
                .subnets
                .push(cidr.ok_or_else(|| unclear("a subnet"))?);
        }
        Ok(around)
    }

    /// Adds routes; others stay as they are.
    pub async fn add(&self, router: &str, routes: &[Route]) -> Result<(), Trouble> {
        self.change(router, "add_extraroutes", routes).await
    }

    /// Takes routes away; others stay as they are.
    pub async fn remove(&self, router: &str, routes: &[Route]) -> Result<(), Trouble> {
        self.change(router, "remove_extraroutes", routes).await
    }

    async fn change(&self, router: &str, verb: &str, routes: &[Route]) -> Result<(), Trouble> {
        if routes.is_empty() {
            return Ok(());
        }
        let body = json!({"router": {"routes": routes}});
        let path = format!("routers/{router}/{verb}");
        self.ask(Method::PUT, &path, &[], Some(&body), None).await?;
        Ok(())
    }

    /// Makes these all routes that there are, if nobody changed the router
    /// since it was looked at.
    pub async fn replace(&self, router: &Router, routes: &[Route]) -> Result<(), Trouble> {
        let body = json!({"router": {"routes": routes}});
        let path = format!("routers/{}", router.id);
        let revision = router.revision;
        self.ask(Method::PUT, &path, &[], Some(&body), revision)
            .await?;
        Ok(())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, Trouble> {
        self.ask(Method::GET, path, query, None, None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
        revision: Option<u64>,
    ) -> Result<Answer, Trouble> {
        let mut url = http::url(&self.session.neutron, &format!("v2.0/{path}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = http::request(method, url, body);
        if let Some(token) = &self.session.token {
            let value = HeaderValue::from_bytes(token.expose());
            let mut value = value.map_err(|_| {
                Trouble::refused("the token is none: control characters".to_owned())
            })?;
            value.set_sensitive(true);
            request.headers_mut().insert("x-auth-token", value);
        }
        // Source: OpenStack Networking API, "Revisions".
        let condition = revision.map(|n| format!("revision_number={n}"));
        if let Some(condition) = condition.and_then(|c| HeaderValue::from_str(&c).ok()) {
            request
                .headers_mut()
                .insert(reqwest::header::IF_MATCH, condition);
        }
        http::send(&self.client, request).await.map_err(|trouble| {
            trouble
                .when(StatusCode::UNAUTHORIZED, |why| {
                    format!("Neutron does not take the token: {why}")
                })
                .when(StatusCode::FORBIDDEN, |why| {
                    format!("these credentials may not: {why}")
                })
        })
    }
}

fn unclear(what: &str) -> Trouble {
    Trouble::refused(format!("Neutron names {what} that is none"))
}

fn router(value: &Value) -> Result<Router, Trouble> {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let routes = match &value["routes"] {
        Value::Null => json!([]),
        routes => routes.clone(),
    };
    // A route that is not understood is not one to be lost.
    let routes = serde_json::from_value(routes).map_err(|_| unclear("a route"))?;
    Ok(Router {
        id: text("id").ok_or_else(|| unclear("a router"))?,
        name: text("name").unwrap_or_default(),
        routes,
        revision: value["revision_number"].as_u64(),
    })
}
