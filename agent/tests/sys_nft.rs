//! `sys::nft` against the real kernel, each test in network namespaces of its own: read back with
//! the real `nft`, and with real packets.

mod common;

use std::io::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Namespace, json, sh};
use ipnet::IpNet;
use knode::sys::Changed;
use knode::sys::nft::{FOREIGN_RULE, METADATA_V4, METADATA_V6, Nft, Ruleset, Table};
use nix::errno::Errno;

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter()
        .map(|net| net.parse().expect("a network"))
        .collect()
}

fn dual_stack() -> Ruleset {
    Ruleset {
        pod_networks: nets(&["10.244.1.0/24", "fd00:244:1::/64"]),
        masquerade: true,
        no_masquerade: nets(&["10.244.0.0/16", "10.96.0.0/12", "fd00:244::/32"]),
        bridge: Some("cbr0".parse().expect("a name")),
        metadata_guard: vec![METADATA_V4, METADATA_V6],
    }
}

/// `nft list` without what differs from run to run: the digests.
fn listing(text: &str) -> String {
    text.lines()
        .map(|line| match line.split_once(" #") {
            Some((before, digest)) => format!("{before}{}\n", &digest[12..]),
            None => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn real_nft_reads_it_as_it_was_meant() {
    Namespace::new().block_on(|| async {
        Nft.replace(&dual_stack()).await.expect("replaced");
        let expected = r#"table inet knode {
	comment "managed by knode"
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.244.1.0/24 ip daddr 10.96.0.0/12 return comment "keep 10.244.1.0/24 to 10.96.0.0/12"
		ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return comment "keep 10.244.1.0/24 to 10.244.0.0/16"
		ip saddr 10.244.1.0/24 oifname != "cbr0" counter packets 0 bytes 0 masquerade fully-random comment "masquerade 10.244.1.0/24"
		ip6 saddr fd00:244:1::/64 ip6 daddr fd00:244::/32 return comment "keep fd00:244:1::/64 to fd00:244::/32"
		ip6 saddr fd00:244:1::/64 oifname != "cbr0" counter packets 0 bytes 0 masquerade fully-random comment "masquerade fd00:244:1::/64"
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr 10.244.1.0/24 ip daddr 169.254.169.254 counter packets 0 bytes 0 drop comment "guard 169.254.169.254 from 10.244.1.0/24"
		ip6 saddr fd00:244:1::/64 ip6 daddr fd00:ec2::254 counter packets 0 bytes 0 drop comment "guard fd00:ec2::254 from fd00:244:1::/64"
	}
}
"#;
        assert_eq!(listing(&sh("nft list ruleset")), expected);
        // And what nft prints, nft takes: nothing in it is beyond the language.
        sh("nft list ruleset > /dev/shm/knode-nft-$$ && nft -c -f /dev/shm/knode-nft-$$; rm /dev/shm/knode-nft-$$");
    });
}

#[test]
fn everything_and_single_addresses_need_no_mask() {
    Namespace::new().block_on(|| async {
        let ruleset = Ruleset {
            pod_networks: nets(&["0.0.0.0/0", "2001:db8::7/128"]),
            masquerade: true,
            no_masquerade: nets(&["10.0.0.1/32"]),
            ..Ruleset::default()
        };
        assert_eq!(Nft.ensure(&ruleset).await.expect("made"), Changed::Yes);
        assert_eq!(Nft.ensure(&ruleset).await.expect("there"), Changed::No);
        let shown = sh("nft list ruleset");
        for part in [
            "ip daddr 10.0.0.1 return",
            "meta nfproto ipv4 counter",
            "ip6 saddr 2001:db8::7 counter",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    });
}

#[test]
fn nothing_is_touched_while_it_is_right_and_any_change_is_noticed() {
    Namespace::new().block_on(|| async {
        let ruleset = dual_stack();
        assert_eq!(Nft.observe().await.expect("an answer"), None);
        assert_eq!(Nft.ensure(&ruleset).await.expect("made"), Changed::Yes);
        let handle = json("nft -j list tables")["nftables"][1]["table"]["handle"].clone();
        assert_eq!(Nft.ensure(&ruleset).await.expect("there"), Changed::No);
        assert_eq!(json("nft -j list tables")["nftables"][1]["table"]["handle"], handle, "it was made anew");
        assert_eq!(Nft.observe().await.expect("an answer"), Some(ruleset.expected()));

        for damage in [
            "nft delete table inet knode",
            "nft flush table inet knode",
            "nft flush ruleset",
            "nft flush chain inet knode forward",
            "nft delete rule inet knode postrouting handle \
             $(nft -a list chain inet knode postrouting | sed -n 's/.*10.96.0.0.*# handle //p')",
            "nft replace rule inet knode postrouting handle \
             $(nft -a list chain inet knode postrouting | sed -n 's/.*10.96.0.0.*# handle //p') ip daddr 1.1.1.1 return",
            "nft insert rule inet knode forward accept",
            "nft add chain inet knode forward '{ policy drop; }'",
            "nft add chain inet knode mine",
            "nft add table inet knode '{ flags dormant; }'",
        ] {
            sh(damage);
            assert_ne!(Nft.observe().await.expect("an answer"), Some(ruleset.expected()), "unnoticed: {damage}");
            assert_eq!(Nft.ensure(&ruleset).await.expect(damage), Changed::Yes, "{damage}");
            assert_eq!(Nft.observe().await.expect("an answer"), Some(ruleset.expected()), "{damage}");
        }
        sh("nft add rule inet knode forward counter comment mine");
        let table = Nft.observe().await.expect("an answer").expect("there");
        assert_eq!(table.chains["forward"].rules.last().map(String::as_str), Some("mine"));
        sh("nft add rule inet knode forward counter");
        let table = Nft.observe().await.expect("an answer").expect("there");
        assert_eq!(table.chains["forward"].rules.last().map(String::as_str), Some(FOREIGN_RULE));

        let other = Ruleset { metadata_guard: vec![], ..dual_stack() };
        assert_eq!(Nft.ensure(&other).await.expect("replaced"), Changed::Yes);
        assert!(!sh("nft list ruleset").contains("forward"));
        assert_eq!(Nft.ensure(&Ruleset::default()).await.expect("replaced"), Changed::Yes);
        assert_eq!(Nft.observe().await.expect("an answer"), Some(Table::default()));
        assert_eq!(Nft.remove().await.expect("removed"), Changed::Yes);
        assert_eq!(Nft.remove().await.expect("gone"), Changed::No);
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn tables_of_others_stay_as_they_are() {
    Namespace::new().block_on(|| async {
        // Near misses in name and family, and what a chain listing has to get past.
        let others = "table ip knode { chain postrouting { type nat hook postrouting priority 100; counter; }; };
            table inet knode2 { set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; };
              chain forward { type filter hook forward priority 0; policy drop; ip saddr @s accept; jump x; }; chain x { }; };
            table netdev t { chain i { type filter hook ingress device lo priority 0; }; };
            table bridge b { chain c { type filter hook forward priority 0; }; };";
        sh(&format!("nft '{others}'"));
        let before = sh("nft list ruleset");
        assert_eq!(Nft.observe().await.expect("an answer"), None);
        assert_eq!(Nft.ensure(&dual_stack()).await.expect("made"), Changed::Yes);
        assert_eq!(Nft.ensure(&dual_stack()).await.expect("there"), Changed::No);
        assert_eq!(Nft.remove().await.expect("removed"), Changed::Yes);
        assert_eq!(sh("nft list ruleset"), before);
    });
}

#[test]
fn refused_replacement_changes_nothing_and_says_why() {
    Namespace::new().block_on(|| async {
        // A table that belongs to a living process cannot be replaced by another one.
        let mut nft = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("nft");
        let mut stdin = nft.stdin.take().expect("a pipe");
        stdin
            .write_all(b"add table inet knode { flags owner; }\nadd chain inet knode theirs\n")
            .expect("written");
        stdin.flush().expect("written");
        for _ in 0..100 {
            if Nft
                .observe()
                .await
                .expect("an answer")
                .is_some_and(|table| table.chains.contains_key("theirs"))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let before = sh("nft list ruleset");
        let error = Nft.ensure(&dual_stack()).await.expect_err("it is owned");
        assert_eq!(error.errno(), Some(Errno::EPERM), "{error:?}");
        assert_eq!(error.to_string(), "replacing the nftables table knode");
        assert_eq!(sh("nft list ruleset"), before);
        drop(stdin);
        nft.wait().expect("nft ends");
        assert_eq!(
            Nft.ensure(&dual_stack()).await.expect("free again"),
            Changed::Yes
        );
    });
}

#[test]
fn large_ruleset_goes_in_one_batch_and_comes_back_whole() {
    Namespace::new().block_on(|| async {
        let ruleset = Ruleset {
            no_masquerade: (0..250_u16)
                .map(|i| {
                    format!("10.{}.{}.0/24", 100 + i / 256, i % 256)
                        .parse()
                        .expect("a network")
                })
                .collect(),
            ..dual_stack()
        };
        assert_eq!(Nft.ensure(&ruleset).await.expect("made"), Changed::Yes);
        assert_eq!(Nft.ensure(&ruleset).await.expect("there"), Changed::No);
        assert_eq!(sh("nft list ruleset | grep -c return").trim(), "250");
    });
}

#[test]
fn observing_while_others_change_their_tables() {
    let namespace = Namespace::new();
    namespace.block_on(|| async {
        Nft.replace(&dual_stack()).await.expect("replaced");
        let mut busy = Command::new("sh")
            .args(["-c", "for i in $(seq 1 150); do nft add table ip t$i; nft add chain ip t$i c; nft delete table ip t$i; done"])
            .spawn()
            .expect("sh");
        let mut looks = 0;
        while busy.try_wait().expect("a state").is_none() {
            assert_eq!(Nft.ensure(&dual_stack()).await.expect("an answer"), Changed::No);
            looks += 1;
        }
        assert!(looks > 10, "only {looks} looks");
    });
}

/// Three namespaces: `pod` and `pod2` on the bridge of `node`, and `world` beyond its uplink.
struct Cluster {
    node: Namespace,
    pod: Namespace,
    pod2: Namespace,
    world: Namespace,
}

fn cluster() -> Cluster {
    let (node, pod, pod2, world) = (
        Namespace::new(),
        Namespace::new(),
        Namespace::new(),
        Namespace::new(),
    );
    for namespace in [&node, &pod, &pod2, &world] {
        // A link cannot look for neighbours before its own address is found to be unique.
        namespace.sh("echo 0 > /proc/sys/net/ipv6/conf/default/dad_transmits");
    }
    node.sh(&format!(
        "ip link add cbr0 type bridge && ip link set cbr0 up \
         && ip addr add 10.244.1.1/24 dev cbr0 && ip addr add fd00:244:1::1/64 dev cbr0 nodad \
         && ip link add pod0 type veth peer name eth0 netns {} && ip link set pod0 master cbr0 up \
         && ip link add pod1 type veth peer name eth0 netns {} && ip link set pod1 master cbr0 up \
         && ip link add up0 type veth peer name eth0 netns {} && ip link set up0 up \
         && ip addr add 192.0.2.1/24 dev up0 && ip addr add 2001:db8::1/64 dev up0 nodad \
         && echo 1 > /proc/sys/net/ipv4/ip_forward && echo 1 > /proc/sys/net/ipv6/conf/all/forwarding \
         && ip route add default via 192.0.2.2 && ip -6 route add default via 2001:db8::2 \
         && ip route add 203.0.113.0/24 via 10.244.1.3",
        pod.tid, pod2.tid, world.tid
    ));
    for (namespace, host) in [(&pod, 2), (&pod2, 3)] {
        namespace.sh(&format!(
            "ip link set eth0 up && ip addr add 10.244.1.{host}/24 dev eth0 && ip addr add fd00:244:1::{host}/64 dev eth0 nodad \
             && ip route add default via 10.244.1.1 && ip -6 route add default via fd00:244:1::1"
        ));
    }
    pod2.sh("ip addr add 203.0.113.5/32 dev lo");
    world.sh(
        "ip link set eth0 up && ip addr add 192.0.2.2/24 dev eth0 && ip addr add 2001:db8::2/64 dev eth0 nodad \
         && ip addr add 169.254.169.254/32 dev lo && ip addr add 10.96.0.10/32 dev lo \
         && ip addr add fd00:244:2::10/128 dev lo && ip addr add fd00:ec2::254/128 dev lo \
         && ip route add 10.244.1.0/24 via 192.0.2.1 && ip -6 route add fd00:244:1::/64 via 2001:db8::1",
    );
    Cluster {
        node,
        pod,
        pod2,
        world,
    }
}

/// Sends a datagram from one namespace to an address in another, and says whose it seemed to be;
/// `None` when it did not arrive.
fn seen_as(from: &Namespace, to: &Namespace, address: &str) -> Option<IpAddr> {
    let address: IpAddr = address.parse().expect("an address");
    // Sockets stay in the namespace that they were made in, whoever uses them.
    let server = to.run(move || UdpSocket::bind((address, 0)).expect("a socket"));
    let target = server.local_addr().expect("an address");
    let client = from.run(move || {
        let any: IpAddr = if address.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        UdpSocket::bind((any, 0)).expect("a socket")
    });
    server
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout");
    // The first packet to a fresh neighbour may be lost while its address is found out.
    for _ in 0..4 {
        client.send_to(b"who am I?", target).expect("sent");
        if let Ok((_, peer)) = server.recv_from(&mut [0; 64]) {
            // The answer finds its way back, too.
            server.send_to(b"you", peer).expect("sent");
            client
                .set_read_timeout(Some(Duration::from_secs(2)))
                .expect("a timeout");
            client
                .recv_from(&mut [0; 64])
                .expect("the answer came back");
            return Some(peer.ip());
        }
    }
    None
}

#[test]
fn real_packets_are_masqueraded_kept_and_dropped_as_meant() {
    let Cluster {
        node,
        pod,
        pod2,
        world,
    } = cluster();
    let ip = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
    let (pod_v4, pod_v6) = (ip("10.244.1.2"), ip("fd00:244:1::2"));

    // Without rules, everything arrives as it was sent: what follows is the rules' doing.
    for (address, source) in [
        ("192.0.2.2", pod_v4),
        ("10.96.0.10", pod_v4),
        ("169.254.169.254", pod_v4),
        ("2001:db8::2", pod_v6),
        ("fd00:244:2::10", pod_v6),
        ("fd00:ec2::254", pod_v6),
    ] {
        assert_eq!(seen_as(&pod, &world, address), source, "{address} before");
    }
    node.block_on(|| async { Nft.replace(&dual_stack()).await.expect("replaced") });
    for (address, source) in [
        ("192.0.2.2", ip("192.0.2.1")),
        ("10.96.0.10", pod_v4),
        ("169.254.169.254", None),
        ("2001:db8::2", ip("2001:db8::1")),
        ("fd00:244:2::10", pod_v6),
        ("fd00:ec2::254", None),
    ] {
        assert_eq!(seen_as(&pod, &world, address), source, "{address}");
    }
    // Routed by the node, but back onto the bridge: not masqueraded.
    assert_eq!(seen_as(&pod, &pod2, "203.0.113.5"), pod_v4);
    // The node itself may ask the metadata service.
    assert_eq!(seen_as(&node, &world, "169.254.169.254"), ip("192.0.2.1"));

    let shown = node.sh("nft list table inet knode");
    for rule in [
        "masquerade fully-random",
        "169.254.169.254 counter",
        "fd00:ec2::254 counter",
    ] {
        let line = shown.lines().find(|line| line.contains(rule)).expect(rule);
        assert!(!line.contains("packets 0"), "not counted: {line}");
    }

    // Switched off again, the metadata service answers and the pod shows its own address.
    node.block_on(|| async { Nft.ensure(&Ruleset::default()).await.expect("replaced") });
    assert_eq!(seen_as(&pod, &world, "169.254.169.254"), pod_v4);
    assert_eq!(seen_as(&pod, &world, "192.0.2.2"), pod_v4);
}

#[test]
fn changes_of_our_table_are_heard_and_those_of_others_are_not() {
    Namespace::new().block_on(|| async {
        let mut watch = knode::sys::nft::watch().expect("an ear");
        let quiet = Duration::from_millis(300);
        let hears = async |watch: &mut knode::sys::nft::Watch| {
            tokio::time::timeout(quiet, watch.next()).await.is_ok()
        };
        sh("nft 'table ip knode { chain c { counter; }; }; table inet other { chain c { counter; }; }'; nft flush ruleset");
        assert!(!hears(&mut watch).await, "others' tables");
        Nft.replace(&dual_stack()).await.expect("replaced");
        assert!(hears(&mut watch).await, "our own change");
        assert_eq!(Nft.ensure(&dual_stack()).await.expect("there"), Changed::No);
        assert!(!hears(&mut watch).await, "looking changes nothing");
        for damage in [
            "nft flush chain inet knode forward",
            "nft add rule inet knode forward counter",
            "nft add chain inet knode mine",
            "nft delete table inet knode",
        ] {
            sh(damage);
            assert!(hears(&mut watch).await, "{damage}");
        }
    });
}
