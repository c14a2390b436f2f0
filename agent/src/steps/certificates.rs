//! Certificates that the user-data brought are renewed at two thirds of their
//! life, for ever and without anybody (B13).
//!
//! Where the authority's key is, on masters and members of etcd, they are
//! signed here. Elsewhere the kubelet's serving certificate is asked for by a
//! CertificateSigningRequest, and kube-proxy changes over to the kubelet's own
//! certificate, which the kubelet rotates.
//!
//! API server, etcd and kubelet read such files again by themselves; the others
//! are restarted.

mod kept;
mod renew;

use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::{name, services, static_pods};
use crate::credentials;
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::renewals;
use crate::sys::http::Pem;
use crate::sys::pki;
use kept::Kept;
pub(super) use kept::due;
use units::node_config::Service;
use units::paths;

/// How often certificates are looked at.
const LOOK: Duration = Duration::from_secs(3600);
/// How long the kubelet's client certificate lives that a master makes itself;
/// the kubelet rotates it.
const KUBELET_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

pub struct Certificates {
    /// Whether the authorities' keys are on this machine: then its certificates
    /// are mended before anything starts with them.
    pub signs: bool,
}

impl Step<Machine> for Certificates {
    fn name(&self) -> &'static str {
        name::CERTIFICATES
    }

    fn after(&self) -> &[&'static str] {
        if self.signs {
            &[name::IDENTITY]
        } else {
            &[name::REGISTER]
        }
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let now = OffsetDateTime::now_utc();
            let (mut renewed, mut late, mut first_end) = (Vec::new(), Vec::new(), None);
            if self.signs && machine.runs(Service::Kubelet) && mend_kubelet(machine, now)? {
                restart(machine, Service::Kubelet).await?;
                renewed.push("kubelet-client".to_owned());
            }
            for kept in Kept::of(machine)? {
                let state = kept.state(machine, now)?;
                if let Some(problem) = state.problem(machine, now) {
                    match renew::renew(machine, &kept, &state, now).await {
                        Ok(true) => renewed.push(kept.name().to_owned()),
                        Ok(false) => {}
                        // It still serves; another look may go better.
                        Err(error) if state.is_valid(now) => {
                            late.push(format!("{problem}: {}", error.story()));
                        }
                        Err(error) => {
                            let story = format!("{problem}: {}", error.story());
                            return Err(Error::new(error.code(), story));
                        }
                    }
                }
                let end = kept.state(machine, now)?.ends();
                first_end = first_end.into_iter().chain(end).min();
            }
            // Also those of a knode that was killed before it could.
            for mut renewal in renewals::read(&machine.root, &machine.config.manifest)? {
                if let Some(service) = renewal.restart.take() {
                    restart(machine, service).await?;
                    renewal.keep(&machine.root)?;
                }
            }
            for late in &late {
                tracing::warn!("{late}");
            }
            Ok(describe(&renewed, &late, first_end, now))
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(tokio::time::sleep(LOOK))
    }
}

fn describe(
    renewed: &[String],
    late: &[String],
    first_end: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> String {
    let mut told = match first_end {
        Some(end) => format!("good for {} days", (end - now).whole_days()),
        None => "the kubelet's own alone".to_owned(),
    };
    if !renewed.is_empty() {
        told.push_str(&format!("; renewed {}", renewed.join(", ")));
    }
    if !late.is_empty() {
        told.push_str(&format!("; not yet: {}", late.join(", ")));
    }
    told
}

async fn restart(machine: &Machine, service: Service) -> Result<()> {
    if machine.in_pod(service) && static_pods::restart(machine, service).await? {
        tracing::info!("restarted the pod {service}: it reads its certificate at its start alone");
    }
    if machine.runs(service) {
        let bus = services::connect().await?;
        if services::restart_if_active(machine, &bus, service).await? {
            tracing::info!("restarted {service}: it reads its certificate at its start alone");
        }
    }
    Ok(())
}

/// A master whose kubelet has no usable identity makes it a new one, as kgen
/// did the first (F7, F24); says whether it did.
fn mend_kubelet(machine: &Machine, now: OffsetDateTime) -> Result<bool> {
    let root = &machine.root;
    match credentials::kubelet(root, &machine.name, now) {
        Ok(_) => return Ok(false),
        Err(error) if error.code() == Code::IdentityCert => {
            tracing::warn!("{}; this master makes a new one", error.story());
        }
        Err(error) => return Err(error),
    }
    let identity = pki::client_identity(
        &root.read(paths::CA_CERT)?,
        &Pem(root.read(paths::CA_KEY)?),
        &format!("system:node:{}", machine.name),
        "system:nodes",
        KUBELET_LIFE,
    )?;
    credentials::keep(root, &identity, now)?;
    Ok(true)
}
