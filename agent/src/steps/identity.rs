//! Is everything here that the user-data brought, and is this machine who it
//! says it is? (F6, F7, F24, F30)

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::{name, services};
use crate::check;
use crate::credentials;
use crate::document;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::renewals;
use units::node_config::Service;
use units::paths;

pub struct Identity;

impl Step<Machine> for Identity {
    fn name(&self) -> &'static str {
        name::IDENTITY
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let manifest = &machine.config.manifest;
            let renewals = renewals::read(&machine.root, manifest)?;
            for entry in manifest {
                if !renewals.iter().any(|renewal| renewal.replaces(entry)) {
                    document::intact(&machine.root, entry)?;
                }
            }
            renewals::put_back(&machine.root, &renewals)?;
            let files = manifest.len();
            if !machine.runs(Service::Kubelet) {
                return Ok(format!("{files} files intact"));
            }
            let now = OffsetDateTime::now_utc();
            let facts = match credentials::kubelet(&machine.root, &machine.name, now) {
                Ok(chosen) => {
                    if credentials::settle(&machine.root, &chosen, now)? {
                        let bus = services::connect().await?;
                        services::restart_if_active(machine, &bus, Service::Kubelet).await?;
                    }
                    chosen.facts
                }
                Err(error) if error.code() == Code::IdentityCert && gets_its_own(machine)? => {
                    return Ok(format!("{files} files intact; {}", error.story()));
                }
                Err(error) => return Err(or_clock(machine, error).await),
            };
            let days = (facts.not_after - now).whole_days();
            let name = facts.common_name;
            Ok(format!("{files} files intact, {name} for {days} days"))
        })
    }
}

/// A certificate that seems to have expired may be good, and the clock wrong:
/// then that is what is told (F6). What others' clocks say is told, and nothing
/// else depends on it.
async fn or_clock(machine: &Machine, error: Error) -> Error {
    if error.code() != Code::IdentityCert {
        return error;
    }
    let told = check::clock_ahead(&machine.root, &machine.config).await;
    match told.and_then(|(seconds, url)| clock(seconds, &url)) {
        Some(clock) => Error::new(Code::Clock, format!("{clock}; {}", error.story())),
        None => error,
    }
}

/// The longest that clocks may be apart without harm to a certificate.
const APART: i64 = 3600;

fn clock(ahead: i64, url: &str) -> Option<String> {
    let (hours, minutes) = (ahead.abs() / 3600, ahead.abs() / 60 % 60);
    let where_to = if ahead > 0 { "ahead of" } else { "behind" };
    (ahead.abs() > APART)
        .then(|| format!("the clock is {hours} h {minutes} min {where_to} that of {url}"))
}

/// Whether the machine mends a missing identity itself: by a token, or with
/// the authority's key.
fn gets_its_own(machine: &Machine) -> Result<bool> {
    Ok(machine.config.bootstrap.is_some() || machine.root.exists(paths::CA_KEY)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_a_wrong_clock_is_named_and_a_good_one_is_not_blamed() {
        let url = "http://10.0.0.1:8000/";
        let told = clock(400 * 24 * 3600 + 720, url).unwrap();
        assert!(told.contains("9600 h 12 min ahead of"), "{told}");
        assert!(clock(-7200, url).unwrap().contains("2 h 0 min behind"));
        assert_eq!(clock(59 * 60, url), None);
    }
}
