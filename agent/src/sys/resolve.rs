//! Host names to addresses, by the name servers of /etc/resolv.conf and by
//! /etc/hosts: what fails says whom it asked, and tells servers that do not
//! answer from those that know no such name (F5).
//!
//! Beneath: hickory. The C library's resolver is out of reach for a static
//! binary.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{TokioResolver, system_conf};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::error::{Code, Context as _, Error, Result};

/// How long all of it may take: shorter than any attempt that needs the name,
/// or the attempt's end would be told instead.
const LIMIT: Duration = Duration::from_secs(4);
/// How long one server may take; what is lost on the way is sent again.
const ANSWER: Duration = Duration::from_millis(1500);
const AGAIN: usize = 1;

/// The addresses of a host, by name or as text. resolv.conf is read each time:
/// it may have changed since the last attempt.
///
/// # Errors
///
/// [`Code::Dns`]: nobody answers, or all fail; [`Code::NoName`]: there is no
/// such name, or it has no address.
pub async fn addresses(host: &str) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let reading = || format!("resolving {host}: reading /etc/resolv.conf");
    let (config, mut options) = system_conf::read_system_conf().context(Code::Dns, reading)?;
    let asked = servers(&config);
    options.timeout = ANSWER;
    options.attempts = AGAIN;
    let provider = TokioRuntimeProvider::default();
    let resolver = TokioResolver::builder_with_config(config, provider)
        .with_options(options)
        .build()
        .context(Code::Dns, || format!("resolving {host}"))?;
    match tokio::time::timeout(LIMIT, resolver.lookup_ip(host)).await {
        Ok(Ok(found)) => Ok(found.iter().collect()),
        Ok(Err(error)) => Err(refused(host, &asked, &error)),
        Err(_) => Err(refused(host, &asked, &NetError::Timeout)),
    }
}

/// Whom resolv.conf names.
fn servers(config: &ResolverConfig) -> String {
    let mut servers: Vec<String> = config
        .name_servers()
        .iter()
        .map(|server| server.ip.to_string())
        .collect();
    servers.dedup();
    match servers.as_slice() {
        [] => "no name server, as /etc/resolv.conf names none".to_owned(),
        [one] => format!("name server {one}"),
        several => format!("name servers {}", several.join(", ")),
    }
}

fn refused(host: &str, asked: &str, error: &NetError) -> Error {
    if error.is_nx_domain() {
        let text = format!("there is no {host}, says {asked}");
        return Error::new(Code::NoName, text);
    }
    let text = format!("resolving {host} by {asked}");
    match error {
        NetError::Timeout => Error::new(Code::Dns, format!("{text}: no answer")),
        error => Error::new(Code::Dns, format!("{text}: {error}")),
    }
}

/// The same for HTTP clients.
#[derive(Debug, Clone, Copy)]
pub struct Names;

impl Names {
    /// As reqwest takes it.
    pub fn shared() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = addresses(name.as_str()).await?;
            // The port is the URL's.
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}
