//! Brings the machine's pod network into the wanted state.

use std::collections::BTreeSet;

use ipnet::IpNet;

pub use super::overlay::LINK as OVERLAY;
use super::overlay::{self, Overlay, difference};
use super::wanted::{BRIDGE_PREFIX, Wanted};
use crate::error::{Code, Context, Error, Result};
use crate::machine::Machine;
use crate::sys::Changed;
use crate::sys::netlink::{self, Link, LinkName, Netlink, Snapshot};
use crate::sys::nft::Nft;
use crate::sys::root::Root;
use units::paths;

/// Where containerd looks for CNI lists.
const CNI_FOLDER: &str = "/etc/cni/net.d";

/// Brings the machine there; the number of changes.
pub async fn apply(
    machine: &Machine,
    netlink: &Netlink,
    snapshot: &Snapshot,
    wanted: &Wanted,
) -> Result<usize> {
    let mut changes = bridge(netlink, snapshot, wanted).await?;
    let rules = Nft.ensure(&wanted.rules).await;
    changes.push(rules.context(Code::Nft, || "replacing our nftables table".to_owned())?);
    match &wanted.overlay {
        Some(wanted) => changes.extend(overlay(netlink, snapshot, wanted).await?),
        None => changes.push(no_overlay(netlink, snapshot).await?),
    }
    if !machine.root.exists(CNI_FOLDER)? {
        changes.push(machine.root.create_dir(CNI_FOLDER, 0o755)?);
    }
    let cni = machine
        .root
        .write_atomic(paths::CNI_CONFIG, wanted.cni.as_bytes(), 0o644);
    changes.push(cni?);
    changes.extend(routes(netlink, snapshot, wanted).await?);
    Ok(changes
        .into_iter()
        .filter(|change| change.is_changed())
        .count())
}

async fn bridge(netlink: &Netlink, snapshot: &Snapshot, wanted: &Wanted) -> Result<Vec<Changed>> {
    let doing = || format!("setting up {}", wanted.bridge);
    let bridge = netlink.ensure_bridge(&wanted.bridge, wanted.mtu, Some(wanted.mac));
    let mut changes = vec![bridge.await.context(Code::Netlink, doing)?];
    changes.extend(addresses(netlink, snapshot, &wanted.bridge, &wanted.gateways).await?);
    Ok(changes)
}

/// The link has these addresses of global scope, and no others.
async fn addresses(
    netlink: &Netlink,
    snapshot: &Snapshot,
    link: &LinkName,
    wanted: &[IpNet],
) -> Result<Vec<Changed>> {
    let doing = || format!("setting up {link}");
    let mut changes = Vec::new();
    for address in wanted {
        let address = netlink.ensure_address(link, *address);
        changes.push(address.await.context(Code::Netlink, doing)?);
    }
    for stale in stale_addresses(snapshot, link, wanted) {
        let address = netlink.remove_address(link, stale);
        changes.push(address.await.context(Code::Netlink, doing)?);
    }
    Ok(changes)
}

async fn overlay(netlink: &Netlink, snapshot: &Snapshot, wanted: &Overlay) -> Result<Vec<Changed>> {
    let name = &wanted.link.name;
    let doing = || format!("setting up {name}");
    let link = netlink.ensure_vxlan(&wanted.link).await;
    let mut changes = vec![link.context(Code::Netlink, doing)?];
    let address: Vec<IpNet> = wanted.address.into_iter().collect();
    changes.extend(addresses(netlink, snapshot, name, &address).await?);
    let link = netlink.link(name).await.context(Code::Netlink, doing)?;
    // Somebody may have removed it this moment; then we are called again.
    let index = link.map_or(0, |link| link.index);

    let there = netlink.forwardings(index).await;
    let there = there.context(Code::Netlink, doing)?;
    let (stale, missing) = difference(&there, &wanted.forwardings);
    for entry in stale {
        let removed = netlink.remove_forwarding(index, entry).await;
        changes.push(removed.context(Code::Netlink, doing)?);
    }
    for entry in missing {
        let added = netlink.add_forwarding(index, entry).await;
        changes.push(added.context(Code::Netlink, doing)?);
    }

    let there = netlink.neighbours(index).await;
    let there = there.context(Code::Netlink, doing)?;
    let (stale, missing) = difference(&there, &wanted.neighbours);
    for entry in stale {
        let removed = netlink.remove_neighbour(index, entry).await;
        changes.push(removed.context(Code::Netlink, doing)?);
    }
    for entry in missing {
        let added = netlink.add_neighbour(index, entry).await;
        changes.push(added.context(Code::Netlink, doing)?);
    }
    Ok(changes)
}

