//! A machine that nobody knew beforehand gets its identity: by its pool's
//! token it asks the cluster for a certificate, with a key that it makes
//! itself (P15, F7, F24).
//!
//! Source: Kubernetes documentation, "TLS bootstrapping".

mod clash;

use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::{name, services};
use crate::credentials::{self, Credentials};
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::retry::Backoff;
use crate::signing::{self, KUBELET_CLIENT, Question, Signed};
use crate::sys::kubeconfig::Kubeconfig;
use crate::sys::pki::Request;
use units::node_config::{self, Service};
use units::paths;
use units::types::NodeName;

/// How long a refusal is only told: in a cluster that comes up, the token's
/// object and its rights are on their way.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the identity is looked at; the kubelet rotates it long before
/// its end.
const LOOK: Duration = Duration::from_secs(300);

pub struct Bootstrap;

impl Step<Machine> for Bootstrap {
    fn name(&self) -> &'static str {
        name::BOOTSTRAP
    }

    fn after(&self) -> &[&'static str] {
        &[name::WAIT]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let why = match own(machine) {
                Ok(own) => {
                    clash::check(machine).await?;
                    return Ok(describe(&own));
                }
                Err(error) if error.code() == Code::IdentityCert => error.story(),
                Err(error) => return Err(error),
            };
            machine
                .status
                .detail(name::BOOTSTRAP, format!("{why}; asking for one"));
            let identity = ask(machine).await?.identity();
            let question = question(&machine.name);
            credentials::keep(&machine.root, &identity, OffsetDateTime::now_utc())?;
            let own = own(machine)?;
            signing::forget(&machine.root, &question)?;
            clash::check(machine).await?;
            // One that already runs holds what cannot be used.
            let bus = services::connect().await?;
            services::restart_if_active(machine, &bus, Service::Kubelet).await?;
            Ok(format!("got {}", describe(&own)))
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(tokio::time::sleep(LOOK))
    }
}

fn own(machine: &Machine) -> Result<Credentials> {
    credentials::kubelet(&machine.root, &machine.name, OffsetDateTime::now_utc())
}

fn describe(own: &Credentials) -> String {
    let days = (own.facts.not_after - OffsetDateTime::now_utc()).whole_days();
    format!("{} for {days} days", own.facts.common_name)
}

fn question(node: &NodeName) -> Question {
    Question {
        signer: KUBELET_CLIENT,
        usage: "client auth",
        request: Request {
            common_name: format!("system:node:{node}"),
            organizations: vec!["system:nodes".to_owned()],
            ..Request::default()
        },
    }
}

/// Asks until there is an answer; refusals are borne for a while.
async fn ask(machine: &Machine) -> Result<Signed> {
    let text = machine.root.read_to_string(paths::BOOTSTRAP_KUBECONFIG)?;
    let config = Kubeconfig::parse(&text).context(Code::IdentityCert, || {
        format!("reading {}", paths::BOOTSTRAP_KUBECONFIG)
    })?;
    let question = question(&machine.name);
    let tell = |detail: String| machine.status.detail(name::BOOTSTRAP, detail);
    let began = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    loop {
        let api = config.api(&machine.root)?;
        let error = match signing::obtain(&machine.root, &api, &question, tell).await {
            Ok(signed) => return Ok(signed),
            Err(error) => error,
        };
        let bootstrap = machine.config.bootstrap.as_ref();
        let expired = bootstrap.and_then(|b| expired(b, OffsetDateTime::now_utc()));
        let refused = matches!(error.code(), Code::BootstrapToken | Code::ApiRefused);
        match (error.code(), expired) {
            (Code::BootstrapToken, Some(reason)) => {
                return Err(Error::new(Code::BootstrapToken, reason));
            }
            _ if refused && began.elapsed() < PATIENCE => tell(format!(
                "waiting for the cluster to know the token: {}",
                error.story()
            )),
            _ => return Err(error),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Why the token is refused, if it is because of its age.
fn expired(bootstrap: &node_config::Bootstrap, now: OffsetDateTime) -> Option<String> {
    let expires = OffsetDateTime::parse(&bootstrap.expires, &Rfc3339).ok()?;
    (now >= expires).then(|| {
        format!(
            "the token of the pool {} was good until {}",
            bootstrap.pool, bootstrap.expires
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn an_old_token_is_named_with_its_pool() {
        let bootstrap = node_config::Bootstrap {
            pool: "workers".to_owned(),
            expires: "2026-12-01T00:00:00Z".to_owned(),
        };
        assert_eq!(expired(&bootstrap, datetime!(2026-11-30 23:59 UTC)), None);
        let reason = expired(&bootstrap, datetime!(2026-12-01 0:00 UTC)).unwrap();
        assert!(reason.contains("workers") && reason.contains("2026-12-01"));
    }
}
