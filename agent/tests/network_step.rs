//! The step `network` against the real kernel, in mode vxlan: machines in namespaces of their own,
//! with a router between them that knows nothing of pods.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use common::{Namespace, json, sh};
use knode::graph::Step;
use knode::machine::Machine;
use knode::status::Status;
use knode::steps;
use knode::sys::root::Root;
use units::NodeConfig;
use units::node_config::{NetworkMode, Peer};
use units::types::Role;

/// A machine: its number, its addresses, its pods' ranges.
#[derive(Clone)]
struct Site {
    name: &'static str,
    addresses: Vec<IpAddr>,
    ranges: Vec<&'static str>,
    /// What its configuration's mode is.
    mode: NetworkMode,
}

impl Site {
    fn peer(&self) -> Peer {
        Peer {
            name: self.name.parse().expect("a name"),
            role: Role::Node,
            addresses: self.addresses.clone(),
            pod_cidrs: self
                .ranges
                .iter()
                .map(|r| r.parse().expect("a range"))
                .collect(),
        }
    }

    /// The step and what it works on; the folder lives as long as they are used.
    fn step(&self) -> (Arc<dyn Step<Machine>>, Arc<Machine>, tempfile::TempDir) {
        let sample = include_str!("../../units/testdata/node-v1.yaml");
        let mut config: NodeConfig = serde_yaml::from_str(sample).expect("the sample");
        config.node.pod_cidrs = self.peer().pod_cidrs;
        config.cluster.pod_cidrs = vec![
            "10.244.0.0/16".parse().expect("a range"),
            "fd00:244::/32".parse().expect("a range"),
        ];
        let network = config.network.as_mut().expect("a network");
        network.mode = self.mode;
        network.mtu = None;
        network.peers.clear();
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::new(folder.path());
        root.create_dir("/run/knode", 0o755).expect("a folder");
        let steps = steps::of(&config);
        let step = steps
            .into_iter()
            .find(|step| step.name() == "network")
            .expect("there");
        let status = Status::new(root.clone(), ["network"]);
        let machine = Machine::new(config, self.name.parse().expect("a name"), root, status);
        machine.addresses.send_replace(Some(self.addresses.clone()));
        (step, Arc::new(machine), folder)
    }

    /// Runs the step once, with these peers.
    fn converge(&self, namespace: &Namespace, peers: Vec<Peer>) -> String {
        let site = self.clone();
        namespace.block_on(move || async move {
            let (step, machine, _folder) = site.step();
            machine.peers.send_replace(Some(peers));
            step.converge(&machine).await.expect("converged")
        })
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn site(name: &'static str, addresses: &[&str], ranges: &[&'static str]) -> Site {
    Site {
        name,
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        ranges: ranges.to_vec(),
        mode: NetworkMode::Vxlan,
    }
}

/// Two machines with a pod each; between them only a router.
struct World {
    router: Namespace,
    machines: [Namespace; 2],
    pods: [Namespace; 2],
    sites: [Site; 2],
}

impl World {
    /// Machine N (1 or 2) is 10.N.0.10 and fd0N::10; its pod 10.244.N.5 and fd00:244:N::5.
    fn new(v6_first: bool) -> Self {
        let router = Namespace::new();
        let machines = [Namespace::new(), Namespace::new()];
        let pods = [Namespace::new(), Namespace::new()];
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (n, machine) in (1..).zip(&machines) {
            router.sh(&format!(
                "ip link add r{n} type veth peer name up0 netns {tid}; ip link set r{n} up; \
                 ip addr add 10.{n}.0.1/24 dev r{n}; ip addr add fd0{n}::1/64 dev r{n} nodad",
                tid = machine.tid
            ));
            machine.sh(&format!(
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip link set up0 up; \
                 ip addr add 10.{n}.0.10/24 dev up0; ip addr add fd0{n}::10/64 dev up0 nodad; \
                 ip route add default via 10.{n}.0.1; ip -6 route add default via fd0{n}::1"
            ));
        }
        let mut sites = [
            site(
                "one",
                &["10.1.0.10", "fd01::10"],
                &["10.244.1.0/24", "fd00:244:1::/64"],
            ),
            site(
                "two",
                &["10.2.0.10", "fd02::10"],
                &["10.244.2.0/24", "fd00:244:2::/64"],
            ),
        ];
        if v6_first {
            for site in &mut sites {
                site.addresses.reverse();
                site.ranges.reverse();
            }
        }
        World {
            router,
            machines,
            pods,
            sites,
        }
    }

