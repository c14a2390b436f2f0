//! What the machine's pod network should be. Pure: from facts to [`Wanted`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;

use super::of_family;
use super::overlay::{self, Overlay};
use crate::error::{Code, Context, Error, Result};
use crate::sys::netlink::{self, LinkName, MacAddress, OwnRoute, Snapshot};
use crate::sys::nft::{METADATA_V4, METADATA_V6, Ruleset};
use units::node_config::{self, NetworkMode, Peer};
use units::types::NodeName;

/// How the Ethernet addresses of our bridges begin.
pub const BRIDGE_PREFIX: [u8; 2] = [0x0a, 0x58];

/// What the wanted state is made from.
pub struct Facts<'a> {
    pub network: &'a node_config::Network,
    pub cluster: &'a node_config::Cluster,
    /// This machine's name: no peer of itself.
    pub own: &'a NodeName,
    /// This machine's addresses, the preferred one first.
    pub addresses: &'a [IpAddr],
    pub pod_cidrs: &'a [IpNet],
    /// Peers from the API, which complete and replace those of the settings.
    pub peers: &'a [Peer],
    /// The MTU of the link with the machine's address.
    pub underlay_mtu: Option<u32>,
}

/// The wanted state of the machine's pod network.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub bridge: LinkName,
    pub mac: MacAddress,
    pub mtu: Option<u32>,
    /// The bridge's own address in each pod range: the pods' gateway.
    pub gateways: Vec<IpNet>,
    /// The link to others, where packets are wrapped.
    pub overlay: Option<Overlay>,
    pub routes: Vec<OwnRoute>,
    pub rules: Ruleset,
    pub cni: String,
}

pub fn want(facts: &Facts<'_>) -> Result<Wanted> {
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
    let peers = unambiguous(peers(facts));
    let (mut overlay, mut routes, mut mtu) = (None, Vec::new(), facts.underlay_mtu);
    match facts.network.mode {
        NetworkMode::Vxlan => {
            let (link, ways) = overlay::want(facts, &peers)?;
            mtu = link.link.mtu;
            (overlay, routes) = (Some(link), ways);
        }
        NetworkMode::HostGw => routes = direct(&peers),
        NetworkMode::Routed | NetworkMode::None => {}
    }
    let mtu = facts.network.mtu.or(mtu);
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
        mtu,
        rules: Ruleset {
            pod_networks: facts.pod_cidrs.to_vec(),
            masquerade: true,
            no_masquerade: inside.copied().collect(),
            bridge: Some(bridge.clone()),
            metadata_guard,
        },
        cni: cni(&bridge, facts.pod_cidrs, mtu),
        bridge,
        gateways,
        overlay,
        routes,
    })
}

/// The address after the range's own, with the range's prefix length: what the
/// CNI plugins take for the gateway. The range's own is every IPv6 router's.
fn gateway(range: IpNet) -> Option<IpNet> {
    let first = match range.network() {
        IpAddr::V4(network) => IpAddr::from((u32::from(network).checked_add(1)?).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((u128::from(network).checked_add(1)?).to_be_bytes()),
    };
    let inside = range.contains(&first);
    inside
        .then(|| IpNet::new(first, range.prefix_len()).ok())
        .flatten()
}

/// A bridge without an address of its own takes that of its lowest port and
/// changes it as pods come and go; this one is stable and locally
/// administered.
fn mac(gateway: IpAddr) -> MacAddress {
    let [a, b, c, d] = overlay::fold(gateway);
    let [m, n] = BRIDGE_PREFIX;
    MacAddress([m, n, a, b, c, d])
}

/// The other machines, by name. Nodes in the API are the truth; the settings
/// serve until it is reached.
fn peers<'a>(facts: &Facts<'a>) -> Vec<&'a Peer> {
    let peers: BTreeMap<&NodeName, &Peer> = facts
        .network
        .peers
        .iter()
        .chain(facts.peers)
        .filter(|peer| peer.name != *facts.own)
        .map(|peer| (&peer.name, peer))
        .collect();
    peers.into_values().collect()
}

/// Of peers that claim the same pod range, such as a machine under its old and
/// its new name, only the last: two would take turns for ever.
fn unambiguous(peers: Vec<&Peer>) -> Vec<&Peer> {
    let mut claimed = BTreeSet::new();
    let mut kept: Vec<&Peer> = peers
        .into_iter()
        .rev()
        .filter(|peer| {
            let ranges: Vec<IpNet> = peer.pod_cidrs.iter().map(IpNet::trunc).collect();
            let free = ranges.iter().all(|range| !claimed.contains(range));
            if free {
                claimed.extend(ranges);
            }
            free
        })
        .collect();
    kept.reverse();
    kept
}

