//! Mode vxlan: packets to the pods of others travel in UDP between the
//! machines, so that the network between them need know nothing of pods.
//!
//! Nothing is exchanged to set it up. The Ethernet address of each machine's
//! end follows from its first pod range, and the gateway to its pods from that
//! or from the range; so whoever knows a Node knows all of it. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::of_family;
use super::wanted::Facts;
use crate::error::{Code, Error, Result};
use crate::sys::netlink::{
    Forwarding, LinkName, MacAddress, Neighbour, OwnRoute, VTEP_PREFIX, Vxlan,
};
use units::node_config::Peer;

/// The link's name. Without a dot, which separates words in sysctls' names.
pub const LINK: &str = "knode-vxlan";
/// The number of our overlay network, like the mark on our routes the letter k.
pub const VNI: u32 = 107;
/// The port that IANA gave to VXLAN (RFC 7348). Linux' default, 8472, is older;
/// flannel and Cilium use it. This one is what firewalls and security groups
/// call VXLAN, and what network cards speed up without being told.
pub const PORT: u16 = 4789;
/// The bytes around each packet: Ethernet 14, VXLAN 8, UDP 8, and IPv4 or IPv6.
const WRAPPING: u32 = 14 + 8 + 8;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;

/// The link to other machines, and all that hangs on it.
#[derive(Debug, PartialEq, Eq)]
pub struct Overlay {
    pub link: Vxlan,
    /// Its address, by which this machine itself speaks to pods of others.
    pub address: Option<IpNet>,
    pub neighbours: BTreeSet<Neighbour>,
    pub forwardings: BTreeSet<Forwarding>,
}

/// The overlay, and the routes to peers' pods through it.
///
/// # Errors
///
/// [`Code::Address`], [`Code::PodRange`]: what it is made from is not known.
pub fn want(facts: &Facts<'_>, peers: &[&Peer]) -> Result<(Overlay, Vec<OwnRoute>)> {
    let local = facts.addresses.first().copied();
    let local = local.ok_or_else(|| {
        Error::new(
            Code::Address,
            "this machine has no address to send overlay packets from",
        )
    })?;
    let first = facts.pod_cidrs.first().copied();
    let first =
        first.ok_or_else(|| Error::new(Code::PodRange, "this machine has no usable pod range"))?;
    let name = link_name()?;
    let own_families = |v4: bool| facts.pod_cidrs.iter().any(|r| r.addr().is_ipv4() == v4);

    let (mut neighbours, mut forwardings) = (BTreeSet::new(), BTreeSet::new());
    let mut routes = Vec::new();
    for peer in peers {
        let destination = of_family(&peer.addresses, local.is_ipv4());
        let (Some(destination), Some(range)) = (destination, peer.pod_cidrs.first()) else {
            continue;
        };
        let mac = mac(*range);
        forwardings.insert(Forwarding { mac, destination });
        for range in &peer.pod_cidrs {
            if !own_families(range.addr().is_ipv4()) {
                continue;
            }
            let address = gateway(*range, mac);
            neighbours.insert(Neighbour { address, mac });
            routes.push(OwnRoute {
                link: Some(name.clone()),
                onlink: true,
                ..OwnRoute::via(*range, address)
            });
        }
    }
    let v4 = facts.pod_cidrs.iter().find(|range| range.addr().is_ipv4());
    let address = v4.and_then(|range| IpNet::new(range.network(), 32).ok());
    let overlay = Overlay {
        link: Vxlan {
            name,
            vni: VNI,
            port: PORT,
            local,
            mac: mac(first),
            mtu: facts
                .network
                .mtu
                .or(facts.underlay_mtu.map(|mtu| inside(mtu, local))),
        },
        address,
        neighbours,
        forwardings,
    };
    Ok((overlay, routes))
}

/// The overlay link's name, parsed.
pub fn link_name() -> Result<LinkName> {
    LINK.parse()
        .map_err(|error| Error::new(Code::Netlink, "naming the overlay link").because(error))
}

/// The largest packet inside, where `mtu` is the largest outside.
fn inside(mtu: u32, local: IpAddr) -> u32 {
    let header = if local.is_ipv4() {
        IPV4_HEADER
    } else {
        IPV6_HEADER
    };
    mtu.saturating_sub(WRAPPING + header)
}

/// The Ethernet address of the end of the machine whose first pod range this
/// is; different for all ranges of a cluster.
fn mac(range: IpNet) -> MacAddress {
    let [a, b, c, d] = fold(range.network());
    let [m, n] = VTEP_PREFIX;
    MacAddress([m, n, a, b, c, d])
}

/// An address in four bytes. IPv6 is folded by exclusive or: ranges of one
/// cluster differ in at most 32 bits in a row, which meet no bit of each other.
pub fn fold(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let folded = bits ^ (bits >> 32) ^ (bits >> 64) ^ (bits >> 96);
            let [.., a, b, c, d] = folded.to_be_bytes();
            [a, b, c, d]
        }
    }
}

/// The next router on the way to a peer's range: for IPv4 the range's own
/// address, which that machine's end has; for IPv6 the link-local address that
/// follows from the end's Ethernet address (RFC 4291, appendix A).
fn gateway(range: IpNet, mac: MacAddress) -> IpAddr {
    match range.network() {
        IpAddr::V4(network) => IpAddr::V4(network),
        IpAddr::V6(_) => {
            let [a, b, c, d, e, f] = mac.0;
            IpAddr::V6(Ipv6Addr::from_octets([
                0xfe,
                0x80,
                0,
                0,
                0,
                0,
                0,
                0,
                a ^ 2,
                b,
                c,
                0xff,
                0xfe,
                d,
                e,
                f,
            ]))
        }
    }
}