    fn converge(&self) {
        for (at, other) in [(0, 1), (1, 0)] {
            let told = self.sites[at].converge(&self.machines[at], vec![self.sites[other].peer()]);
            assert!(told.contains("2 routes to peers by knode-vxlan"), "{told}");
        }
    }

    /// A pod on each bridge, as the CNI plugins make them.
    fn add_pods(&self) {
        for (n, (machine, pod)) in (1..).zip(self.machines.iter().zip(&self.pods)) {
            let mtu = json_in(machine, "ip -j link show cbr0")[0]["mtu"].clone();
            machine.sh(&format!(
                "ip link add pod type veth peer name eth0 netns {tid}; ip link set pod mtu {mtu} master cbr0 up",
                tid = pod.tid
            ));
            pod.sh(&format!(
                "ip link set eth0 mtu {mtu} up; ip addr add 10.244.{n}.5/24 dev eth0; \
                 ip addr add fd00:244:{n}::5/64 dev eth0 nodad; \
                 ip route add default via 10.244.{n}.1; ip -6 route add default via fd00:244:{n}::1"
            ));
        }
    }

    /// Packets that were cut to pieces anywhere.
    fn fragments(&self) -> u64 {
        let all = self.machines.iter().chain(&self.pods).chain([&self.router]);
        let count = "awk '/^Ip:/ && n++ {s += $19} END {print s+0}' /proc/net/snmp; \
                     awk '/Ip6FragCreates/ {print $2}' /proc/net/snmp6";
        all.flat_map(|namespace| {
            let text = namespace.sh(count);
            text.lines()
                .map(|n| n.parse::<u64>().expect("a number"))
                .collect::<Vec<_>>()
        })
        .sum()
    }
}

fn json_in(namespace: &Namespace, line: &'static str) -> serde_json::Value {
    namespace.run(move || json(line))
}

fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => "0.0.0.0:0".parse().expect("an address"),
        IpAddr::V6(_) => "[::]:0".parse().expect("an address"),
    }
}

/// Sends a datagram with so many bytes, and tells from where it seemed to come; `None` when it
/// did not arrive.
fn udp(from: &Namespace, to: &Namespace, address: IpAddr, bytes: usize) -> Option<IpAddr> {
    let server = to.run(move || UdpSocket::bind((address, 0)).expect("a socket"));
    let client = from.run(move || UdpSocket::bind(any(address)).expect("a socket"));
    let limit = Some(Duration::from_millis(300));
    server.set_read_timeout(limit).expect("a limit");
    let target = server.local_addr().expect("bound");
    let mut buffer = vec![0; 65_536];
    // The first packet may be lost while neighbours on real links are being asked for.
    for _ in 0..10 {
        // Too large for the way is a failure as well, told at once.
        if client.send_to(&vec![7; bytes], target).is_err() {
            continue;
        }
        if let Ok((received, source)) = server.recv_from(&mut buffer) {
            assert_eq!(received, bytes);
            return Some(source.ip());
        }
    }
    None
}