/// What is ours goes, the bridge once no pod hangs on it: the settings had
/// another mode before, or the machine is to be none of the cluster's. The
/// number of changes.
pub async fn clear(root: &Root, netlink: &Netlink, bridge: &str) -> Result<usize> {
    let looking = || "looking at the network".to_owned();
    let snapshot = netlink.snapshot().await.context(Code::Netlink, looking)?;
    let mut changes = vec![root.remove(paths::CNI_CONFIG)?];
    for stale in snapshot.own_routes().map(|route| route.destination) {
        let removed = netlink.remove_route(stale, 0).await;
        changes.push(removed.context(Code::Netlink, || format!("removing the route to {stale}"))?);
    }
    changes.push(no_overlay(netlink, &snapshot).await?);
    if let Some(bridge) = idle_bridge(&snapshot, bridge) {
        let removed = netlink.remove_link(&bridge).await;
        changes.push(removed.context(Code::Netlink, || format!("removing {bridge}"))?);
    }
    let rules = Nft.remove().await;
    changes.push(rules.context(Code::Nft, || "removing our nftables table".to_owned())?);
    let changed = changes.into_iter().filter(|change| change.is_changed());
    Ok(changed.count())
}

/// Our bridge, known by its name and its Ethernet address, if nothing hangs on
/// it.
fn idle_bridge(snapshot: &Snapshot, name: &str) -> Option<LinkName> {
    let name: LinkName = name.parse().ok()?;
    let bridge = snapshot.link(&name)?;
    let mut links = snapshot.links.values();
    let has_ports = links.any(|link| link.controller == Some(bridge.index));
    (is_ours(bridge) && bridge.kind.as_deref() == Some("bridge") && !has_ports).then_some(name)
}

/// Whether a link of the name of one of ours is ours: a bridge by its Ethernet
/// address, the overlay by its kind.
pub fn is_ours(link: &Link) -> bool {
    match link.kind.as_deref() {
        Some("bridge") => link
            .mac
            .is_some_and(|mac| mac.0.starts_with(&BRIDGE_PREFIX)),
        Some("vxlan") => true,
        _ => false,
    }
}

/// The settings had mode vxlan before: its link goes, if it is one.
async fn no_overlay(netlink: &Netlink, snapshot: &Snapshot) -> Result<Changed> {
    let name = overlay::link_name()?;
    match snapshot.link(&name) {
        Some(link) if link.kind.as_deref() == Some("vxlan") => netlink
            .remove_link(&name)
            .await
            .context(Code::Netlink, || format!("removing {name}")),
        _ => Ok(Changed::No),
    }
}

async fn routes(netlink: &Netlink, snapshot: &Snapshot, wanted: &Wanted) -> Result<Vec<Changed>> {
    let mut changes = Vec::new();
    for stale in stale_routes(snapshot, wanted) {
        let removed = netlink.remove_route(stale, 0).await;
        changes.push(removed.context(Code::Netlink, || format!("removing the route to {stale}"))?);
    }
    let there = netlink.routes(None).await;
    let there = there.context(Code::Netlink, || "looking at the routes".to_owned())?;
    // One peer out of reach must not keep the routes to others from being made.
    let mut refused = None;
    for route in &wanted.routes {
        match netlink.ensure_route_among(route, &there).await {
            Ok(change) => changes.push(change),
            Err(error) => {
                let doing = format!("adding the route to {}", route.destination);
                refused.get_or_insert(Error::new(Code::Netlink, doing).because(error));
            }
        }
    }
    refused.map_or(Ok(changes), Err)
}

/// Our routes that nobody wants any more; others' routes are theirs.
fn stale_routes(snapshot: &Snapshot, wanted: &Wanted) -> Vec<IpNet> {
    let wanted: BTreeSet<IpNet> = wanted
        .routes
        .iter()
        .map(|route| route.destination.trunc())
        .collect();
    snapshot
        .own_routes()
        .map(|route| route.destination)
        .filter(|net| !wanted.contains(net))
        .collect()
}

/// Addresses of our link from a pod range that was.
fn stale_addresses(snapshot: &Snapshot, link: &LinkName, wanted: &[IpNet]) -> Vec<IpNet> {
    let Some(link) = snapshot.link(link) else {
        return Vec::new();
    };
    snapshot
        .addresses_on(link.index)
        .filter(|address| address.scope == netlink::Scope::Global)
        .map(|address| address.net)
        .filter(|net| !wanted.contains(net))
        .collect()
}
