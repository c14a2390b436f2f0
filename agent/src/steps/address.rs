//! Which addresses are this machine's (F9, F11).

use std::net::{IpAddr, Ipv4Addr};

use futures_util::future::BoxFuture;
use ipnet::IpNet;

use super::name;
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::netlink::{self, Netlink, Scope, Snapshot};

/// Stands for the outside: an address that no network has (RFC 5737). Nothing
/// is sent; the kernel is asked which way it would go.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub struct Address;

impl Step<Machine> for Address {
    fn name(&self) -> &'static str {
        name::ADDRESS
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let netlink = Netlink::connect().context(Code::Netlink, looking)?;
            let mut watch = netlink::watch().context(Code::Netlink, looking)?;
            loop {
                let snapshot = netlink.snapshot().await.context(Code::Netlink, looking)?;
                let routed = netlink
                    .resolve(OUTSIDE)
                    .await
                    .context(Code::Netlink, looking)?;
                match choose(machine, &snapshot, routed.map(|route| route.source)) {
                    Ok(addresses) => {
                        let told = join(&addresses);
                        machine.addresses.send_replace(Some(addresses));
                        return Ok(told);
                    }
                    // An interface may be on its way up: look when the kernel
                    // says that something changed.
                    Err(error) => machine.status.detail(
                        name::ADDRESS,
                        format!("waiting: {}: {}", error.code(), error.story()),
                    ),
                }
                watch.next().await.context(Code::Netlink, looking)?;
            }
        })
    }
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