/// A route to each peer's pod ranges by the peer's address of that family.
fn direct(peers: &[&Peer]) -> Vec<OwnRoute> {
    let mut routes = Vec::new();
    for peer in peers {
        for range in &peer.pod_cidrs {
            if let Some(address) = of_family(&peer.addresses, range.addr().is_ipv4()) {
                routes.push(OwnRoute::via(*range, address));
            }
        }
    }
    routes
}

/// The MTU of the link that has the machine's address.
pub fn mtu_of(snapshot: &Snapshot, addresses: &[IpAddr]) -> Option<u32> {
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

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::Value;
    use units::NodeConfig;

    pub fn peer(name: &str, addresses: &[&str], ranges: &[&str]) -> Peer {
        Peer {
            name: name.parse().unwrap(),
            role: units::types::Role::Node,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            pod_cidrs: ranges.iter().map(|r| r.parse().unwrap()).collect(),
        }
    }

    /// The sample's machine in another mode, with other addresses and ranges.
    pub fn wanted_with(
        mode: NetworkMode,
        addresses: &[&str],
        ranges: &[&str],
        peers: &[Peer],
    ) -> Result<Wanted> {
        let sample = include_str!("../../../../units/testdata/node-v1.yaml");
        let mut config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        let network = config.network.as_mut().unwrap();
        network.mode = mode;
        network.mtu = None;
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let ranges: Vec<IpNet> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        want(&Facts {
            network,
            cluster: &config.cluster,
            own: config.node.name.as_ref().unwrap(),
            addresses: &addresses,
            pod_cidrs: &ranges,
            peers,
            underlay_mtu: Some(1500),
        })
    }

    fn wanted(mode: NetworkMode, peers: &[Peer]) -> Wanted {
        wanted_with(mode, &["10.0.0.11"], &["10.244.1.0/24"], peers).unwrap()
    }

    #[test]
    fn nodes_of_the_api_replace_and_complete_the_settings_peers() {
        let peers = [
            peer("master", &["10.0.0.99"], &["10.244.0.0/24"]),
            peer("node-1", &["10.0.0.11"], &["10.244.1.0/24"]),
            peer("node-2", &["10.0.0.12"], &["10.244.2.0/24"]),
        ];
        let wanted = wanted(NetworkMode::HostGw, &peers);
        let via: Vec<String> = wanted
            .routes
            .iter()
            .map(|r| format!("{} {}", r.destination, r.gateway.unwrap()))
            .collect();
        assert_eq!(via, ["10.244.0.0/24 10.0.0.99", "10.244.2.0/24 10.0.0.12"]);
        assert_eq!((wanted.overlay, wanted.mtu), (None, Some(1500)));
    }

    #[test]
    fn of_two_who_claim_one_range_the_last_has_it() {
        let peers = [
            peer("node-2", &["10.0.0.12"], &["10.244.2.0/24"]),
            peer("node-3", &["10.0.0.13"], &["10.244.2.0/24"]),
        ];
        for mode in [NetworkMode::HostGw, NetworkMode::Vxlan] {
            let wanted = wanted(mode, &peers);
            let claimed = |r: &&OwnRoute| r.destination == peers[0].pod_cidrs[0];
            assert_eq!(wanted.routes.iter().filter(claimed).count(), 1, "{mode}");
            if let Some(overlay) = wanted.overlay {
                let to: Vec<IpAddr> = overlay.forwardings.iter().map(|f| f.destination).collect();
                assert_eq!(
                    to,
                    [
                        peers[1].addresses[0],
                        "10.0.0.10".parse::<IpAddr>().unwrap()
                    ]
                    .into_iter()
                    .rev()
                    .collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn a_routed_network_has_no_routes_of_ours() {
        let peers = [peer("node-2", &["10.0.0.12"], &["10.244.2.0/24"])];
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
        assert_eq!(cni["plugins"][0]["mtu"], 1500);
        assert_eq!(wanted.rules.metadata_guard, [METADATA_V4, METADATA_V6]);
    }

    #[test]
    fn gateways_are_where_the_cni_plugins_look_for_them() {
        for (range, expected) in [
            ("10.244.1.0/24", Some("10.244.1.1/24")),
            ("10.244.1.4/30", Some("10.244.1.5/30")),
            ("fd00:244:1::/64", Some("fd00:244:1::1/64")),
            ("10.244.1.4/32", None),
            ("255.255.255.255/32", None),
        ] {
            let gateway = gateway(range.parse().unwrap());
            assert_eq!(
                gateway,
                expected.map(|text| text.parse().unwrap()),
                "{range}"
            );
        }
    }
}
