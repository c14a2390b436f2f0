//! `sys::netlink` against the real kernel, each test in a network namespace of its own, checked
//! with iproute2.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::{Namespace, json, sh};
use ipnet::IpNet;
use knode::sys::Changed;
use knode::sys::netlink::{
    Error, LinkName, MacAddress, Netlink, OwnRoute, ROUTE_PROTOCOL, RouteKind, Scope, Watch, watch,
};
use nix::errno::Errno;

const MAC: MacAddress = MacAddress([0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x01]);

fn name(text: &str) -> LinkName {
    text.parse().expect("a link's name")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn bridge_is_made_once_and_put_right_when_changed() {
    Namespace::new().block_on(|| async {
        let netlink = Netlink::connect().expect("a socket");
        let ensure = || netlink.ensure_bridge(&BR, Some(1450), Some(MAC));
        assert_eq!(ensure().await.expect("made"), Changed::Yes);
        assert_eq!(ensure().await.expect("there"), Changed::No);
        let seen = &json("ip -j -d link show cbr0")[0];
        assert_eq!(seen["linkinfo"]["info_kind"], "bridge");
        assert_eq!(seen["mtu"], 1450);
        assert_eq!(seen["address"], MAC.to_string());
        assert!(seen["flags"].as_array().expect("flags").contains(&"UP".into()), "{seen}");

        // A port with a larger MTU and a lower address changes neither.
        sh("ip link add pod0 type veth peer name pod0p && ip link set pod0 address 02:00:00:00:00:01 \
            && ip link set pod0 mtu 1500 master cbr0 up && ip link set pod0p up");
        assert_eq!(ensure().await.expect("there"), Changed::No);
        let mut link = netlink.link(&BR).await.expect("answer").expect("there");
        for _ in 0..100 {
            if link.running {
                break;
            }
            // The kernel tells of a carrier up to a second late.
            tokio::time::sleep(Duration::from_millis(50)).await;
            link = netlink.link(&BR).await.expect("answer").expect("there");
        }
        assert_eq!((link.mtu, link.mac, link.up, link.running), (1450, Some(MAC), true, true));
        let port = netlink.link(&name("pod0")).await.expect("answer").expect("there");
        assert_eq!((port.controller, port.kind.as_deref()), (Some(link.index), Some("veth")));

        sh("ip link set cbr0 down mtu 1400 address 02:00:00:00:00:99");
        assert_eq!(ensure().await.expect("put right"), Changed::Yes);
        assert_eq!(ensure().await.expect("there"), Changed::No);

        assert_eq!(netlink.remove_link(&BR).await.expect("removed"), Changed::Yes);
        assert_eq!(netlink.remove_link(&BR).await.expect("gone"), Changed::No);
    });
}

static BR: std::sync::LazyLock<LinkName> = std::sync::LazyLock::new(|| name("cbr0"));

#[test]
fn link_of_another_kind_in_the_bridges_place_is_left_alone() {
    Namespace::new().block_on(|| async {
        sh("ip link add cbr0 type veth peer name other");
        let netlink = Netlink::connect().expect("a socket");
        let error = netlink
            .ensure_bridge(&BR, Some(1450), Some(MAC))
            .await
            .expect_err("it is a veth");
        assert!(
            matches!(&error, Error::NotABridge(n) if *n == *BR),
            "{error:?}"
        );
        assert_eq!(json("ip -j link show cbr0")[0]["mtu"], 1500);
    });
}

#[test]
fn what_needs_a_link_says_that_there_is_none() {
    Namespace::new().block_on(|| async {
        let netlink = Netlink::connect().expect("a socket");
        assert_eq!(netlink.link(&BR).await.expect("answer"), None);
        for error in [
            netlink.ensure_up(&BR).await.expect_err("no link"),
            netlink.ensure_mtu(&BR, 1400).await.expect_err("no link"),
            netlink
                .ensure_address(&BR, net("10.0.0.1/24"))
                .await
                .expect_err("no link"),
            netlink
                .ensure_route(&OwnRoute::on(net("10.1.0.0/24"), BR.clone()))
                .await
                .expect_err("no link"),
        ] {
            assert!(matches!(error, Error::NoSuchLink(_)), "{error:?}");
        }
        assert_eq!(
            netlink
                .remove_address(&BR, net("10.0.0.1/24"))
                .await
                .expect("nothing"),
            Changed::No
        );
    });
}

#[test]
fn kernels_refusal_keeps_its_number() {
    Namespace::new().block_on(|| async {
        let netlink = Netlink::connect().expect("a socket");
        netlink.ensure_bridge(&BR, None, None).await.expect("made");
        let error = netlink.ensure_mtu(&BR, 1).await.expect_err("too small");
        assert_eq!(error.errno(), Some(Errno::EINVAL), "{error:?}");
        assert_eq!(error.to_string(), "changing the network interface cbr0");
        let source = std::error::Error::source(&error)
            .expect("a source")
            .to_string();
        assert!(source.contains("Invalid argument"), "{source}");
    });
}

#[test]
fn addresses_of_both_families_come_and_go() {
    Namespace::new().block_on(|| async {
        let netlink = Netlink::connect().expect("a socket");
        netlink.ensure_bridge(&BR, None, None).await.expect("made");
        sh("ip addr add 10.244.9.1/24 dev cbr0");
        for address in ["10.244.1.1/24", "fd00:244:1::1/64"] {
            let address = net(address);
            assert_eq!(
                netlink.ensure_address(&BR, address).await.expect("added"),
                Changed::Yes
            );
            assert_eq!(
                netlink.ensure_address(&BR, address).await.expect("there"),
                Changed::No
            );
        }
        let shown = sh("ip addr show dev cbr0");
        for line in [
            "inet 10.244.1.1/24 brd 10.244.1.255",
            "inet 10.244.9.1/24",
            "inet6 fd00:244:1::1/64 scope global",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }

        // Usable at once, although a bridge without ports never finishes duplicate detection.
        let link = netlink.link(&BR).await.expect("answer").expect("there");
        let all = netlink.addresses().await.expect("a list");
        let v6 = all
            .iter()
            .find(|a| a.net == net("fd00:244:1::1/64"))
            .expect("listed");
        assert_eq!(
            (v6.link, v6.scope, v6.tentative, v6.duplicate),
            (link.index, Scope::Global, false, false)
        );
        assert!(!v6.deprecated && !v6.temporary);
        let loopback = all
            .iter()
            .find(|a| a.net == net("127.0.0.1/8"))
            .expect("listed");
        assert_eq!(loopback.scope, Scope::Host);

        let error = netlink
            .ensure_address(&BR, net("fd00:244:1::1/80"))
            .await
            .expect_err("another length");
        assert_eq!(error.errno(), Some(Errno::EEXIST), "{error:?}");

        for address in ["10.244.1.1/24", "fd00:244:1::1/64"] {
            let address = net(address);
            assert_eq!(
                netlink.remove_address(&BR, address).await.expect("removed"),
                Changed::Yes
            );
            assert_eq!(
                netlink.remove_address(&BR, address).await.expect("gone"),
                Changed::No
            );
        }
        assert!(
            sh("ip addr show dev cbr0").contains("10.244.9.1/24"),
            "somebody else's address is gone"
        );
    });
}

/// A namespace with a link `up0` that has neighbours' networks on it.
fn uplink() -> Namespace {
    let namespace = Namespace::new();
    namespace.sh(
        "ip link add up0 type veth peer name up0p && ip link set up0p up && ip link set up0 up \
         && ip addr add 192.0.2.1/24 dev up0 && ip addr add 2001:db8::1/64 dev up0 nodad",
    );
    namespace
}

#[test]
fn routes_are_added_replaced_and_removed_in_both_families() {
    uplink().block_on(|| async {
        let netlink = Netlink::connect().expect("a socket");
        for (destination, first, second) in [
            ("10.244.2.0/24", "192.0.2.2", "192.0.2.3"),
            ("fd00:244:2::/64", "2001:db8::2", "2001:db8::3"),
        ] {
            let route = OwnRoute::via(net(destination), ip(first));
            assert_eq!(
                netlink.ensure_route(&route).await.expect("added"),
                Changed::Yes
            );
            assert_eq!(
                netlink.ensure_route(&route).await.expect("there"),
                Changed::No
            );
            let named = OwnRoute {
                link: Some(name("up0")),
                ..route.clone()
            };
            assert_eq!(
                netlink.ensure_route(&named).await.expect("the same"),
                Changed::No
            );

            let moved = OwnRoute::via(net(destination), ip(second));
            assert_eq!(
                netlink.ensure_route(&moved).await.expect("replaced"),
                Changed::Yes
            );
            let shown = sh("ip route; ip -6 route");
            assert!(
                shown.contains(&format!("{destination} via {second} dev up0 proto 107")),
                "{shown}"
            );
            assert!(!shown.contains(first), "{shown}");

            let own = netlink.routes(Some(ROUTE_PROTOCOL)).await.expect("a list");
            assert_eq!(own.len(), 1, "{own:?}");
            assert!(
                own[0].is_own()
                    && own[0].kind == RouteKind::Unicast
                    && moved.is(&own[0], own[0].link)
            );
            assert_eq!(
                netlink
                    .remove_route(net(destination), 0)
                    .await
                    .expect("removed"),
                Changed::Yes
            );
            assert_eq!(
                netlink
                    .remove_route(net(destination), 0)
                    .await
                    .expect("gone"),
                Changed::No
            );
        }
    });
}

#[test]
fn routes_of_others_are_never_touched() {
    uplink().block_on(|| async {
        sh("ip route add 10.244.3.0/24 via 192.0.2.9 proto static; ip route add blackhole 10.244.4.0/24 proto boot; \
            ip route add fd00:244:3::/64 via 2001:db8::9 proto static; ip route add default via 192.0.2.254");
        let before = sh("ip route; ip -6 route");
        let netlink = Netlink::connect().expect("a socket");
        for (destination, gateway) in
            [("10.244.3.0/24", "192.0.2.2"), ("10.244.4.0/24", "192.0.2.2"), ("fd00:244:3::/64", "2001:db8::2")]
        {
            let error = netlink.ensure_route(&OwnRoute::via(net(destination), ip(gateway))).await;
            let error = error.expect_err("somebody else's");
            assert!(matches!(&error, Error::ForeignRoute { destination: d, .. } if *d == net(destination)), "{error:?}");
            assert_eq!(netlink.remove_route(net(destination), 0).await.expect("nothing"), Changed::No);
        }
        assert_eq!(netlink.remove_route(net("0.0.0.0/0"), 0).await.expect("nothing"), Changed::No);
        assert_eq!(sh("ip route; ip -6 route"), before);
        assert_eq!(netlink.routes(Some(ROUTE_PROTOCOL)).await.expect("a list"), []);

        // With another metric there is room beside it.
        let beside = OwnRoute { metric: 50, ..OwnRoute::via(net("10.244.3.0/24"), ip("192.0.2.2")) };
        assert_eq!(netlink.ensure_route(&beside).await.expect("added"), Changed::Yes);
        assert_eq!(netlink.ensure_route(&beside).await.expect("there"), Changed::No);
        assert_eq!(netlink.remove_route(net("10.244.3.0/24"), 0).await.expect("ours only"), Changed::Yes);
        assert_eq!(sh("ip route; ip -6 route"), before);
    });
}

#[test]
fn route_without_gateway_and_route_to_a_gateway_beyond_the_network() {
    uplink().block_on(|| async {
        let netlink = Netlink::connect().expect("a socket");
        let direct = OwnRoute::on(net("10.244.5.0/24"), name("up0"));
        assert_eq!(
            netlink.ensure_route(&direct).await.expect("added"),
            Changed::Yes
        );
        assert_eq!(
            netlink.ensure_route(&direct).await.expect("there"),
            Changed::No
        );
        assert!(sh("ip route").contains("10.244.5.0/24 dev up0 proto 107 scope link"));

        let far = OwnRoute::via(net("10.244.6.0/24"), ip("198.51.100.1"));
        let error = netlink
            .ensure_route(&far)
            .await
            .expect_err("not on any link");
        assert_eq!(error.errno(), Some(Errno::ENETUNREACH), "{error:?}");
        for (destination, gateway) in [
            ("10.244.6.0/24", "198.51.100.1"),
            ("fd00:6::/64", "2001:db8:ffff::1"),
        ] {
            let far = OwnRoute::via(net(destination), ip(gateway));
            let onlink = OwnRoute {
                link: Some(name("up0")),
                onlink: true,
                ..far
            };
            assert_eq!(
                netlink.ensure_route(&onlink).await.expect("added"),
                Changed::Yes
            );
            assert_eq!(
                netlink.ensure_route(&onlink).await.expect("there"),
                Changed::No
            );
        }
    });
}

#[test]
fn long_lists_are_read_whole_and_filtered() {
    uplink().block_on(|| async {
        sh("for i in $(seq 0 1999); do echo route add 10.$((100 + i / 250)).$((i % 250)).0/24 via 192.0.2.9; done \
            | ip -batch -");
        let netlink = Netlink::connect().expect("a socket");
        netlink.ensure_route(&OwnRoute::via(net("10.1.0.0/16"), ip("192.0.2.2"))).await.expect("added");
        assert_eq!(netlink.routes(Some(ROUTE_PROTOCOL)).await.expect("a list").len(), 1);
        let snapshot = netlink.snapshot().await.expect("a snapshot");
        assert_eq!(snapshot.routes.iter().filter(|r| r.gateway == Some(ip("192.0.2.9"))).count(), 2000);
        assert_eq!(snapshot.own_routes().count(), 1);
        assert_eq!(snapshot.link(&name("up0")).map(|l| l.mtu), Some(1500));
        let index = snapshot.link(&name("up0")).expect("there").index;
        assert!(snapshot.addresses_on(index).any(|a| a.net == net("192.0.2.1/24")));
    });
}

#[test]
fn the_way_to_a_destination_is_the_kernels() {
    uplink().block_on(|| async {
        let netlink = Netlink::connect().expect("a socket");
        for nowhere in ["198.51.100.7", "2001:db8:7::7"] {
            assert_eq!(netlink.resolve(ip(nowhere)).await.expect("an answer"), None);
        }
        sh("ip addr add 192.0.2.77/24 dev up0; ip route add default via 192.0.2.254 src 192.0.2.77; \
            ip -6 route add default via 2001:db8::fe; ip route add prohibit 203.0.113.0/24");
        let index = netlink.link(&name("up0")).await.expect("answer").expect("there").index;
        for (destination, source, gateway) in [
            ("198.51.100.7", "192.0.2.77", Some("192.0.2.254")),
            ("192.0.2.8", "192.0.2.1", None),
            ("2001:db8:7::7", "2001:db8::1", Some("2001:db8::fe")),
        ] {
            let way = netlink.resolve(ip(destination)).await.expect("an answer").expect("a way");
            assert_eq!((way.source, way.gateway, way.link), (ip(source), gateway.map(ip), index), "{destination}");
            assert!(!way.local);
        }
        assert!(netlink.resolve(ip("192.0.2.77")).await.expect("an answer").expect("a way").local);
        let error = netlink.resolve(ip("203.0.113.1")).await.expect_err("prohibited");
        assert_eq!(error.errno(), Some(Errno::EACCES), "{error:?}");
        let default = netlink.routes(None).await.expect("a list");
        assert_eq!(default.iter().filter(|r| r.is_default()).count(), 2);
    });
}

#[test]
fn changes_are_heard_once_and_by_kind() {
    uplink().block_on(|| async {
        let mut watch = watch().expect("an ear");
        // Fresh links are not quiet: their carrier and their IPv6 addresses come a little later.
        let quiet = Duration::from_millis(1500);
        tokio::time::timeout(Duration::from_secs(20), settle(&mut watch, quiet))
            .await
            .expect("silence, while nothing changes");

        sh("ip addr add 192.0.2.50/24 dev up0");
        let changes = watch.next().await.expect("told");
        assert!(changes.addresses && !changes.links, "{changes:?}");
        sh("ip route add 10.77.0.0/16 via 192.0.2.9");
        // The address brought a local route, which may come by itself.
        while !watch.next().await.expect("told").routes {}

        sh("ip link add cbr0 type bridge");
        while !watch.next().await.expect("told").links {}
        settle(&mut watch, quiet).await;

        // Many changes are one event.
        sh("for i in $(seq 1 200); do echo route add 10.78.$i.0/24 via 192.0.2.9; done | ip -batch -");
        let mut events = 0;
        while tokio::time::timeout(Duration::from_millis(200), watch.next()).await.is_ok() {
            events += 1;
        }
        assert!((1..100).contains(&events), "{events} events");
    });
}

/// Hears everything until nothing was heard for as long as `quiet`.
async fn settle(watch: &mut Watch, quiet: Duration) {
    while tokio::time::timeout(quiet, watch.next()).await.is_ok() {}
}