/// Sends a megabyte, and tells from where it seemed to come.
fn tcp(from: &Namespace, to: &Namespace, address: IpAddr) -> IpAddr {
    let server = to.run(move || TcpListener::bind((address, 0)).expect("a socket"));
    let target = server.local_addr().expect("bound");
    let receiving = std::thread::spawn(move || {
        let (mut stream, source) = server.accept().expect("a connection");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("read");
        (received.len(), source.ip())
    });
    let limit = Duration::from_secs(10);
    let mut client =
        from.run(move || TcpStream::connect_timeout(&target, limit).expect("connected"));
    client.write_all(&vec![7; 1 << 20]).expect("written");
    drop(client);
    let (received, source) = receiving.join().expect("received");
    assert_eq!(received, 1 << 20);
    source
}

/// Everything that has to work between pods, whatever the machines speak.
fn pods_reach_each_other(world: &World, mtu: u64) {
    world.converge();
    world.add_pods();
    let cbr0 = &json_in(&world.machines[0], "ip -j link show cbr0")[0];
    let vxlan = &json_in(&world.machines[0], "ip -j -d link show knode-vxlan")[0];
    assert_eq!((&cbr0["mtu"], &vxlan["mtu"]), (&mtu.into(), &mtu.into()));
    let data = &vxlan["linkinfo"]["info_data"];
    assert_eq!((&data["port"], &data["id"]), (&4789.into(), &107.into()));
    assert_eq!(data["learning"], false);

    let [one, two] = &world.pods;
    let mtu = usize::try_from(mtu).expect("small");
    for (headers, there, back) in [
        (28, "10.244.2.5", "10.244.1.5"),
        (48, "fd00:244:2::5", "fd00:244:1::5"),
    ] {
        assert_eq!(udp(one, two, ip(there), 100), Some(ip(back)));
        // As large as can be, and not to be cut: Linux sets "don't fragment" on all that fits.
        assert_eq!(udp(one, two, ip(there), mtu - headers), Some(ip(back)));
        assert_eq!(tcp(one, two, ip(there)), ip(back));
        assert_eq!(tcp(two, one, ip(back)), ip(there));
    }
    assert_eq!(world.fragments(), 0, "packets were cut to pieces");

    // The machine itself reaches pods of others, by an address that they find back to.
    let source = tcp(&world.machines[0], two, ip("10.244.2.5"));
    assert_eq!(source, ip("10.244.1.0"));
    let source = tcp(&world.machines[0], two, ip("fd00:244:2::5"));
    assert_eq!(source, ip("fd00:244:1::1"));
    // Outside of the cluster a pod is its machine.
    let [_, machine] = &world.machines;
    assert_eq!(tcp(one, machine, ip("10.2.0.10")), ip("10.1.0.10"));
    assert_eq!(tcp(one, machine, ip("fd02::10")), ip("fd01::10"));
}

#[test]
fn pods_of_both_families_reach_each_other_over_routed_ipv4() {
    pods_reach_each_other(&World::new(false), 1450);
}

#[test]
fn pods_of_both_families_reach_each_other_over_routed_ipv6() {
    pods_reach_each_other(&World::new(true), 1430);
}

/// All that is to be seen of a machine's overlay.
const SHOW: &str = "bridge fdb show dev knode-vxlan; ip neigh show dev knode-vxlan nud permanent; \
     ip route show proto 107; ip -6 route show proto 107";