/// What is there and unwanted, and what is wanted and missing.
pub fn difference<T: Ord + Copy>(there: &BTreeSet<T>, wanted: &BTreeSet<T>) -> (Vec<T>, Vec<T>) {
    (
        there.difference(wanted).copied().collect(),
        wanted.difference(there).copied().collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::wanted::Wanted;
    use super::super::wanted::tests::{peer, wanted_with};
    use super::*;
    use units::node_config::NetworkMode;

    fn wanted(addresses: &[&str], ranges: &[&str], peers: &[Peer]) -> Wanted {
        wanted_with(NetworkMode::Vxlan, addresses, ranges, peers).unwrap()
    }

    fn told(wanted: &Wanted) -> (Vec<String>, Vec<String>, Vec<String>) {
        let overlay = wanted.overlay.as_ref().unwrap();
        let forwardings = overlay.forwardings.iter();
        let neighbours = overlay.neighbours.iter();
        let routes = wanted.routes.iter();
        (
            forwardings
                .map(|f| format!("{} {}", f.mac, f.destination))
                .collect(),
            neighbours
                .map(|n| format!("{} {}", n.address, n.mac))
                .collect(),
            routes
                .map(|r| format!("{} {}", r.destination, r.gateway.unwrap()))
                .collect(),
        )
    }

    #[test]
    fn all_follows_from_addresses_and_pod_ranges() {
        // The sample's settings bring the master, 10.0.0.10 with 10.244.0.0/24.
        let peers = [
            peer("node-1", &["10.0.0.11"], &["10.244.1.0/24"]),
            peer("node-2", &["10.9.0.12", "fd09::12"], &["10.244.2.0/24"]),
            peer("node-3", &["fd09::13"], &["10.244.3.0/24"]),
            peer("node-4", &["10.9.0.14"], &[]),
        ];
        let wanted = wanted(&["10.0.0.11"], &["10.244.1.0/24"], &peers);
        let overlay = wanted.overlay.as_ref().unwrap();
        assert_eq!(overlay.link.mac.to_string(), "0a:59:0a:f4:01:00");
        assert_eq!(overlay.link.local.to_string(), "10.0.0.11");
        assert_eq!(overlay.address, Some("10.244.1.0/32".parse().unwrap()));
        let (forwardings, neighbours, routes) = told(&wanted);
        assert_eq!(
            forwardings,
            ["0a:59:0a:f4:00:00 10.0.0.10", "0a:59:0a:f4:02:00 10.9.0.12"]
        );
        assert_eq!(
            neighbours,
            [
                "10.244.0.0 0a:59:0a:f4:00:00",
                "10.244.2.0 0a:59:0a:f4:02:00"
            ]
        );
        assert_eq!(
            routes,
            ["10.244.0.0/24 10.244.0.0", "10.244.2.0/24 10.244.2.0"]
        );
        assert!(wanted.routes.iter().all(|route| route.onlink));
    }

    #[test]
    fn packets_leave_room_for_what_is_wrapped_around_them() {
        for (address, mtu) in [("10.0.0.11", 1450), ("fd09::11", 1430)] {
            let wanted = wanted(&[address], &["10.244.1.0/24"], &[]);
            assert_eq!(wanted.mtu, Some(mtu), "{address}");
            assert_eq!(wanted.overlay.unwrap().link.mtu, Some(mtu), "{address}");
            assert!(wanted.cni.contains(&format!("\"mtu\": {mtu}")));
        }
    }

    #[test]
    fn both_families_of_pods_travel_over_either_family() {
        let peers = [peer(
            "node-2",
            &["10.0.0.12", "fd09::12"],
            &["10.244.2.0/24", "fd00:244:2::/64"],
        )];
        let own = ["10.244.1.0/24", "fd00:244:1::/64"];
        for (addresses, other) in [
            (["10.0.0.11", "fd09::11"], "10.0.0.12"),
            (["fd09::11", "10.0.0.11"], "fd09::12"),
        ] {
            let (forwardings, neighbours, routes) = told(&wanted(&addresses, &own, &peers));
            assert_eq!(
                forwardings.last().unwrap(),
                &format!("0a:59:0a:f4:02:00 {other}")
            );
            assert_eq!(
                neighbours.last().unwrap(),
                "fe80::859:aff:fef4:200 0a:59:0a:f4:02:00"
            );
            assert_eq!(
                routes.last().unwrap(),
                "fd00:244:2::/64 fe80::859:aff:fef4:200"
            );
        }
        // A machine without IPv6 pods needs no way to others'.
        let (_, _, routes) = told(&wanted(&["10.0.0.11"], &own[..1], &peers));
        assert_eq!(routes.last().unwrap(), "10.244.2.0/24 10.244.2.0");
    }

    #[test]
    fn without_an_address_there_is_no_overlay() {
        let error = wanted_with(NetworkMode::Vxlan, &[], &["10.244.1.0/24"], &[]);
        assert_eq!(error.unwrap_err().code(), Code::Address);
    }

    #[test]
    fn ends_of_one_cluster_differ() {
        for (cluster, length) in [
            ("10.128.0.0/9", 20),
            ("fd00:244::/48", 64),
            ("fd00:244:0:fff0::/60", 76),
            ("fd00:244::/104", 120),
        ] {
            let cluster: IpNet = cluster.parse().unwrap();
            let ranges: Vec<IpNet> = cluster.subnets(length).unwrap().collect();
            let macs: BTreeSet<MacAddress> = ranges.iter().map(|range| mac(*range)).collect();
            assert_eq!(macs.len(), ranges.len(), "{cluster}");
        }
    }
}
