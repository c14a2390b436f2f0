//! What the kernel's network configuration looks like to us: plain data, no sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The mark on every route that we make: its `proto`, `k` in ASCII, not among the numbers that
/// iproute2 or other daemons use (rtnetlink(7), /etc/iproute2/rt_protos). Routes with another
/// mark are somebody else's and are never changed.
pub const ROUTE_PROTOCOL: u8 = 0x6B;

/// The metric the kernel gives to an IPv6 route that names none (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// Longest name of a link in bytes (`IFNAMSIZ` less the final NUL).
const LINK_NAME_MAX: usize = 15;

/// A name that the kernel accepts for a link: 1 to 15 bytes, no `/`, `:` or blank, not `.` or `..`
/// (the kernel's `dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

impl LinkName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LinkName {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
        if s.is_empty() || s.len() > LINK_NAME_MAX || s == "." || s == ".." || s.contains(bad) {
            return Err(InvalidName(s.to_owned()));
        }
        Ok(LinkName(s.to_owned()))
    }
}

/// The text is no name that the kernel takes for a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no interface name: 1 to 15 bytes without '/', ':' and blanks")]
pub struct InvalidName(String);

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number, unique for as long as the link exists.
    pub index: u32,
    /// The name, as the kernel has it.
    pub name: String,
    /// `bridge`, `veth`, `vxlan`…; `None` for a physical device and the loopback.
    pub kind: Option<String>,
    /// Set up by an administrator.
    pub up: bool,
    /// Up, and its lower layer is up as well: a bridge without ports is not.
    pub running: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// The Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// The index of the bridge or bond that it is a port of.
    pub controller: Option<u32>,
    /// What a vxlan link is besides.
    pub vxlan: Option<VxlanFacts>,
}

/// What the kernel says of a vxlan link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanFacts {
    /// The number of the overlay network, 24 bits.
    pub vni: u32,
    /// The UDP port that it sends to and listens on.
    pub port: u16,
    /// The address that it sends from.
    pub local: Option<IpAddr>,
    /// Whether it remembers where frames came from.
    pub learning: bool,
}

/// A vxlan link as we want it (RFC 7348).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Its name.
    pub name: LinkName,
    /// The number of the overlay network, 24 bits.
    pub vni: u32,
    /// The UDP port that it sends to and listens on.
    pub port: u16,
    /// The address that it sends from.
    pub local: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Largest packet inside, in bytes; absent: the kernel's default.
    pub mtu: Option<u32>,
}

/// Frames for an Ethernet address go, in UDP, to an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forwarding {
    /// The Ethernet address inside the overlay.
    pub mac: MacAddress,
    /// Where the other end is.
    pub destination: IpAddr,
}

/// An address whose Ethernet address is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The address.
    pub address: IpAddr,
    /// The Ethernet address.
    pub mac: MacAddress,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The index of the link.
    pub link: u32,
    /// The address itself (not its network) and the length of its prefix.
    pub net: IpNet,
    /// How far the address is valid.
    pub scope: Scope,
    /// Not yet confirmed to be unique; not usable for listening.
    pub tentative: bool,
    /// Somebody else on the network has it (IPv6 duplicate address detection).
    pub duplicate: bool,
    /// Its preferred lifetime is over: not to be used for new connections.
    pub deprecated: bool,
    /// An IPv6 privacy address, which will change: none by which a node should be known.
    pub temporary: bool,
}

/// How far an address is valid (rtnetlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// Only on the link itself (`fe80::/10`, `169.254.0.0/16` when set up so).
    Link,
    /// Only within the machine (`127.0.0.1`).
    Host,
    /// Another of the kernel's numbers.
    Other(u8),
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Drops it (`blackhole`, `unreachable`, `prohibit`) or another of the kernel's numbers.
    Other(u8),
}

/// A route in the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; prefix length 0 for a default route.
    pub destination: IpNet,
    /// The next router; `None` when the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The index of the link; `None` for a route with several next hops.
    pub link: Option<u32>,
    /// Lower is preferred.
    pub metric: u32,
    /// Who made it: [`ROUTE_PROTOCOL`] for us, 2 the kernel, 4 an administrator, 16 DHCP…
    pub protocol: u8,
    /// The source address that it prefers.
    pub source: Option<IpAddr>,
    /// The gateway is taken to be on the link even if no address there says so.
    pub onlink: bool,
    /// What it does.
    pub kind: RouteKind,
}

impl Route {
    /// Whether this route is one of ours.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.protocol == ROUTE_PROTOCOL
    }

    /// Whether this route leads everywhere.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

/// A route as we want it; it will carry [`ROUTE_PROTOCOL`]. Name a gateway, a link, or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnRoute {
    /// Where it leads; bits beyond the prefix are ignored.
    pub destination: IpNet,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// The link; without it the kernel finds the one that the gateway is on.
    pub link: Option<LinkName>,
    /// Take the gateway to be on the link even if no address there says so; needs both.
    pub onlink: bool,
    /// Lower is preferred. 0 is the kernel's default: 0 for IPv4, 1024 for IPv6.
    pub metric: u32,
}