#[test]
fn peers_come_and_go_and_what_others_made_stays() {
    let world = World::new(false);
    let machine = &world.machines[0];
    let site = &world.sites[0];
    let third = self::site("three", &["10.3.0.10"], &["10.244.3.0/24"]).peer();
    let second = world.sites[1].peer();
    let told = site.converge(machine, vec![second.clone(), third]);
    assert!(told.contains("3 routes to peers"), "{told}");
    let shown = machine.sh(SHOW);
    assert!(shown.contains("dst 10.3.0.10"), "{shown}");

    // Somebody else's, on our link and beside it.
    machine.sh(
        "bridge fdb append 02:00:00:00:00:07 dev knode-vxlan dst 10.9.0.9; \
         ip neigh add 10.244.9.9 lladdr 02:00:00:00:00:09 dev knode-vxlan nud permanent; \
         ip neigh add 10.1.0.77 lladdr 0a:59:00:00:00:01 dev up0 nud permanent; \
         ip route add 10.99.0.0/16 via 10.1.0.1 proto static; \
         ip link add other-vxlan type vxlan id 1 dstport 8472 local 10.1.0.10 nolearning; \
         ip link set other-vxlan up; bridge fdb append 0a:59:00:00:00:02 dev other-vxlan dst 10.9.0.8",
    );
    let told = site.converge(machine, vec![second.clone()]);
    assert!(told.contains("2 routes to peers"), "{told}");
    let shown = machine.sh(SHOW);
    for gone in ["10.3.0.10", "10.244.3.0"] {
        assert!(!shown.contains(gone), "{gone} is left in {shown}");
    }
    let all = machine.sh("bridge fdb show; ip neigh show nud permanent; ip route");
    for stays in [
        "02:00:00:00:00:07 dev knode-vxlan dst 10.9.0.9",
        "10.244.9.9 dev knode-vxlan lladdr 02:00:00:00:00:09",
        "10.1.0.77 dev up0 lladdr 0a:59:00:00:00:01",
        "10.99.0.0/16 via 10.1.0.1 dev up0 proto static",
        "0a:59:00:00:00:02 dev other-vxlan dst 10.9.0.8",
        "dst 10.2.0.10",
    ] {
        assert!(all.contains(stays), "{stays} is not in {all}");
    }
    // Nothing to do but the CNI list and its folder, as each look here has a new root.
    let told = site.converge(machine, vec![second.clone()]);
    assert!(told.ends_with(", 2 changes made"), "{told}");
    assert_eq!(machine.sh(SHOW), shown);

    // A peer with another address is followed.
    let mut moved = second;
    moved.addresses = vec![ip("10.2.0.99")];
    site.converge(machine, vec![moved]);
    let shown = machine.sh(SHOW);
    assert!(
        shown.contains("dst 10.2.0.99") && !shown.contains("dst 10.2.0.10"),
        "{shown}"
    );
}

