//! This machine's member of etcd (P13, P37).

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{again, name, services, static_pods};
use crate::error::{Code, Error, Result};
use crate::etcd::{join, ring};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::bus::Bus;
use crate::sys::etcd::LOCAL;
use units::node_config::Service;

/// How long a member may take to join before its start counts as failed; the
/// unit goes on trying meanwhile.
const JOIN: Duration = Duration::from_secs(60);
/// How long a restart waits for the ring's other members at most.
const TURN: Duration = Duration::from_secs(300);

pub struct Etcd {
    /// Whether the kubelet runs it as a static pod.
    pub in_pod: bool,
}

impl Step<Machine> for Etcd {
    fn name(&self) -> &'static str {
        name::ETCD
    }

    fn after(&self) -> &[&'static str] {
        if self.in_pod {
            &[name::CERTIFICATES, name::KUBELET]
        } else {
            &[name::CERTIFICATES]
        }
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            if self.in_pod {
                if services::would_restart_pod(machine, Service::Etcd)? {
                    await_turn(machine).await?;
                }
                services::ensure_current_pod(machine, Service::Etcd).await?;
                let well = until_healthy(machine);
                if let Err(error) = static_pods::patiently(machine, Service::Etcd, well).await {
                    join::diagnose(machine).await?;
                    return Err(error);
                }
                join::settle(machine, name::ETCD).await?;
                return Ok("healthy, in its pod".to_owned());
            }
            machine
                .until_installed(name::ETCD, &["/opt/kubernetes/bin/etcd"])
                .await;
            let bus = services::connect().await?;
            // No command of the operator's works on it at the same time.
            let _held = join::hold(&machine.root)?;
            join::prepare(machine, &bus).await?;
            if let Err(error) = run(machine, &bus).await {
                // The ring may know more of it.
                join::diagnose(machine).await?;
                return Err(error);
            }
            Ok("healthy".to_owned())
        })
    }

    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(again::when_ended(machine, &[Service::Etcd]))
    }
}

async fn run(machine: &Machine, bus: &Bus) -> Result<()> {
    if services::would_restart(machine, bus, Service::Etcd).await? {
        await_turn(machine).await?;
    }
    let started = services::ensure_active_within(machine, bus, Service::Etcd, JOIN).await?;
    started.ok_or_else(|| {
        let story = format!("etcd has not joined its ring after {} s", JOIN.as_secs());
        Error::new(Code::Etcd, story)
    })?;
    join::settle(machine, name::ETCD).await?;
    machine.etcd_gateway()?.healthy(LOCAL).await
}

/// Until a restart of this member leaves the ring its majority. One that is
/// ill for long does not keep a new configuration away for ever: it may be
/// what mends it.
async fn await_turn(machine: &Machine) -> Result<()> {
    let gateway = machine.etcd_gateway()?;
    let began = Instant::now();
    while let Some(reason) = ring::not_now(&gateway).await {
        if began.elapsed() > TURN {
            tracing::warn!("etcd is restarted all the same: {reason}");
            break;
        }
        machine
            .status
            .detail(name::ETCD, format!("to be restarted; {reason}"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn until_healthy(machine: &Machine) -> Result<()> {
    let gateway = machine.etcd_gateway()?;
    while let Err(error) = gateway.healthy(LOCAL).await {
        machine.status.detail(name::ETCD, error.story());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
