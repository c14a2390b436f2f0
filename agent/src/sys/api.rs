//! The Kubernetes API: a handful of requests on a few kinds, as JSON.
//!
//! Beneath: reqwest through [`crate::sys::http`].
//! Source: Kubernetes documentation, "Kubernetes API Concepts".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Code, Context, Error, Result};
use crate::sys::http::{self, Pem, Trust};
use crate::sys::kept;
use crate::sys::kubeconfig::Token;

/// How long one request may take; watches are longer by design.
const REQUEST: Duration = Duration::from_secs(20);
/// How long a watch stays open before it is opened anew.
const WATCH: Duration = Duration::from_secs(300);
/// Objects in a page of a list; a Node is some 10 KB.
const PAGE: usize = 250;
/// Objects as they are, and of each its metadata alone.
const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Who applied what, in objects' managed fields.
const FIELD_MANAGER: &str = "knode";

/// A connection to the API server with one identity.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    server: String,
    token: Option<Token>,
    /// The last request got no answer.
    lost: Arc<AtomicBool>,
}

impl kept::Client for Api {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A change that a watch reports.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object after the change, or a Status for `ERROR`.
    pub object: Value,
}

impl Api {
    /// With an identity in PEM, or none: `server` is `https://HOST:PORT`,
    /// `authority` the PEM of the only authority that is trusted.
    ///
    /// # Errors
    ///
    /// [`Code::Tls`]: bad PEM.
    pub fn new(server: &str, authority: &[u8], identity: Option<Pem>) -> Result<Self> {
        let client = http::client(&Trust {
            only: Some(authority.to_vec()),
            identity,
        })?;
        Ok(Self {
            client,
            server: server.trim_end_matches('/').to_owned(),
            token: None,
            lost: Arc::default(),
        })
    }

    /// With a bootstrap token; `authority` as for [`Api::new`].
    ///
    /// A refusal of the token itself is [`Code::BootstrapToken`].
    ///
    /// # Errors
    ///
    /// [`Code::Tls`]: bad PEM.
    pub fn with_token(server: &str, authority: &[u8], token: Token) -> Result<Self> {
        let mut api = Self::new(server, authority, None)?;
        api.token = Some(token);
        Ok(api)
    }

    /// Asks `/readyz`, which needs no identity.
    ///
    /// # Errors
    ///
    /// [`Code::ApiUnreachable`] with what the server says is missing, or why
    /// it was not reached; [`Code::Dns`], [`Code::Tls`], [`Code::Clock`].
    pub async fn ready(&self) -> Result<()> {
        let url = format!("{}/readyz", self.server);
        let asked = self.client.get(&url).timeout(Duration::from_secs(5));
        let answer = self.answer(asked, &url, true).await;
        ready(answer, &url, &[]).await
    }

