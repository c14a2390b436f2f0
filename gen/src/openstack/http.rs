//! Requests to services of OpenStack, and what their errors mean.
//!
//! Beneath: reqwest. Nothing is retried here; [`Trouble`] says what could be.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Request, StatusCode, Url, header};
use serde_json::Value;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// What to do about a certificate of the cloud's.
const UNTRUSTED: &str = "; cacert in clouds.yaml or OS_CACERT names the file with the authority of \
                         the cloud's certificate";

/// Why there is no good answer.
#[derive(Debug)]
pub enum Trouble {
    /// Trying again is in vain. With which status, if there was an answer.
    Refused(String, Option<StatusCode>),
    /// Somebody else was quicker: what is there has to be looked at again.
    Conflict(String),
    /// For now: the network, or a service that is overloaded. When to come
    /// again, if it says.
    Passing(String, Option<Duration>),
}

impl Trouble {
    /// What is in vain whatever a service would answer.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into(), None)
    }

    /// Says more of a refusal with this status.
    pub fn when(self, status: StatusCode, say: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Refused(why, Some(found)) if found == status => {
                Self::Refused(say(&why), Some(found))
            }
            other => other,
        }
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        match self {
            Self::Refused(why, _) | Self::Conflict(why) | Self::Passing(why, _) => why,
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; null if there is none.
    pub body: Value,
}

/// A client that trusts the authority in a file, or the system's.
pub fn client(authority: Option<&Path>) -> Result<Client> {
    // An error says that there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        // A token goes nowhere but where it was meant to go.
        .redirect(Policy::none())
        .user_agent(concat!("kgen/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = authority {
        let text = fs::read(path)
            .with_context(|| format!("reading {}, the cloud's authority", path.display()))?;
        let certificates = Certificate::from_pem_bundle(&text)
            .with_context(|| format!("{}: is no certificate", path.display()))?;
        if certificates.is_empty() {
            bail!("{}: is no certificate", path.display());
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder
        .build()
        .context("preparing an HTTP client; are the system's certificate authorities there?")
}

/// An address of a service's, with a path behind it.
pub fn url(base: &str, path: &str) -> Result<Url, Trouble> {
    let text = format!("{}/{path}", base.trim_end_matches('/'));
    Url::parse(&text).map_err(|_| Trouble::refused(format!("{base}: is no URL")))
}

/// A request for JSON.
pub fn request(method: Method, url: Url, body: Option<&Value>) -> Request {
    let mut request = Request::new(method, url);
    let json = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json.clone());
    if let Some(body) = body {
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        *request.body_mut() = Some(body.to_string().into());
    }
    request
}

/// Sends it; anything but success is trouble, told with the service's words.
pub async fn send(client: &Client, request: Request) -> Result<Answer, Trouble> {
    let place = format!(
        "{} {}",
        request.method(),
        // What a query asks for is of no interest; a URL may have a password.
        request.url().origin().ascii_serialization() + request.url().path()
    );
    let lost = |error: reqwest::Error| {
        let error = error.without_url();
        let why = format!("{place}: {}", innermost(&error));
        match distrusts(&error) {
            true => Trouble::refused(why + UNTRUSTED),
            false => Trouble::Passing(why, None),
        }
    };
    let response = client.execute(request).await.map_err(lost)?;
    let (status, mut headers) = (response.status(), response.headers().clone());
    if let Some(token) = headers.get_mut("x-subject-token") {
        token.set_sensitive(true);
    }
    let text = response.text().await.map_err(lost)?;
    let body: Option<Value> = match text.trim() {
        "" => Some(Value::Null),
        text => serde_json::from_str(text).ok(),
    };
    match (status.is_success(), body) {
        (true, Some(body)) => Ok(Answer { headers, body }),
        (true, None) => Err(Trouble::refused(format!(
            "{place}: the answer is no JSON: a proxy or a login page?"
        ))),
        (false, body) => Err(trouble(&place, status, &headers, body.as_ref())),
    }
}

fn trouble(place: &str, status: StatusCode, headers: &HeaderMap, body: Option<&Value>) -> Trouble {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let said = body.and_then(said).unwrap_or_default();
    let mut why = format!("{place}: {status}");
    if !said.is_empty() {
        why.push_str(&format!(": {said}"));
    }
    match status.as_u16() {
        409 | 412 => Trouble::Conflict(why),
        408 | 429 | 500 | 502 | 503 | 504 => {
            let after = text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
            Trouble::Passing(why, after.map(Duration::from_secs))
        }
        300..=399 => {
            let to = text(header::LOCATION).unwrap_or("somewhere else");
            Trouble::Refused(
                format!("{why}: it is at {to}: use that address"),
                Some(status),
            )
        }
        _ => Trouble::Refused(why, Some(status)),
    }
}

/// The words of an error. Source: OpenStack API reference; Neutron's have a
/// `NeutronError`, Keystone's an `error`, others a `faultstring`.
fn said(body: &Value) -> Option<&str> {
    [
        "/NeutronError/message",
        "/error/message",
        "/message",
        "/faultstring",
    ]
    .into_iter()
    .find_map(|path| body.pointer(path)?.as_str())
}

/// The innermost reason tells most.
fn innermost(error: &reqwest::Error) -> String {
    let last = reasons(error).pop();
    last.map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether a service's certificate is not to be trusted; the next time it is the
/// same.
fn distrusts(error: &reqwest::Error) -> bool {
    reasons(error).into_iter().any(is_of_certificate)
}

fn is_of_certificate(error: &(dyn Error + 'static)) -> bool {
    // One of I/O names what is beneath the error in it, and not that error.
    let inner = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    if let Some(inner) = inner {
        return is_of_certificate(inner);
    }
    let error = error.downcast_ref::<rustls::Error>();
    matches!(error, Some(rustls::Error::InvalidCertificate(_)))
}

/// An error, and what is beneath it.
fn reasons(error: &reqwest::Error) -> Vec<&(dyn Error + 'static)> {
    let mut all: Vec<&(dyn Error + 'static)> = Vec::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        all.push(error);
        next = error.source();
    }
    all
}
