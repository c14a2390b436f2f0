//! The cluster's API server, as its operator asks it: JSON for a path, and now
//! and then an object of a probe's.
//!
//! Beneath: reqwest. Source: Kubernetes documentation, "Kubernetes API Concepts".

use std::error::Error;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use reqwest::{Certificate, Client, Identity, Method, StatusCode, header};
use rustls::CertificateError;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use zeroize::Zeroizing;

use crate::pki::Pair;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug)]
pub enum Trouble {
    /// The server does not know or does not let the operator: waiting is in vain.
    Refused(String),
    /// It is not there, or not yet.
    Away(String),
}

/// A connection with the operator's certificate.
#[derive(Debug)]
pub struct Api {
    client: Client,
    server: String,
}

/// An answer, and what the server's clock said.
#[derive(Debug)]
pub struct Answer<T> {
    /// What was asked for.
    pub body: T,
    /// When it was given; none if the server does not say.
    pub at: Option<OffsetDateTime>,
}

impl Api {
    /// `server` is `https://HOST:PORT`; `authority` (PEM) is the only one that is
    /// trusted. A proxy of the environment is used, as kubectl does.
    pub fn new(server: &str, authority: &str, operator: &Pair) -> Result<Self> {
        // An error says that there is one already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let pem = [
            operator.certificate.as_bytes(),
            b"\n",
            operator.key.expose(),
        ];
        let pem = Zeroizing::new(pem.concat());
        // The error's own text is left out: nothing of the key is told.
        let identity =
            Identity::from_pem(&pem).map_err(|_| anyhow!("pki/: the operator's key is no key"))?;
        let authorities = Certificate::from_pem_bundle(authority.as_bytes())
            .context("pki/ca.crt: is no certificate")?;
        let client = Client::builder()
            .tls_certs_only(authorities)
            .identity(identity)
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .user_agent(concat!("kgen/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("preparing an HTTPS client")?;
        Ok(Self {
            client,
            server: server.trim_end_matches('/').to_owned(),
        })
    }

    /// The object or list at a path, as `/api/v1/nodes`.
    pub async fn get(&self, path: &str) -> Result<Answer<Value>, Trouble> {
        let (status, answer) = self.text(path).await?;
        let body: Option<Value> = serde_json::from_str(&answer.body).ok();
        match (status, body) {
            (StatusCode::OK, Some(body)) => Ok(Answer {
                body,
                at: answer.at,
            }),
            (StatusCode::UNAUTHORIZED, _) => Err(Trouble::Refused(
                "the API server does not know the certificate in pki/: is it another cluster's?"
                    .to_owned(),
            )),
            (StatusCode::FORBIDDEN, body) => {
                let message = body.as_ref().and_then(|b| b["message"].as_str());
                let why = message.unwrap_or("the API server forbids it");
                // Before its masters have made it so, the operator may nothing.
                Err(Trouble::Away(why.to_owned()))
            }
            (status, body) => {
                let message = body.as_ref().and_then(|b| b["message"].as_str());
                let why = message.unwrap_or("no JSON");
                Err(Trouble::Away(format!("{path}: {status}: {why}")))
            }
        }
    }

    /// Sends an object, and returns what is answered, whatever the status is.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        object: Option<&Value>,
    ) -> Result<(StatusCode, Value), Trouble> {
        let (status, answer) = self.ask(method, path, object).await?;
        let body = serde_json::from_str(&answer.body);
        Ok((status, body.unwrap_or(Value::String(answer.body))))
    }

    /// The text at a path, whatever the status is.
    pub async fn text(&self, path: &str) -> Result<(StatusCode, Answer<String>), Trouble> {
        self.ask(Method::GET, path, None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        object: Option<&Value>,
    ) -> Result<(StatusCode, Answer<String>), Trouble> {
        let url = format!("{}{path}", self.server);
        let mut request = self.client.request(method, &url);
        if let Some(object) = object {
            request = request.json(object);
        }
        let response = request.send().await;
        let response = response.map_err(|e| trouble(&self.server, e))?;
        let status = response.status();
        let date = response.headers().get(header::DATE);
        let at = date.and_then(|date| {
            // RFC 9110, 5.6.7: the preferred form is that of RFC 2822 but for "GMT".
            let date = date.to_str().ok()?.replace("GMT", "+0000");
            OffsetDateTime::parse(&date, &Rfc2822).ok()
        });
        let body = response.text().await;
        let body = body.map_err(|e| trouble(&self.server, e))?;
        Ok((status, Answer { body, at }))
    }
}

/// Why there was no answer: the innermost reason tells most.
fn trouble(server: &str, error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    let mut reason: &(dyn Error + 'static) = &error;
    let mut certificate = None;
    while let Some(source) = reason.source() {
        reason = source;
        if let Some(rustls::Error::InvalidCertificate(why)) = tls(reason) {
            certificate = Some(why);
        }
    }
    let why = format!("{server}: {reason}");
    match certificate {
        // A clock may yet be set.
        None
        | Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            Trouble::Away(why)
        }
        Some(_) => Trouble::Refused(format!(
            "{why}: whoever answers there is no API server of pki/ca.crt by that name"
        )),
    }
}

/// rustls hides in an `io::Error`, or in several around each other, whose
/// `source()` skips over it.
fn tls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    tls(error.downcast_ref::<io::Error>()?.get_ref()?)
}
