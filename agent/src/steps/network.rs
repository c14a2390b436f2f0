//! The pods' network on this machine: bridge, CNI list, masquerade, metadata
//! guard, and routes to the pods of others (P26 to P31, B6, B10).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use serde_json::json;

use super::name;
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::{Machine, known};
use crate::sys::netlink::{self, LinkName, MacAddress, Netlink, OwnRoute, Snapshot};
use crate::sys::nft::{METADATA_V4, METADATA_V6, Nft, Ruleset};
use units::node_config::{self, NetworkMode, Peer};
use units::paths;
use units::types::NodeName;

/// Where containerd looks for CNI lists.
const CNI_FOLDER: &str = "/etc/cni/net.d";

pub struct Network;

impl Step<Machine> for Network {
    fn name(&self) -> &'static str {
        name::NETWORK
    }

    fn after(&self) -> &[&'static str] {
        &[name::KERNEL, name::ADDRESS]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(converge(machine))
    }

    /// Somebody changed links or routes, a peer came or went, or a while
    /// passed (nftables tells nobody).
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        let mut peers = machine.peers.subscribe();
        Box::pin(async move {
            let kernel = async {
                match netlink::watch() {
                    Ok(mut watch) => drop(watch.next().await),
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                () = kernel => {}
                _ = peers.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(30)) => {}
            }
        })
    }
}

async fn converge(machine: &Machine) -> Result<String> {
    let Some(network) = &machine.config.network else {
        return Ok("no pods on this machine".to_owned());
    };
    if network.mode == NetworkMode::None {
        return Ok("left to the CNI that the settings bring".to_owned());
    }
    let addresses = known(&machine.addresses).await;
    if machine.pod_cidrs.borrow().is_none() {
        let waiting = "waiting for the controller manager to give this Node a pod range";
        machine.status.detail(name::NETWORK, waiting);
    }
    let pod_cidrs = known(&machine.pod_cidrs).await;

    let netlink = Netlink::connect().context(Code::Netlink, || "opening netlink".to_owned())?;
    let snapshot = netlink
        .snapshot()
        .await
        .context(Code::Netlink, || "looking at the network".to_owned())?;
    let peers = machine.peers.borrow().clone().unwrap_or_default();
    let wanted = want(&Facts {
        network,
        cluster: &machine.config.cluster,
        own: &machine.config.node.name,
        pod_cidrs: &pod_cidrs,
        peers: &peers,
        mtu: network.mtu.or_else(|| mtu_of(&snapshot, &addresses)),
    })?;
    let changes = apply(machine, &netlink, &snapshot, &wanted).await?;
    let summary = format!(
        "{} with {}, {} routes to peers",
        wanted.bridge,
        join(&pod_cidrs),
        wanted.routes.len()
    );
    Ok(if changes == 0 {
        summary
    } else {
        format!("{summary}, {changes} changes made")
    })
}

/// What the wanted state is made from.
struct Facts<'a> {
    network: &'a node_config::Network,
    cluster: &'a node_config::Cluster,
    own: &'a NodeName,
    pod_cidrs: &'a [IpNet],
    peers: &'a [Peer],
    mtu: Option<u32>,
}

/// The wanted state of the machine's pod network.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    bridge: LinkName,
    mac: MacAddress,
    mtu: Option<u32>,
    /// The bridge's own address in each pod range: the pods' gateway.
    gateways: Vec<IpNet>,
    routes: Vec<OwnRoute>,
    rules: Ruleset,
    cni: String,
}

fn want(facts: &Facts<'_>) -> Result<Wanted> {
    let bridge: LinkName = facts
        .network
        .bridge
        .parse()
        .context(Code::ConfigInvalid, || "reading network.bridge".to_owned())?;
    let gateways: Vec<IpNet> = facts
        .pod_cidrs
        .iter()
        .copied()
        .filter_map(gateway)
        .collect();
    let Some(first) = gateways.first() else {
        return Err(Error::new(
            Code::PodRange,
            "this machine has no usable pod range",
        ));
    };
    let routes = match facts.network.mode {
        NetworkMode::HostGw => routes(facts),
        NetworkMode::Routed | NetworkMode::None => Vec::new(),
    };
    let mut metadata_guard = Vec::new();
    if facts.network.metadata_guard {
        metadata_guard = vec![METADATA_V4, METADATA_V6];
    }
    let inside = facts
        .cluster
        .pod_cidrs
        .iter()
        .chain(&facts.cluster.service_cidrs);
    Ok(Wanted {
        mac: mac(first.addr()),
        mtu: facts.mtu,
        rules: Ruleset {
            pod_networks: facts.pod_cidrs.to_vec(),
            masquerade: true,
            no_masquerade: inside.copied().collect(),
            bridge: Some(bridge.clone()),
            metadata_guard,
        },
        cni: cni(&bridge, facts.pod_cidrs, facts.mtu),
        bridge,
        gateways,
        routes,
    })
}

