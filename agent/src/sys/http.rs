//! HTTP: downloads as streams that never hang, and clients for TLS probes.
//!
//! One crate beneath: reqwest (with rustls on ring, and hickory for names: a
//! static binary must not load the host's resolver libraries).

mod download;

use std::time::Duration;

pub use download::{Blame, Download, Limits, Point, Trouble};
pub use reqwest::Client;
use reqwest::{Certificate, Identity};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::error::{Code, Context, Error, Result};
use crate::sys::resolve::Names;

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

/// The same, for servers that speak HTTP/1.1 alone though TLS lets them be
/// offered more.
///
/// # Errors
///
/// As [`client`].
pub fn http1_client(trust: &Trust) -> Result<Client> {
    builder(trust)?
        .http1_only()
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

/// A client for one unix socket that speaks HTTP/1.1 without TLS.
///
/// # Errors
///
/// [`Code::Tls`], which cannot happen without TLS.
pub fn local_socket_client(socket: &std::path::Path) -> Result<Client> {
    Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .tls_certs_only([])
        .build()
        .context(Code::Tls, || "preparing an HTTP client".to_owned())
}

/// A client that asks one server how it is: `host` at these addresses and
/// nowhere else, trusted by this authority (PEM) alone.
///
/// # Errors
///
/// As [`client`].
pub fn probe_client(
    authority: &[u8],
    host: &str,
    addresses: &[std::net::SocketAddr],
) -> Result<Client> {
    let trust = Trust {
        only: Some(authority.to_vec()),
        identity: None,
    };
    builder(&trust)?
        // With HTTP/2 a connection outlives a request that got no answer.
        .http1_only()
        .resolve_to_addrs(host, addresses)
        .timeout(Duration::from_secs(3))
        .build()
        .context(Code::Tls, || "preparing an HTTP client".to_owned())
}

fn builder(trust: &Trust) -> Result<reqwest::ClientBuilder> {
    let mut builder = Client::builder()
        .dns_resolver(Names::shared())
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
                .dns_resolver(Names::shared())
                .connect_timeout(CONNECT)
                .tls_certs_only([])
                .build()
                .context(Code::Tls, || "preparing an HTTP client".to_owned())
        }
    }
}

/// A client for machines nearby, named by their addresses: without TLS and
/// proxies, and quick to give up.
///
/// # Errors
///
/// [`Code::Tls`], which cannot happen without TLS.
pub fn near_client(connect: Duration) -> Result<Client> {
    Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .connect_timeout(connect)
        .build()
        .context(Code::Tls, || "preparing an HTTP client".to_owned())
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

/// A client for health checks on this machine's loopback, where servers make
/// their own certificates; nothing secret is ever sent by it.
///
/// # Errors
///
/// [`Code::Tls`]: there is no TLS.
pub fn health_client() -> Result<Client> {
    Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .tls_danger_accept_invalid_certs(true)
        .http1_only()
        .build()
        .context(Code::Tls, || "preparing an HTTP client".to_owned())
}

/// What time it is, by the `Date` of whatever `url` answers (RFC 9110, 6.6.1);
/// `None` where the answer has none.
///
/// # Errors
///
/// [`Code::Dns`], [`Code::NoName`], [`Code::Connect`], [`Code::Tls`],
/// [`Code::Clock`]: no answer.
pub async fn date(client: &Client, url: &str) -> Result<Option<OffsetDateTime>> {
    let answer = client.head(url).timeout(Duration::from_secs(5)).send();
    let answer = answer.await.map_err(|error| refused(error, url))?;
    Ok(answer
        .headers()
        .get(reqwest::header::DATE)
        .and_then(|date| date.to_str().ok())
        .and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok()))
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
        // What our own resolver said.
        if let Some(named) = cause.downcast_ref::<Error>() {
            return named.code();
        }
        if let Some(tls) = tls_cause(cause) {
            return match tls {
                rustls::Error::InvalidCertificate(
                    rustls::CertificateError::NotValidYet
                    | rustls::CertificateError::NotValidYetContext { .. },
                ) => Code::Clock,
                _ => Code::Tls,
            };
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