    /// Reads an object; `None` where there is none.
    ///
    /// # Errors
    ///
    /// As every request: [`Code::ApiUnreachable`] and its kin without an
    /// answer, [`Code::ApiRefused`] with a refusal.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, value) => accepted(status, value, "reading", path).map(Some),
        }
    }

    /// Reads a collection page by page, so that one of thousands of objects
    /// takes no more memory than one page; `each` gets every object. Returns
    /// the resource version to watch from.
    /// Source: Kubernetes documentation, "Retrieving large results sets in
    /// chunks".
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`]. Also [`Code::ApiRefused`] when it
    /// took so long that the server forgot its place: list again.
    pub async fn list(&self, path: &str, each: impl FnMut(&Value)) -> Result<String> {
        self.pages(path, "", JSON, each).await
    }

    /// Reads of a collection's objects their metadata alone, as a
    /// PartialObjectMetadata each; where `label` is given, of those that bear it.
    /// Source: Kubernetes documentation, "Kubernetes API Concepts", metadata-only
    /// fetches.
    ///
    /// # Errors
    ///
    /// As [`Api::list`].
    pub async fn list_metadata(
        &self,
        path: &str,
        label: Option<(&str, &str)>,
        each: impl FnMut(&Value),
    ) -> Result<()> {
        let query = label.map(|(key, value)| format!("&labelSelector={key}%3D{value}"));
        let query = query.unwrap_or_default();
        self.pages(path, &query, METADATA, each).await.map(drop)
    }

    async fn pages(
        &self,
        path: &str,
        query: &str,
        accept: &'static str,
        mut each: impl FnMut(&Value),
    ) -> Result<String> {
        let base = format!("{path}?limit={PAGE}{query}");
        let mut target = base.clone();
        loop {
            let (status, page) = self.send_as(Method::GET, &target, None, accept).await?;
            let page = accepted(status, page, "listing", path)?;
            page["items"]
                .as_array()
                .into_iter()
                .flatten()
                .for_each(&mut each);
            let meta = &page["metadata"];
            match meta["continue"].as_str().filter(|token| !token.is_empty()) {
                // A token is of the URL's alphabet (base64url), with `=` at most.
                Some(token) => target = format!("{base}&continue={token}"),
                None => {
                    return Ok(meta["resourceVersion"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned());
                }
            }
        }
    }

    /// Creates an object below the collection `path`; `None` where one of
    /// that name exists.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn create(&self, path: &str, object: &Value) -> Result<Option<Value>> {
        let body = Some((object, "application/json"));
        match self.send(Method::POST, path, body).await? {
            (StatusCode::CONFLICT, _) => Ok(None),
            (status, value) => accepted(status, value, "creating below", path).map(Some),
        }
    }

    /// Merges `patch` into the object (RFC 7386).
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        let body = Some((patch, "application/merge-patch+json"));
        let (status, value) = self.send(Method::PATCH, path, body).await?;
        accepted(status, value, "changing", path)
    }

    /// The same with a patch that names the `resourceVersion` it is for; `None` when the
    /// object has changed since.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn merge_unchanged(&self, path: &str, patch: &Value) -> Result<Option<Value>> {
        let body = Some((patch, "application/merge-patch+json"));
        match self.send(Method::PATCH, path, body).await? {
            (StatusCode::CONFLICT, _) => Ok(None),
            (status, value) => accepted(status, value, "changing", path).map(Some),
        }
    }

    /// Merges `patch` into the object, lists by their members' keys
    /// (strategic merge patch): what others keep in them stays.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn merge_members(&self, path: &str, patch: &Value) -> Result<Value> {
        let body = Some((patch, "application/strategic-merge-patch+json"));
        let (status, value) = self.send(Method::PATCH, path, body).await?;
        accepted(status, value, "changing", path)
    }

    /// Makes the object have these fields, whether it exists or not
    /// (server-side apply as field manager `knode`).
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let target = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
        // YAML by name; JSON is YAML.
        let body = Some((object, "application/apply-patch+yaml"));
        let (status, value) = self.send(Method::PATCH, &target, body).await?;
        accepted(status, value, "applying", path)
    }

    /// Removes the object if it is still the one with this `uid`, and what it
    /// owns after it. Whether there was one.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn delete(&self, path: &str, uid: &str) -> Result<bool> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        });
        let body = Some((&options, "application/json"));
        match self.send(Method::DELETE, path, body).await? {
            (StatusCode::NOT_FOUND | StatusCode::CONFLICT, _) => Ok(false),
            (status, value) => accepted(status, value, "removing", path).map(|_| true),
        }
    }

    /// Watches a collection from a resource version on. `each` gets every
    /// event; the watch ends when the server ends it, as it does after some
    /// minutes.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`]. Also [`Code::ApiRefused`] when the
    /// version is too old: list again.
    pub async fn watch(
        &self,
        path: &str,
        resource_version: &str,
        mut each: impl FnMut(Event),
    ) -> Result<()> {
        let url = format!(
            "{}{path}?watch=1&allowWatchBookmarks=true&resourceVersion={resource_version}&timeoutSeconds={}",
            self.server,
            WATCH.as_secs()
        );
        let request = self.client.get(&url).timeout(WATCH + REQUEST);
        let reply = self.answer(request, &url, true).await;
        let mut reply = reply.map_err(|error| unreachable(error, &url))?;
        if !reply.status().is_success() {
            let status = reply.status();
            let value = reply.json().await.unwrap_or_default();
            accepted(status, value, "watching", path)?;
            return Ok(());
        }
        let mut pending = Vec::new();
        while let Some(chunk) = reply
            .chunk()
            .await
            .map_err(|error| self.cut(error, || format!("watching {path}")))?
        {
            pending.extend_from_slice(&chunk);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let event: Event = serde_json::from_slice(&line)
                    .context(Code::ApiRefused, || format!("reading an event of {path}"))?;
                if event.kind == "ERROR" {
                    return Err(refusal(&event.object, "watching", path));
                }
                each(event);
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&Value, &str)>,
    ) -> Result<(StatusCode, Value)> {
        self.send_as(method, path, body, JSON).await
    }

    async fn send_as(
        &self,
        method: Method,
        path: &str,
        body: Option<(&Value, &str)>,
        accept: &'static str,
    ) -> Result<(StatusCode, Value)> {
        let url = format!("{}{path}", self.server);
        let reads = method == Method::GET;
        let request = self.client.request(method, &url).timeout(REQUEST);
        let mut request = request.header(header::ACCEPT, accept);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some((object, kind)) = body {
            request = request
                .header(header::CONTENT_TYPE, kind)
                .body(object.to_string());
        }
        let reply = self.answer(request, &url, reads).await;
        let reply = reply.map_err(|error| unreachable(error, &url))?;
        let status = reply.status();
        let reading = || format!("reading the answer of {url}");
        let bytes = reply.bytes().await;
        let bytes = bytes.map_err(|error| self.cut(error, reading))?;
        if status == StatusCode::UNAUTHORIZED {
            // An identity that is over, as after a jump of the clock.
            self.lost.store(true, Ordering::Relaxed);
        }
        if status == StatusCode::UNAUTHORIZED && self.token.is_some() {
            return Err(Error::new(
                Code::BootstrapToken,
                format!("{} does not take this machine's token", self.server),
            ));
        }
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok((status, value))
    }

    /// A kept connection may have ended since the last look. What only reads
    /// is asked again, on a new one. One without an answer is not used again.
    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        url: &str,
        reads: bool,
    ) -> reqwest::Result<reqwest::Response> {
        let again = reads.then(|| request.try_clone()).flatten();
        let answer = match (request.send().await, again) {
            (Err(error), Some(again)) if !error.is_connect() && !error.is_timeout() => {
                tracing::debug!("asking {url} again: {error}");
                again.send().await
            }
            (outcome, _) => outcome,
        };
        if answer.is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// An answer that ended in the middle.
    fn cut(&self, error: reqwest::Error, doing: impl FnOnce() -> String) -> Error {
        self.lost.store(true, Ordering::Relaxed);
        Error::new(Code::ApiUnreachable, doing()).because(error)
    }
}

