//! The distribution's Docker daemon, reached over TLS from outside (P19): it
//! runs with the document's configuration, answers, and its certificate's end
//! is told in time.
//!
//! Its authority's key is on no machine, so that none can make itself a client:
//! what it serves with is renewed by a new document, and the daemon is started
//! anew with it.

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::services::{self, IfActive};
use super::{again, certificates, name};
use crate::changes::applied;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::supervise::place;
use crate::sys::http;
use crate::sys::pki::{self, Facts};
use crate::sys::root::Root;
use units::node_config::Service;
use units::paths;

/// How long the daemon may take to answer after its start.
const ANSWER: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ASKED: Duration = Duration::from_secs(5);

pub struct Docker;

impl Step<Machine> for Docker {
    fn name(&self) -> &'static str {
        name::DOCKER
    }

    /// It runs its containers by the machine's containerd.
    fn after(&self) -> &[&'static str] {
        &[name::IDENTITY, name::RUNTIME]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let root = &machine.root;
            // A distribution's daemon may run since boot, from before the
            // document was there; one that knode started is known.
            let ours = applied::read(root)?.services.contains_key(&Service::Docker);
            let if_active = match ours {
                true => IfActive::Leave,
                false => IfActive::Restart,
            };
            let bus = services::connect().await?;
            services::ensure_active(machine, &bus, Service::Docker, if_active).await?;
            answering(machine).await?;
            let now = OffsetDateTime::now_utc();
            let told = life(&certificate(root)?, machine.name.as_str(), now)?;
            Ok(format!("answers; {told}"))
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(again::when_stopped(machine, &[Service::Docker]))
    }
}

/// Asks over its socket until it answers; a started unit is not enough.
async fn answering(machine: &Machine) -> Result<()> {
    let client = http::local_socket_client(&machine.root.path(Path::new(paths::DOCKER_SOCKET)))?;
    let ask = async {
        loop {
            let asked = client.get(place::DOCKER_PING).timeout(ASKED).send().await;
            let answer = asked.and_then(|answer| answer.error_for_status());
            match answer.map_err(|error| http::refused(error, place::DOCKER_PING)) {
                Ok(_) => return,
                Err(error) => machine.status.detail(name::DOCKER, error.story()),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(ANSWER, ask).await.map_err(|_| {
        let text = format!("docker does not answer after {} s", ANSWER.as_secs());
        Error::new(Code::Unhealthy, text)
    })
}

fn certificate(root: &Root) -> Result<Facts> {
    let path = format!("{}/server.crt", paths::DOCKER_TLS);
    let authority = root.read(format!("{}/ca.crt", paths::DOCKER_TLS))?;
    pki::inspect(
        &format!("the certificate in {path}"),
        &root.read(&path)?,
        &authority,
    )
}

/// For how long the daemon's certificate is good, and what to do once it is
/// time for another.
fn life(facts: &Facts, machine: &str, now: OffsetDateTime) -> Result<String> {
    let cure = "kgen certs renew docker/server, and this machine's new document, bring another";
    let end = facts.not_after.date();
    if now >= facts.not_after {
        let text = format!("docker's certificate expired on {end}: {cure}");
        return Err(Error::new(Code::IdentityCert, text));
    }
    if now >= certificates::due(facts, machine) {
        return Ok(format!("its certificate ends on {end}: {cure}"));
    }
    let days = (facts.not_after - now).whole_days();
    Ok(format!("its certificate is good for {days} days"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn the_end_of_the_certificate_is_told_in_time() {
        let facts = Facts {
            common_name: "node-1".to_owned(),
            not_before: datetime!(2026-01-01 0:00 UTC),
            not_after: datetime!(2026-12-27 0:00 UTC),
        };
        let told = |now| life(&facts, "node-1", now);
        let early = told(datetime!(2026-06-01 0:00 UTC)).unwrap();
        assert_eq!(early, "its certificate is good for 209 days");
        let late = told(datetime!(2026-10-01 0:00 UTC)).unwrap();
        assert!(
            late.contains("ends on 2026-12-27: kgen certs renew"),
            "{late}"
        );
        let over = told(datetime!(2026-12-27 0:00 UTC)).unwrap_err();
        assert_eq!(over.code(), Code::IdentityCert);
    }
}
