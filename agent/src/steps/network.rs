//! The pods' network on this machine: bridge, CNI list, masquerade, metadata
//! guard, and the ways to the pods of others (P26 to P31, B6, B10).
//!
//! [`wanted`] says what should be, from facts alone; [`overlay`] the part of
//! it that mode vxlan adds; [`apply`] brings the machine there.

pub(crate) mod apply;
mod overlay;
mod wanted;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use tokio::sync::Mutex;

use self::wanted::Facts;
use super::name;
use crate::error::{Code, Context, Result};
use crate::graph::Step;
use crate::machine::{Fact, Machine, known};
use crate::sys::netlink::{self, Netlink};
use crate::sys::{clock, nft};
use units::node_config::{NetworkMode, Peer};

/// Looks again after this long, whatever the kernel says or does not say.
const SWEEP: Duration = Duration::from_secs(30);
/// Changes come in swarms; one look answers those of this long.
const SWARM: Duration = Duration::from_millis(50);

/// Remembers what it listens to: from before the first look on, so that no
/// change falls between a look and the wait for the next.
#[derive(Default)]
pub struct Network {
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    ears: Option<Ears>,
    /// What the last look was made with.
    peers: Option<Vec<Peer>>,
    addresses: Option<Vec<IpAddr>>,
}

struct Ears {
    links: netlink::Watch,
    /// A kernel that does not tell of nftables is looked at every [`SWEEP`].
    rules: Option<nft::Watch>,
}

impl Ears {
    fn open() -> Result<Self> {
        let doing = || "listening for network changes".to_owned();
        let rules = nft::watch();
        if let Err(error) = &rules {
            tracing::debug!("{error}");
        }
        Ok(Self {
            links: netlink::watch().context(Code::Netlink, doing)?,
            rules: rules.ok(),
        })
    }

    /// Returns at the next change; `false` when one of the ears is deaf.
    async fn hear(&mut self) -> bool {
        let rules = async {
            match &mut self.rules {
                Some(watch) => watch.next().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = self.links.next() => heard.is_ok(),
            heard = rules => heard,
        }
    }
}

impl Step<Machine> for Network {
    fn name(&self) -> &'static str {
        name::NETWORK
    }

    fn after(&self) -> &[&'static str] {
        &[name::KERNEL, name::ADDRESS]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(self.converge(machine))
    }

    /// Somebody changed links, routes or our rules, a peer or an address came
    /// or went, or a while passed.
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut memory = self.memory.lock().await;
            let Memory {
                ears,
                peers,
                addresses,
            } = &mut *memory;
            let hear = async {
                match ears {
                    Some(ears) => ears.hear().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = hear => {
                    tokio::time::sleep(SWARM).await;
                    if !heard {
                        *ears = None;
                    }
                }
                () = differs(&machine.peers, peers) => {}
                () = differs(&machine.addresses, addresses) => {}
                () = clock::pause(SWEEP) => {}
            }
        })
    }
}

/// Returns when a fact is another than the one that was seen.
async fn differs<T: PartialEq>(fact: &Fact<T>, seen: &Option<T>) {
    let mut receiver = fact.subscribe();
    // The sender lives in the machine, as long as any step does.
    if receiver.wait_for(|now| now != seen).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Network {
    async fn converge(&self, machine: &Machine) -> Result<String> {
        let Some(network) = &machine.config.network else {
            return Ok("no pods on this machine".to_owned());
        };
        if network.mode == NetworkMode::None {
            let netlink = Netlink::connect();
            let netlink = netlink.context(Code::Netlink, || "opening netlink".to_owned())?;
            let told = "left to the CNI that the settings bring";
            return Ok(
                match apply::clear(&machine.root, &netlink, &network.bridge).await? {
                    0 => told.to_owned(),
                    changes => format!("{told}, {changes} changes made"),
                },
            );
        }
        let addresses = known(&machine.addresses).await;
        if machine.pod_cidrs.borrow().is_none() {
            let waiting = "waiting for the controller manager to give this Node a pod range";
            machine.status.detail(name::NETWORK, waiting);
        }
        let pod_cidrs = known(&machine.pod_cidrs).await;

        let mut memory = self.memory.lock().await;
        if memory.ears.is_none() {
            memory.ears = Some(Ears::open()?);
        }
        memory.peers.clone_from(&machine.peers.borrow());
        memory.addresses = Some(addresses.clone());
        let netlink = Netlink::connect().context(Code::Netlink, || "opening netlink".to_owned())?;
        let snapshot = netlink
            .snapshot()
            .await
            .context(Code::Netlink, || "looking at the network".to_owned())?;
        let wanted = wanted::want(&Facts {
            network,
            cluster: &machine.config.cluster,
            own: &machine.name,
            addresses: &addresses,
            pod_cidrs: &pod_cidrs,
            peers: memory.peers.as_deref().unwrap_or_default(),
            underlay_mtu: wanted::mtu_of(&snapshot, &addresses),
        })?;
        let changes = apply::apply(machine, &netlink, &snapshot, &wanted).await?;
        Ok(summary(&wanted, &pod_cidrs, changes))
    }
}

fn summary(wanted: &wanted::Wanted, pod_cidrs: &[IpNet], changes: usize) -> String {
    let mut told = format!(
        "{} with {}, {} routes to peers",
        wanted.bridge,
        join(pod_cidrs),
        wanted.routes.len()
    );
    if let Some(overlay) = &wanted.overlay {
        told.push_str(&format!(" by {}", overlay.link.name));
    }
    if changes > 0 {
        told.push_str(&format!(", {changes} changes made"));
    }
    told
}

fn join(nets: &[IpNet]) -> String {
    let texts: Vec<String> = nets.iter().map(IpNet::to_string).collect();
    texts.join(", ")
}

/// The first address of a family.
fn of_family(addresses: &[IpAddr], v4: bool) -> Option<IpAddr> {
    addresses.iter().copied().find(|a| a.is_ipv4() == v4)
}
