//! One master at a time restarts its control plane: a Lease, and a look at the
//! others before.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Code, Context as _, Error, Result};
use crate::machine::Machine;
use crate::sys::api::{self, Api};
use crate::sys::http::{self, Trust};
use units::paths;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const NAME: &str = "knode-control-plane";
/// A master that holds it for longer is taken to be gone.
const HELD: i64 = 300;
/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// How long the others are waited for where the program stays: a change of
/// ports, say, may be what keeps them from being reached.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to do about the Lease.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Create,
    Take,
    Hold,
    Wait(String),
}

fn decide(lease: Option<&Value>, me: &str, now: OffsetDateTime) -> Move {
    let Some(lease) = lease else {
        return Move::Create;
    };
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let renewed = lease["spec"]["renewTime"].as_str();
    let renewed = renewed.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    let is_old = renewed.is_none_or(|time| now - time > time::Duration::seconds(HELD));
    match holder {
        "" => Move::Take,
        holder if holder == me => Move::Hold,
        _ if is_old => Move::Take,
        other => Move::Wait(format!("{other} restarts its control plane")),
    }
}

/// Returns when this master may restart its control plane; at once where there
/// is no other. `patient`: however long it takes.
///
/// # Errors
///
/// What keeps it from being a master.
pub async fn acquire(machine: &Machine, step: &str, patient: bool) -> Result<()> {
    let servers = others(machine);
    if servers.is_empty() {
        return Ok(());
    }
    let api = machine.administrator_api()?;
    let mut began = Instant::now();
    loop {
        let why = match attempt(machine, &api, &servers).await {
            Ok(Attempt::Has) => return Ok(()),
            // Whoever has it is at work; the Lease itself ends if it is gone.
            Ok(Attempt::Held(why)) => {
                began = Instant::now();
                why
            }
            Ok(Attempt::Away(why)) => why,
            // Its own API server does not serve: nothing is lost by a restart.
            Err(error) if error.code() == Code::ApiUnreachable => return Ok(()),
            Err(error) => error.story(),
        };
        let error = Error::new(Code::Turn, why);
        let told = format!("waits: {}: {}", error.code(), error.story());
        if !patient && began.elapsed() > PATIENCE {
            tracing::warn!(step, code = %error.code(), "{told}: goes on without");
            return Ok(());
        }
        machine.status.detail(step, told);
        tokio::time::sleep(LOOK).await;
    }
}

/// What came of asking for the Lease.
enum Attempt {
    /// It is this master's.
    Has,
    /// Another master has it.
    Held(String),
    /// A master is away.
    Away(String),
}

async fn attempt(machine: &Machine, api: &Api, servers: &[String]) -> Result<Attempt> {
    let path = format!("{LEASES}/{NAME}");
    let lease = api.get(&path).await?;
    let me = machine.name.as_str();
    let next = decide(lease.as_ref(), me, OffsetDateTime::now_utc());
    if let Move::Wait(why) = next {
        return Ok(Attempt::Held(why));
    }
    for server in servers {
        if let Err(error) = ready(machine, server).await {
            let why = format!("{server} is not ready: {}", error.story());
            return Ok(Attempt::Away(why));
        }
    }
    let mut spec = spec(me)?;
    let won = match next {
        Move::Create => {
            spec["metadata"]["name"] = json!(NAME);
            api.create(LEASES, &spec).await?.is_some()
        }
        _ => {
            let version = lease.map(|lease| lease["metadata"]["resourceVersion"].clone());
            spec["metadata"]["resourceVersion"] = version.unwrap_or_default();
            api.merge_unchanged(&path, &spec).await?.is_some()
        }
    };
    Ok(match won {
        true => Attempt::Has,
        false => Attempt::Held("another master was quicker".to_owned()),
    })
}

fn spec(holder: &str) -> Result<Value> {
    let now = OffsetDateTime::now_utc();
    // MicroTime has exactly six digits.
    let form = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    let now = now.format(&form);
    let now = now.context(Code::Clock, || "reading the clock".to_owned())?;
    Ok(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {},
        "spec": {"holderIdentity": holder, "renewTime": now, "leaseDurationSeconds": HELD},
    }))
}

/// The next master may go: this one's control plane is well again.
///
/// # Errors
///
/// As every request; see [`Api::get`].
pub async fn release(machine: &Machine) -> Result<()> {
    if others(machine).is_empty() {
        return Ok(());
    }
    let api = machine.administrator_api()?;
    let path = format!("{LEASES}/{NAME}");
    let Some(lease) = api.get(&path).await? else {
        return Ok(());
    };
    if lease["spec"]["holderIdentity"] != machine.name.as_str() {
        return Ok(());
    }
    let version = &lease["metadata"]["resourceVersion"];
    let free = json!({
        "metadata": {"resourceVersion": version},
        "spec": {"holderIdentity": ""},
    });
    // Who has taken it meanwhile keeps it.
    api.merge_unchanged(&path, &free).await?;
    Ok(())
}

/// The other masters' API servers, `HOST:PORT`.
fn others(machine: &Machine) -> Vec<String> {
    let own = &machine.config.node.addresses;
    let servers = machine.config.balancer.iter().flat_map(|b| &b.servers);
    let is_own = |server: &str| {
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        host == machine.name.as_str() || own.iter().any(|address| address.to_string() == host)
    };
    servers.filter(|server| !is_own(server)).cloned().collect()
}

async fn ready(machine: &Machine, server: &str) -> Result<()> {
    let client = http::client(&Trust {
        only: Some(machine.root.read(paths::CA_CERT)?),
        identity: None,
    })?;
    let url = format!("https://{server}");
    let asking = api::alive(&client, &url);
    let limit = Duration::from_secs(5);
    let asked = tokio::time::timeout(limit, asking).await;
    asked.context(Code::ApiUnreachable, || "waiting for an answer".to_owned())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn one_master_at_a_time_has_it() {
        let now = datetime!(2026-11-21 12:00:00 UTC);
        let lease = |holder: &str, renewed: &str| json!({"spec": {"holderIdentity": holder, "renewTime": renewed}});
        assert_eq!(decide(None, "m1", now), Move::Create);
        let fresh = "2026-11-21T11:59:00.000000Z";
        assert_eq!(decide(Some(&lease("", fresh)), "m1", now), Move::Take);
        assert_eq!(decide(Some(&lease("m1", fresh)), "m1", now), Move::Hold);
        let taken = decide(Some(&lease("m2", fresh)), "m1", now);
        assert_eq!(
            taken,
            Move::Wait("m2 restarts its control plane".to_owned())
        );
        let old = "2026-11-21T11:50:00.000000Z";
        assert_eq!(decide(Some(&lease("m2", old)), "m1", now), Move::Take);
    }

    #[test]
    fn a_lease_is_written_as_the_api_takes_it() {
        let spec = spec("m1").unwrap();
        let time = spec["spec"]["renewTime"].as_str().unwrap();
        assert_eq!(time.len(), "2026-11-21T12:00:00.000000Z".len(), "{time}");
        assert!(OffsetDateTime::parse(time, &Rfc3339).is_ok());
    }
}
