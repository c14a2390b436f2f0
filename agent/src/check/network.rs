//! What is to be seen of others: do their names resolve, do they answer, and
//! what time do they think it is?

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;

use crate::error::{Code, Error, Result};
use crate::sys::http::{self, Trust};
use crate::sys::root::Root;
use crate::wait;
use units::NodeConfig;
use units::paths;

/// The longest that one of them may take.
const LIMIT: Duration = Duration::from_secs(6);

/// Another machine, as seen from here.
#[derive(Debug, Clone)]
pub struct Outside {
    /// What it is: `endpoint` or `mirror`.
    pub role: &'static str,
    /// `https://HOST:PORT/`.
    pub url: String,
    /// Its addresses, or why there are none.
    pub addresses: Result<Vec<IpAddr>, (Code, String)>,
    /// How far our clock is ahead of its own, in seconds, where it tells the
    /// time; or why it does not answer. Absent where it has no address.
    pub ahead: Option<Result<Option<i64>, (Code, String)>>,
}

/// Looks at the API server and at every place that artifacts come from.
pub async fn look_outside(root: &Root, config: &NodeConfig) -> Vec<Outside> {
    let endpoint = origin(&config.cluster.endpoint).map(|url| ("endpoint", url));
    let urls = config.artifacts.iter().flat_map(|artifact| &artifact.urls);
    let mirrors: BTreeSet<String> = urls.filter_map(|url| origin(url)).collect();
    let all = endpoint
        .into_iter()
        .chain(mirrors.into_iter().map(|url| ("mirror", url)));
    join_all(all.map(|(role, url)| look(root, role, url))).await
}

/// How far our clock is ahead of another machine's, in seconds, and whose that
/// is; `None` where nobody tells.
pub async fn clock_ahead(root: &Root, config: &NodeConfig) -> Option<(i64, String)> {
    let seen = look_outside(root, config).await;
    seen.into_iter()
        .find_map(|other| Some((other.ahead?.ok()??, other.url)))
}

async fn look(root: &Root, role: &'static str, url: String) -> Outside {
    let told = |error: Error| (error.code(), error.story());
    let addresses = match tokio::time::timeout(LIMIT, wait::resolve(host(&url))).await {
        Ok(found) => found.map_err(told),
        Err(_) => Err((Code::Dns, format!("no answer within {} s", LIMIT.as_secs()))),
    };
    let mut ahead = None;
    if addresses.is_ok() {
        let asked = tokio::time::timeout(LIMIT, date(root, role, &url)).await;
        ahead = Some(match asked {
            Ok(Ok(date)) => {
                let now = OffsetDateTime::now_utc();
                Ok(date.map(|date| (now - date).whole_seconds()))
            }
            Ok(Err(error)) => Err(told(error)),
            Err(_) => Err((
                Code::Connect,
                format!("no answer within {} s", LIMIT.as_secs()),
            )),
        });
    }
    Outside {
        role,
        url,
        addresses,
        ahead,
    }
}

async fn date(root: &Root, role: &str, url: &str) -> Result<Option<OffsetDateTime>> {
    let client = if role == "endpoint" {
        let only = root.read_if_exists(paths::CA_CERT)?;
        http::client(&Trust {
            only,
            identity: None,
        })?
    } else {
        http::download_client()?
    };
    http::date(&client, url).await
}

/// The part of an address that names the server.
pub fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let server = rest.split(['/', '?', '#']).next()?;
    let server = server.rsplit_once('@').map_or(server, |(_, server)| server);
    (!server.is_empty()).then(|| format!("{scheme}://{server}/"))
}

/// The name or address in an origin.
pub fn host(origin: &str) -> &str {
    let server = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let server = server.trim_end_matches('/');
    match server.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => server.split(':').next().unwrap_or(server),
    }
}