#[test]
fn a_link_with_other_settings_is_made_anew_and_one_of_another_kind_is_left_alone() {
    let world = World::new(false);
    let (machine, site) = (&world.machines[0], &world.sites[0]);
    let peer = world.sites[1].peer();
    for wrong in [
        "type vxlan id 108 dstport 4789 local 10.1.0.10 nolearning",
        "type vxlan id 107 dstport 8472 local 10.1.0.10 nolearning",
        "type vxlan id 107 dstport 4789 local 10.1.0.11 nolearning",
        "type vxlan id 107 dstport 4789 local 10.1.0.10",
    ] {
        machine.sh(&format!("ip link add knode-vxlan {wrong}"));
        site.converge(machine, vec![peer.clone()]);
        let link = &json_in(machine, "ip -j -d link show knode-vxlan")[0];
        let data = &link["linkinfo"]["info_data"];
        assert_eq!(
            (
                &data["id"],
                &data["port"],
                &data["local"],
                &data["learning"]
            ),
            (
                &107.into(),
                &4789.into(),
                &"10.1.0.10".into(),
                &false.into()
            ),
            "{wrong}"
        );
        assert!(machine.sh(SHOW).contains("10.244.2.0/24 via 10.244.2.0"));
        machine.sh("ip link del knode-vxlan");
    }

    // Back to routes between the machines: the link goes, the routes change.
    site.converge(machine, vec![peer.clone()]);
    let mut direct = site.clone();
    direct.mode = NetworkMode::HostGw;
    let mut near = peer.clone();
    near.addresses = vec![ip("10.1.0.1"), ip("fd01::1")];
    direct.converge(machine, vec![near]);
    let shown = machine.sh("ip link; ip route; ip -6 route");
    assert!(!shown.contains("knode-vxlan"), "{shown}");
    assert!(shown.contains("10.244.2.0/24 via 10.1.0.1"), "{shown}");

    // Left to another CNI: nothing of ours stays, but what a pod still hangs on.
    let mut left = site.clone();
    left.mode = NetworkMode::None;
    machine.sh("ip link add pod type veth peer name inside; ip link set pod master cbr0");
    let told = left.converge(machine, Vec::new());
    assert!(told.contains("changes made"), "{told}");
    let shown = machine.sh("ip link; ip route; ip -6 route; nft list tables");
    assert!(shown.contains("cbr0"), "a pod hangs on it: {shown}");
    for gone in ["proto 107", "10.244.2.0/24", "knode"] {
        assert!(!shown.contains(gone), "{gone} is left in {shown}");
    }
    machine.sh("ip link del pod");
    let told = left.converge(machine, Vec::new());
    assert!(told.ends_with("1 changes made"), "{told}");
    assert!(!machine.sh("ip link").contains("cbr0"));
    // Another's bridge of the same name is not ours.
    machine.sh("ip link add cbr0 address 02:00:00:00:00:01 type bridge");
    left.converge(machine, Vec::new());
    assert!(machine.sh("ip link").contains("cbr0"));
    machine.sh("ip link del cbr0");

    machine.sh("ip link add knode-vxlan type veth peer name other");
    let before = machine.sh("ip link show knode-vxlan");
    let site = site.clone();
    let story = machine.block_on(move || async move {
        let (step, machine, _folder) = site.step();
        machine.peers.send_replace(Some(vec![peer]));
        step.converge(&machine)
            .await
            .expect_err("it is a veth")
            .story()
    });
    assert!(story.contains("no vxlan link"), "{story}");
    assert_eq!(machine.sh("ip link show knode-vxlan"), before);
}

#[test]
fn what_somebody_removes_is_put_back_at_once() {
    let world = World::new(false);
    let site = world.sites[0].clone();
    let peer = world.sites[1].peer();
    world.machines[0].block_on(move || async move {
        let (step, machine, _folder) = site.step();
        machine.peers.send_replace(Some(vec![peer.clone()]));
        let looking = Arc::clone(&machine);
        let task = tokio::spawn(async move {
            loop {
                // As the engine does. What is removed in the middle of a look may fail it.
                match step.converge(&looking).await {
                    Ok(_) => step.again(&looking).await,
                    Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
                }
            }
        });
        let all = "nft list table inet knode | grep -v packets; ip addr show cbr0 | grep inet; \
             bridge fdb show dev knode-vxlan | grep dst; ip neigh show dev knode-vxlan nud permanent; \
             ip route show proto 107; ip -6 route show proto 107; ip addr show knode-vxlan | grep /32";
        let mut whole = String::new();
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = sh(&format!("({all}) 2>&1 || true"));
            if now == whole && now.contains("10.244.2.0/24 via") {
                break;
            }
            whole = now;
        }
        for damage in [
            "nft delete table inet knode",
            "nft flush chain inet knode forward",
            "bridge fdb del 0a:59:0a:f4:02:00 dev knode-vxlan dst 10.2.0.10",
            "ip neigh del 10.244.2.0 dev knode-vxlan",
            "ip route del 10.244.2.0/24",
            "ip addr del 10.244.1.1/24 dev cbr0",
            "ip link del knode-vxlan",
            "ip link del cbr0",
        ] {
            sh(damage);
            let began = std::time::Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let now = sh(&format!("({all}) 2>&1 || true"));
                if now == whole {
                    break;
                }
                assert!(
                    began.elapsed() < Duration::from_secs(10),
                    "{damage}: {whole}\nis now\n{now}"
                );
            }
        }
        // A peer that goes is noticed as well, without any change in the kernel.
        machine.peers.send_replace(Some(Vec::new()));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!sh("ip route").contains("10.244.2.0/24"));
        task.abort();
    });
}