/// Asks one server's `/readyz` by `client`; one that answers only those whom
/// it knows is there all the same.
///
/// # Errors
///
/// As [`Api::ready`].
pub async fn alive(client: &Client, server: &str) -> Result<()> {
    let url = format!("{server}/readyz");
    let known_only = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    ready(client.get(&url).send().await, &url, &known_only).await
}

/// What an answer of `/readyz` means; `also` are fine beside success.
async fn ready(
    answer: reqwest::Result<reqwest::Response>,
    url: &str,
    also: &[StatusCode],
) -> Result<()> {
    let reply = answer.map_err(|error| unreachable(error, url))?;
    let status = reply.status();
    // Read to its end, a connection can be used again.
    let text = reply.text().await.unwrap_or_default();
    if status.is_success() || also.contains(&status) {
        return Ok(());
    }
    let failing: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("[-]"))
        .collect();
    Err(Error::new(
        Code::ApiUnreachable,
        format!("{url} answers {status} {}", failing.join(" ")),
    ))
}

/// A connection that could not be had is the API server's absence; a name, a
/// certificate or a clock in the way keeps its own code.
fn unreachable(error: reqwest::Error, url: &str) -> Error {
    let named = http::refused(error, url);
    match named.code() {
        Code::Connect => {
            let reason = std::error::Error::source(&named).map(ToString::to_string);
            Error::new(Code::ApiUnreachable, format!("no answer from {url}"))
                .because(reason.unwrap_or_default())
        }
        _ => named,
    }
}

fn accepted(status: StatusCode, value: Value, doing: &str, path: &str) -> Result<Value> {
    if status.is_success() {
        return Ok(value);
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let reason = refusal(&value, doing, path);
        return Err(Error::new(
            Code::ApiUnreachable,
            format!("the API server answers {status}"),
        )
        .because(reason.story()));
    }
    Err(refusal(&value, doing, path))
}

/// The reason in a Kubernetes Status object.
fn refusal(value: &Value, doing: &str, path: &str) -> Error {
    let reason = value["message"]
        .as_str()
        .or_else(|| value.as_str())
        .unwrap_or("no reason given");
    Error::new(Code::ApiRefused, format!("{doing} {path}: {reason}"))
}