impl OwnRoute {
    /// A route to `destination` by `gateway`, with the kernel's default metric.
    #[must_use]
    pub fn via(destination: IpNet, gateway: IpAddr) -> Self {
        OwnRoute {
            destination,
            gateway: Some(gateway),
            link: None,
            onlink: false,
            metric: 0,
        }
    }

    /// A route to `destination` directly on `link`, with the kernel's default metric.
    #[must_use]
    pub fn on(destination: IpNet, link: LinkName) -> Self {
        OwnRoute {
            destination,
            gateway: None,
            link: Some(link),
            onlink: false,
            metric: 0,
        }
    }

    /// The metric that the kernel will show for it.
    #[must_use]
    pub fn effective_metric(&self) -> u32 {
        match (self.metric, self.destination) {
            (0, IpNet::V6(_)) => IPV6_DEFAULT_METRIC,
            (metric, _) => metric,
        }
    }

    /// Whether `route` has the same place in the table: the kernel keeps only one of them.
    #[must_use]
    pub fn same_key(&self, route: &Route) -> bool {
        self.destination.trunc() == route.destination && self.effective_metric() == route.metric
    }

    /// Whether `route` is this one, as found in the kernel; `index` is that of [`OwnRoute::link`].
    #[must_use]
    pub fn is(&self, route: &Route, index: Option<u32>) -> bool {
        self.same_key(route)
            && route.is_own()
            && route.kind == RouteKind::Unicast
            && self.gateway == route.gateway
            && self.onlink == route.onlink
            // Where no link is asked for, the one that the kernel has chosen is right.
            && (index.is_none() || index == route.link)
    }
}

/// How the kernel would send a packet to some destination right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRoute {
    /// The source address that the packet would get.
    pub source: IpAddr,
    /// The index of the link that it would leave by.
    pub link: u32,
    /// The next router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The destination is this machine itself.
    pub local: bool,
}

/// Links, addresses and routes at one time (nearly: the kernel is asked three times).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By index.
    pub links: BTreeMap<u32, Link>,
    /// IPv4 and IPv6, in the kernel's order.
    pub addresses: Vec<Address>,
    /// The main table, IPv4 and IPv6, in the kernel's order.
    pub routes: Vec<Route>,
}

impl Snapshot {
    /// The link of this name.
    #[must_use]
    pub fn link(&self, name: &LinkName) -> Option<&Link> {
        self.links.values().find(|link| link.name == name.as_str())
    }

    /// The addresses on the link with this index.
    pub fn addresses_on(&self, link: u32) -> impl Iterator<Item = &Address> {
        self.addresses
            .iter()
            .filter(move |address| address.link == link)
    }

    /// The routes that we made.
    pub fn own_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| route.is_own())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_the_kernels() {
        for good in ["cbr0", "eth0.100", "a", "fifteen-bytes-x", "ü0"] {
            assert_eq!(good.parse::<LinkName>().expect(good).as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "sixteen-bytes-xx",
            "a/b",
            "eth0:1",
            "a b",
            "a\tb",
            "a\0",
        ] {
            assert!(bad.parse::<LinkName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn mac_addresses_print_as_everywhere() {
        assert_eq!(
            MacAddress([0x0a, 0x58, 0, 1, 0xfe, 0xff]).to_string(),
            "0a:58:00:01:fe:ff"
        );
    }

    fn route(protocol: u8, metric: u32) -> Route {
        Route {
            destination: "10.2.0.0/24".parse().expect("a network"),
            gateway: Some("192.0.2.2".parse().expect("an address")),
            link: Some(7),
            metric,
            protocol,
            source: None,
            onlink: false,
            kind: RouteKind::Unicast,
        }
    }

    #[test]
    fn own_route_is_recognised_and_others_are_not() {
        let want = OwnRoute::via(
            "10.2.0.9/24".parse().expect("a network"),
            "192.0.2.2".parse().expect("an address"),
        );
        assert!(want.is(&route(ROUTE_PROTOCOL, 0), None));
        assert!(want.is(&route(ROUTE_PROTOCOL, 0), Some(7)));
        assert!(!want.is(&route(ROUTE_PROTOCOL, 0), Some(8)), "another link");
        assert!(!want.is(&route(4, 0), None), "somebody else's");
        assert!(!want.is(&route(ROUTE_PROTOCOL, 5), None), "another metric");
        assert!(want.same_key(&route(4, 0)));
        let blackhole = Route {
            kind: RouteKind::Other(6),
            ..route(ROUTE_PROTOCOL, 0)
        };
        assert!(!want.is(&blackhole, None));
    }

    #[test]
    fn metric_zero_is_1024_for_ipv6_only() {
        let v6 = OwnRoute::on(
            "2001:db8::/64".parse().expect("v6"),
            "eth0".parse().expect("name"),
        );
        assert_eq!(v6.effective_metric(), 1024);
        assert_eq!(
            OwnRoute {
                metric: 3,
                ..v6.clone()
            }
            .effective_metric(),
            3
        );
        let v4 = OwnRoute {
            destination: "10.0.0.0/8".parse().expect("v4"),
            ..v6
        };
        assert_eq!(v4.effective_metric(), 0);
    }
}
