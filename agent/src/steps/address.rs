//! Which addresses are this machine's (F9, F11).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use tokio::sync::Mutex;

use super::name;
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::netlink::{self, Netlink, Scope, Snapshot};

/// Stands for the outside: an address that no network has (RFC 5737). Nothing
/// is sent; the kernel is asked which way it would go.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// How long a change has to last: a network manager that restarts takes an
/// address away and gives it back, and a kubelet that is told another one is
/// restarted.
const SETTLED: Duration = Duration::from_secs(2);

/// Remembers what it listens to, so that no change falls between two looks.
#[derive(Default)]
pub struct Address {
    watch: Mutex<Option<netlink::Watch>>,
}

impl Step<Machine> for Address {
    fn name(&self) -> &'static str {
        name::ADDRESS
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let mut watch = self.watch.lock().await;
            let mut ear = match watch.take() {
                Some(ear) => ear,
                None => netlink::watch().context(Code::Netlink, looking)?,
            };
            loop {
                match look(machine).await? {
                    Ok(addresses) => {
                        let told = join(&addresses);
                        machine.addresses.send_if_modified(|known| {
                            let news = known.as_ref() != Some(&addresses);
                            *known = Some(addresses);
                            news
                        });
                        *watch = Some(ear);
                        return Ok(told);
                    }
                    // One that was there and is gone: what was told stays, for
                    // whatever uses it has no better.
                    Err(error) if machine.addresses.borrow().is_some() => {
                        *watch = Some(ear);
                        return Err(error);
                    }
                    // An interface may be on its way up: look when the kernel
                    // says that something changed.
                    Err(error) => machine.status.detail(
                        name::ADDRESS,
                        format!("waiting: {}: {}", error.code(), error.story()),
                    ),
                }
                ear.next().await.context(Code::Netlink, looking)?;
            }
        })
    }

    /// The machine's addresses are others than those that were told, and for a
    /// while.
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut watch = self.watch.lock().await;
            let Some(ear) = watch.as_mut() else { return };
            loop {
                let heard = ear.next().await;
                tokio::time::sleep(SETTLED).await;
                let same = match look(machine).await {
                    Ok(Ok(found)) => machine.addresses.borrow().as_ref() == Some(&found),
                    _ => false,
                };
                if heard.is_err() {
                    *watch = None;
                    return;
                }
                if !same {
                    return;
                }
            }
        })
    }
}

/// The machine's addresses as they are now, or why there are none: within, what
/// may come still; outside, that the kernel does not answer.
async fn look(machine: &Machine) -> Result<Result<Vec<IpAddr>>> {
    let netlink = Netlink::connect().context(Code::Netlink, looking)?;
    let snapshot = netlink.snapshot().await.context(Code::Netlink, looking)?;
    let routed = netlink.resolve(OUTSIDE).await;
    let routed = routed.context(Code::Netlink, looking)?;
    Ok(choose(machine, &snapshot, routed.map(|route| route.source)))
}

fn looking() -> String {
    "looking at the machine's addresses".to_owned()
}

/// The settings' addresses once the machine has them, else the one that the
/// kernel would use towards the outside.
fn choose(machine: &Machine, snapshot: &Snapshot, routed: Option<IpAddr>) -> Result<Vec<IpAddr>> {
    let has = |wanted: &IpAddr| snapshot.addresses.iter().any(|a| a.net.addr() == *wanted);
    let named = &machine.config.node.addresses;
    if !named.is_empty() {
        return match named.iter().find(|address| !has(address)) {
            None => Ok(named.clone()),
            Some(missing) => Err(Error::new(
                Code::Address,
                format!("no interface has {missing}, this machine's address in the settings"),
            )),
        };
    }
    let cluster = &machine.config.cluster;
    let inside = |address: &IpAddr| -> bool {
        let mut ranges = cluster.pod_cidrs.iter().chain(&cluster.service_cidrs);
        ranges.any(|range: &IpNet| range.contains(address))
    };
    let global = |address: &IpAddr| {
        snapshot
            .addresses
            .iter()
            .any(|a| a.net.addr() == *address && a.scope == Scope::Global)
    };
    routed
        .filter(|address| global(address) && !inside(address))
        .map(|address| vec![address])
        .ok_or_else(|| {
            Error::new(
                Code::Address,
                "no interface with a default route has a global address outside the pod and service ranges",
            )
        })
}

fn join(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}
