//! HTTP: downloads as streams that never hang, and clients for TLS probes.
//!
//! One crate beneath: reqwest (with rustls on ring, and hickory for names: a
//! static binary must not load the host's resolver libraries).

use std::time::Duration;

pub use reqwest::Client;
use reqwest::{Certificate, Identity, Response, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::error::{Code, Context, Error, Result};

/// How long a connection may take to be established.
const CONNECT: Duration = Duration::from_secs(10);

/// How a client behaves, beyond reqwest's defaults.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Trust these certificate authorities alone (PEM); absent: the host's.
    pub only: Option<Vec<u8>>,
    /// Show this identity: certificate and key, PEM.
    pub identity: Option<Pem>,
}

/// PEM text with a private key in it; never shown.
#[derive(Clone)]
pub struct Pem(pub Vec<u8>);

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(redacted)")
    }
}

/// Builds a client. Name servers and the host's certificate authorities are
/// read now, so build it when the network is there, and anew for each round
/// of attempts.
///
/// # Errors
///
/// [`Code::Tls`]: bad PEM, or no certificate authorities on the host where
/// the host's were asked for.
pub fn client(trust: &Trust) -> Result<Client> {
    builder(trust)?
        .build()
        .context(Code::Tls, || "preparing an HTTP client".to_owned())
}

/// A client for one unix socket that speaks HTTP/2 without TLS, as gRPC does.
///
/// # Errors
///
/// [`Code::Tls`], which cannot happen without TLS.
pub fn unix_client(socket: &std::path::Path) -> Result<Client> {
    Client::builder()
        .unix_socket(socket)
        .http2_prior_knowledge()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .context(Code::Tls, || "preparing an HTTP client".to_owned())
}

fn builder(trust: &Trust) -> Result<reqwest::ClientBuilder> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .tcp_keepalive(Duration::from_secs(30))
        .user_agent(concat!("knode/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = &trust.only {
        let authorities = Certificate::from_pem_bundle(pem)
            .context(Code::Tls, || "reading the certificate authority".to_owned())?;
        builder = builder.tls_certs_only(authorities).no_proxy();
    }
    if let Some(pem) = &trust.identity {
        let identity = Identity::from_pem(&pem.0).context(Code::Tls, || {
            "reading the client certificate and key".to_owned()
        })?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// A client for downloads: it trusts the host's certificate authorities. On a
/// host that has none it can still fetch over plain HTTP, where the checksum
/// is what makes the bytes trusted.
///
/// # Errors
///
/// As [`client`].
pub fn download_client() -> Result<Client> {
    match client(&Trust::default()) {
        Ok(client) => Ok(client),
        Err(error) => {
            tracing::warn!("{}; https mirrors will be refused", error.story());
            Client::builder()
                .connect_timeout(CONNECT)
                .tls_certs_only([])
                .build()
                .context(Code::Tls, || "preparing an HTTP client".to_owned())
        }
    }
}

/// A client for health checks on this machine's loopback, without TLS.
///
/// # Errors
///
/// [`Code::Tls`], which cannot happen without TLS.
pub fn local_client() -> Result<Client> {
    Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(Duration::from_secs(5))
        .build()
        .context(Code::Tls, || "preparing an HTTP client".to_owned())
}

/// What time it is, by the `Date` of whatever `url` answers (RFC 9110, 6.6.1);
/// `None` where the answer has none.
///
/// # Errors
///
/// [`Code::Dns`], [`Code::Connect`], [`Code::Tls`], [`Code::Clock`]: no answer.
pub async fn date(client: &Client, url: &str) -> Result<Option<OffsetDateTime>> {
    let answer = client.head(url).timeout(Duration::from_secs(5)).send();
    let answer = answer.await.map_err(|error| refused(error, url))?;
    Ok(answer
        .headers()
        .get(reqwest::header::DATE)
        .and_then(|date| date.to_str().ok())
        .and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok()))
}

/// The body of a download, chunk by chunk.
#[derive(Debug)]
pub struct Download {
    response: Response,
    url: String,
    stall: Duration,
    received: u64,
}

impl Download {
    /// Asks for `url`. `stall` is the longest time without a byte.
    ///
    /// # Errors
    ///
    /// [`Code::Dns`], [`Code::Connect`], [`Code::Tls`]: no connection;
    /// [`Code::FetchHttp`]: an answer other than success;
    /// [`Code::FetchStall`]: no answer.
    pub async fn start(client: &Client, url: &str, stall: Duration) -> Result<Self> {
        let asking = client.get(url).send();
        let response = tokio::time::timeout(CONNECT + stall, asking)
            .await
            .map_err(|_| stalled(url, stall, 0))?
            .map_err(|error| refused(error, url))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(Error::new(
                Code::FetchHttp,
                format!("{url} answers {status}"),
            ));
        }
        Ok(Self {
            response,
            url: url.to_owned(),
            stall,
            received: 0,
        })
    }

    /// How many bytes the server says it sends.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Code::FetchStall`]: nothing came for too long;
    /// [`Code::FetchSize`]: the connection broke before the end.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let chunk = tokio::time::timeout(self.stall, self.response.chunk())
            .await
            .map_err(|_| stalled(&self.url, self.stall, self.received))?
            .context(Code::FetchSize, || {
                format!("{} broke off after {} bytes", self.url, self.received)
            })?;
        Ok(chunk.map(|bytes| {
            self.received += bytes.len() as u64;
            bytes.into()
        }))
    }
}

fn stalled(url: &str, stall: Duration, received: u64) -> Error {
    Error::new(
        Code::FetchStall,
        format!(
            "{url} sent nothing for {} s after {received} bytes",
            stall.as_secs()
        ),
    )
}

/// Names why a request got no answer.
pub fn refused(error: reqwest::Error, url: &str) -> Error {
    let code = cause(&error);
    Error::new(code, format!("asking {url}")).because(deepest(&error))
}

/// The innermost cause's words; those around it only say that a request was
/// being sent, which our own words do.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// Tells apart name, route, TLS and clock, which reqwest reports alike.
fn cause(error: &(dyn std::error::Error + 'static)) -> Code {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = tls_cause(cause) {
            return match tls {
                rustls::Error::InvalidCertificate(
                    rustls::CertificateError::NotValidYet
                    | rustls::CertificateError::NotValidYetContext { .. },
                ) => Code::Clock,
                _ => Code::Tls,
            };
        }
        if cause.to_string().contains("dns error") {
            return Code::Dns;
        }
        next = cause.source();
    }
    Code::Connect
}

/// rustls hides in an `io::Error`, or in several around each other, whose
/// `source()` skips over it.
fn tls_cause<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let inner = cause.downcast_ref::<std::io::Error>()?.get_ref()?;
    tls_cause(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn tls_and_clock_are_told_apart_however_deep_they_are() {
        let wrapped = |error: rustls::CertificateError| {
            let tls = rustls::Error::InvalidCertificate(error);
            io::Error::other(io::Error::other(tls))
        };
        for (error, code) in [
            (rustls::CertificateError::NotValidForName, Code::Tls),
            (rustls::CertificateError::NotValidYet, Code::Clock),
        ] {
            assert_eq!(cause(&wrapped(error)), code);
        }
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(cause(&refused), Code::Connect);
    }
}
