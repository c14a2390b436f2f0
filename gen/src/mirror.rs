//! Published files over HTTP: what is written in them, how large they are,
//! and whether their bytes have their checksum. With patience, but not for
//! ever.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url, header};
use sha2::{Digest as _, Sha256, Sha512};
use units::types::{Digest, to_hex};

use crate::artifacts::Algorithm;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may arrive.
const SILENCE: Duration = Duration::from_secs(30);
/// How often something is tried.
const TRIES: u32 = 4;
/// The first pause between two tries; each is twice as long as the last.
const PAUSE: Duration = Duration::from_millis(250);
/// So often a server may name another one.
const REDIRECTIONS: usize = 10;
/// No file of checksums is larger.
const TEXT_LIMIT: usize = 1 << 20;

/// Why a file cannot be had.
#[derive(Debug)]
pub enum Trouble {
    /// There is no such file, or it may not be read: trying again is in vain.
    Refused(String),
    /// The network or the server; it was tried several times.
    Outside(anyhow::Error),
}

/// A client for mirrors.
#[derive(Debug, Clone)]
pub struct Mirrors {
    client: Client,
}

impl Mirrors {
    /// A client that follows redirections and the proxy that the environment
    /// names.
    pub fn new() -> Result<Self> {
        // An error says that there is one already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(Policy::custom(|attempt| {
                let secure = |url: &Url| url.scheme() == "https";
                if attempt.previous().len() >= REDIRECTIONS {
                    attempt.error("too many redirections")
                } else if attempt.previous().last().is_some_and(secure) && !secure(attempt.url()) {
                    // Checksums are what everything else is believed by.
                    attempt.error("a redirection from https to http")
                } else {
                    attempt.follow()
                }
            }))
            .user_agent(concat!("kgen/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("preparing an HTTP client; are the system's certificate authorities there?")?;
        Ok(Self { client })
    }

    /// The text of a small file.
    pub async fn text(&self, url: &str) -> Result<String, Trouble> {
        patiently(|| async {
            let mut response = ok(url, self.client.get(url).send().await)?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| lost(url, e))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > TEXT_LIMIT {
                    let message = format!("{url}: is too large for a file of checksums");
                    return Err(Failed::For(Trouble::Refused(message)));
                }
            }
            String::from_utf8(bytes)
                .map_err(|_| Failed::For(Trouble::Refused(format!("{url}: is not text"))))
        })
        .await
    }

    /// How many bytes a file has; none if the server does not say.
    pub async fn size(&self, url: &str) -> Result<Option<u64>, Trouble> {
        patiently(|| async {
            let response = self.client.head(url).send().await;
            let response = match response {
                // Some servers know GET alone; its body is left where it is.
                Ok(r) if matches!(r.status().as_u16(), 403 | 405 | 501) => {
                    self.client.get(url).send().await
                }
                other => other,
            };
            let response = ok(url, response)?;
            if is_page(&response) {
                let message = format!("{url}: is a web page: a proxy or a login page?");
                return Err(Failed::For(Trouble::Refused(message)));
            }
            let length = response.headers().get(header::CONTENT_LENGTH);
            Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()))
        })
        .await
    }

    /// Downloads a file and forgets it: the checksum of its bytes and their
    /// number. `progress` is told how many have arrived.
    pub async fn hash(
        &self,
        url: &str,
        algorithm: Algorithm,
        mut progress: impl FnMut(u64),
    ) -> Result<(Digest, u64), Trouble> {
        let mut tries = 1;
        loop {
            match self.hash_once(url, algorithm, &mut progress).await {
                Ok(found) => return Ok(found),
                Err(Failed::For(trouble)) => return Err(trouble),
                Err(Failed::Now(error)) if tries == TRIES => return Err(Trouble::Outside(error)),
                Err(Failed::Now(_)) => tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await,
            }
            tries += 1;
        }
    }

    async fn hash_once(
        &self,
        url: &str,
        algorithm: Algorithm,
        progress: &mut impl FnMut(u64),
    ) -> Result<(Digest, u64), Failed> {
        let mut response = ok(url, self.client.get(url).send().await)?;
        let (mut short, mut long) = (Sha256::new(), Sha512::new());
        let mut size = 0;
        while let Some(chunk) = response.chunk().await.map_err(|e| lost(url, e))? {
            match algorithm {
                Algorithm::Sha256 => short.update(&chunk),
                Algorithm::Sha512 => long.update(&chunk),
            }
            size += chunk.len() as u64;
            progress(size);
        }
        let hex = match algorithm {
            Algorithm::Sha256 => to_hex(&short.finalize()),
            Algorithm::Sha512 => to_hex(&long.finalize()),
        };
        let digest = format!("{algorithm}:{hex}").parse();
        let digest = digest.map_err(|e| Failed::For(Trouble::Outside(anyhow!("{e}"))))?;
        Ok((digest, size))
    }
}

/// How a try failed.
enum Failed {
    /// For now.
    Now(anyhow::Error),
    /// For good.
    For(Trouble),
}

async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(Failed::For(trouble)) => return Err(trouble),
            Err(Failed::Now(error)) if tries == TRIES => return Err(Trouble::Outside(error)),
            Err(Failed::Now(_)) => tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await,
        }
        tries += 1;
    }
}

fn ok(url: &str, response: reqwest::Result<Response>) -> Result<Response, Failed> {
    let response = response.map_err(|error| lost(url, error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let passing = status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    Err(if passing {
        Failed::Now(anyhow!("{url}: the server answers {status}"))
    } else {
        Failed::For(Trouble::Refused(match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => format!("{url}: there is no such file"),
            status => format!("{url}: the server answers {status}"),
        }))
    })
}

/// An error of the network, with its causes; the address stands before it.
fn lost(url: &str, error: reqwest::Error) -> Failed {
    let error = error.without_url();
    let trouble = anyhow::Error::new(error).context(format!("reading {url}"));
    Failed::Now(trouble)
}

fn is_page(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/html"))
}