/// The first address of a range, with the range's prefix length.
fn gateway(range: IpNet) -> Option<IpNet> {
    let first = range.hosts().next()?;
    IpNet::new(first, range.prefix_len()).ok()
}

/// A bridge without an address of its own takes that of its lowest port and
/// changes it as pods come and go; this one is stable and locally
/// administered.
fn mac(gateway: IpAddr) -> MacAddress {
    let [a, b, c, d] = match gateway {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    MacAddress([0x0a, 0x58, a, b, c, d])
}

/// A route to each peer's pod ranges by the peer's address of that family.
/// Nodes in the API are the truth; the settings serve until it is reached.
fn routes(facts: &Facts<'_>) -> Vec<OwnRoute> {
    let peers: BTreeMap<&NodeName, &Peer> = facts
        .network
        .peers
        .iter()
        .chain(facts.peers)
        .filter(|peer| peer.name != *facts.own)
        .map(|peer| (&peer.name, peer))
        .collect();
    let mut routes = Vec::new();
    for peer in peers.values() {
        for range in &peer.pod_cidrs {
            let same_family = |a: &&IpAddr| a.is_ipv4() == range.addr().is_ipv4();
            if let Some(address) = peer.addresses.iter().find(same_family) {
                routes.push(OwnRoute::via(*range, *address));
            }
        }
    }
    routes
}

/// The MTU of the link that has the machine's address: with routes, pods'
/// packets travel as they are.
fn mtu_of(snapshot: &Snapshot, addresses: &[IpAddr]) -> Option<u32> {
    let on = |a: &&netlink::Address| addresses.contains(&a.net.addr());
    let link = snapshot.addresses.iter().find(on)?.link;
    snapshot.links.get(&link).map(|link| link.mtu)
}

/// The CNI network list. Leases live below /run: a reboot ends all pods, and
/// leases that outlive them would use up the range (F23).
/// Source: CNI specification 1.0.0 and the plugins' own documentation.
fn cni(bridge: &LinkName, pod_cidrs: &[IpNet], mtu: Option<u32>) -> String {
    let ranges: Vec<_> = pod_cidrs
        .iter()
        .map(|range| json!([{"subnet": range}]))
        .collect();
    let routes: Vec<_> = pod_cidrs
        .iter()
        .map(|range| {
            if range.addr().is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            }
        })
        .map(|everywhere| json!({"dst": everywhere}))
        .collect();
    let mut plugin = json!({
        "type": "bridge",
        "bridge": bridge.as_str(),
        "isGateway": true,
        "hairpinMode": true,
        "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/knode/cni",
            "ranges": ranges,
            "routes": routes,
        },
    });
    if let Some(mtu) = mtu {
        plugin["mtu"] = json!(mtu);
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "knode",
        "plugins": [
            plugin,
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{list:#}\n")
}

/// Brings the machine there; the number of changes.
async fn apply(
    machine: &Machine,
    netlink: &Netlink,
    snapshot: &Snapshot,
    wanted: &Wanted,
) -> Result<usize> {
    let doing = || format!("setting up {}", wanted.bridge);
    let mut changes = Vec::new();
    let bridge = netlink.ensure_bridge(&wanted.bridge, wanted.mtu, Some(wanted.mac));
    changes.push(bridge.await.context(Code::Netlink, doing)?);
    for gateway in &wanted.gateways {
        let address = netlink.ensure_address(&wanted.bridge, *gateway);
        changes.push(address.await.context(Code::Netlink, doing)?);
    }
    for stale in stale_addresses(snapshot, wanted) {
        let address = netlink.remove_address(&wanted.bridge, stale);
        changes.push(address.await.context(Code::Netlink, doing)?);
    }
    let rules = Nft.ensure(&wanted.rules);
    changes.push(
        rules
            .await
            .context(Code::Nft, || "replacing our nftables table".to_owned())?,
    );
    for stale in stale_routes(snapshot, wanted) {
        let doing = || format!("removing the route to {stale}");
        changes.push(
            netlink
                .remove_route(stale, 0)
                .await
                .context(Code::Netlink, doing)?,
        );
    }
    // One peer out of reach must not keep the routes to others from being made.
    let mut refused = None;
    for route in &wanted.routes {
        match netlink.ensure_route(route).await {
            Ok(change) => changes.push(change),
            Err(error) => {
                let doing = format!("adding the route to {}", route.destination);
                refused.get_or_insert(Error::new(Code::Netlink, doing).because(error));
            }
        }
    }
    if !machine.root.exists(CNI_FOLDER)? {
        changes.push(machine.root.create_dir(CNI_FOLDER, 0o755)?);
    }
    let cni = machine
        .root
        .write_atomic(paths::CNI_CONFIG, wanted.cni.as_bytes(), 0o644);
    changes.push(cni?);
    match refused {
        Some(error) => Err(error),
        None => Ok(changes
            .into_iter()
            .filter(|change| change.is_changed())
            .count()),
    }
}

/// Our routes that nobody wants any more; others' routes are theirs.
fn stale_routes(snapshot: &Snapshot, wanted: &Wanted) -> Vec<IpNet> {
    snapshot
        .own_routes()
        .map(|route| route.destination)
        .filter(|net| {
            wanted
                .routes
                .iter()
                .all(|route| route.destination.trunc() != *net)
        })
        .collect()
}

/// Addresses of our bridge from a pod range that was.
fn stale_addresses(snapshot: &Snapshot, wanted: &Wanted) -> Vec<IpNet> {
    let Some(bridge) = snapshot.link(&wanted.bridge) else {
        return Vec::new();
    };
    snapshot
        .addresses_on(bridge.index)
        .filter(|address| address.scope == netlink::Scope::Global)
        .map(|address| address.net)
        .filter(|net| !wanted.gateways.contains(net))
        .collect()
}

fn join(nets: &[IpNet]) -> String {
    let texts: Vec<String> = nets.iter().map(IpNet::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use units::NodeConfig;

    fn sample() -> NodeConfig {
        serde_yaml::from_str(include_str!("../../../units/testdata/node-v1.yaml")).unwrap()
    }

    fn peer(name: &str, address: &str, range: &str) -> Peer {
        Peer {
            name: name.parse().unwrap(),
            role: units::types::Role::Node,
            addresses: vec![address.parse().unwrap()],
            pod_cidrs: vec![range.parse().unwrap()],
        }
    }

    fn wanted(mode: NetworkMode, peers: &[Peer]) -> Wanted {
        let mut config = sample();
        let network = config.network.as_mut().unwrap();
        network.mode = mode;
        want(&Facts {
            network,
            cluster: &config.cluster,
            own: &config.node.name,
            pod_cidrs: &config.node.pod_cidrs,
            peers,
            mtu: Some(1450),
        })
        .unwrap()
    }

    #[test]
    fn nodes_of_the_api_replace_and_complete_the_settings_peers() {
        let peers = [
            peer("master", "10.0.0.99", "10.244.0.0/24"),
            peer("node-1", "10.0.0.11", "10.244.1.0/24"),
            peer("node-2", "10.0.0.12", "10.244.2.0/24"),
        ];
        let wanted = wanted(NetworkMode::HostGw, &peers);
        let via: Vec<String> = wanted
            .routes
            .iter()
            .map(|r| format!("{} {}", r.destination, r.gateway.unwrap()))
            .collect();
        assert_eq!(via, ["10.244.0.0/24 10.0.0.99", "10.244.2.0/24 10.0.0.12"]);
    }

    #[test]
    fn a_routed_network_has_no_routes_of_ours() {
        let peers = [peer("node-2", "10.0.0.12", "10.244.2.0/24")];
        assert!(wanted(NetworkMode::Routed, &peers).routes.is_empty());
    }

    #[test]
    fn bridge_and_cni_list_are_of_the_pod_range() {
        let wanted = wanted(NetworkMode::HostGw, &[]);
        assert_eq!(wanted.gateways, ["10.244.1.1/24".parse::<IpNet>().unwrap()]);
        assert_eq!(wanted.mac.to_string(), "0a:58:0a:f4:01:01");
        let cni: Value = serde_json::from_str(&wanted.cni).unwrap();
        assert_eq!(
            cni["plugins"][0]["ipam"]["ranges"][0][0]["subnet"],
            "10.244.1.0/24"
        );
        assert_eq!(cni["plugins"][0]["mtu"], 1450);
        assert_eq!(wanted.rules.metadata_guard, [METADATA_V4, METADATA_V6]);
    }
}
