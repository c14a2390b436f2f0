//! From the crate's messages to our types. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};

use super::types::{Address, Link, MacAddress, ResolvedRoute, Route, RouteKind, Scope, VxlanFacts};

pub(super) fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: 0,
        mac: None,
        controller: None,
        vxlan: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddress),
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Vxlan(data)) => link.vxlan = Some(vxlan(&data)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn vxlan(data: &[InfoVxlan]) -> VxlanFacts {
    let mut facts = VxlanFacts {
        vni: 0,
        port: 0,
        local: None,
        learning: true,
    };
    for attribute in data {
        match attribute {
            InfoVxlan::Id(vni) => facts.vni = *vni,
            InfoVxlan::Port(port) => facts.port = *port,
            InfoVxlan::Local(local) => facts.local = Some(IpAddr::V4(*local)),
            InfoVxlan::Local6(local) => facts.local = Some(IpAddr::V6(*local)),
            InfoVxlan::Learning(learning) => facts.learning = *learning,
            _ => {}
        }
    }
    facts
}

pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's, IFA_LOCAL ours.
    let ip = local.or(address)?;
    Some(Address {
        link: message.header.index,
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        scope: match message.header.scope {
            AddressScope::Universe => Scope::Global,
            AddressScope::Link => Scope::Link,
            AddressScope::Host => Scope::Host,
            other => Scope::Other(other.into()),
        },
        tentative: flags.contains(AddressFlags::Tentative),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        deprecated: flags.contains(AddressFlags::Deprecated),
        // The same bit means "secondary" for IPv4, which is harmless.
        temporary: ip.is_ipv6() && flags.contains(AddressFlags::Secondary),
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// A route of the main table; `None` for what is no such thing.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    if header.table != RouteHeader::RT_TABLE_MAIN || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route {
        destination: IpNet::new(any, header.destination_prefix_length).ok()?,
        gateway: None,
        link: None,
        metric: 0,
        protocol: header.protocol.into(),
        source: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        kind: match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            other => RouteKind::Other(other.into()),
        },
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => {
                route.destination = IpNet::new(ip(a)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(a) => route.gateway = ip(a),
            RouteAttribute::PrefSource(a) => route.source = ip(a),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}

/// The answer to "how would you send a packet there?"; `None` when it names no source or link.
pub(super) fn resolved(message: &RouteMessage) -> Option<ResolvedRoute> {
    let (mut source, mut link, mut gateway) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::PrefSource(a) => source = ip(a),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(a) => gateway = ip(a),
            _ => {}
        }
    }
    let local = message.header.kind == RouteType::Local;
    Some(ResolvedRoute {
        source: source?,
        link: link?,
        gateway,
        local,
    })
}
