//! What OpenStack would refuse, or take and not carry, is refused with its place
//! before anything is written.

mod common;

use common::openstack::{documented, small};
use common::{Folder, refused_in, refused_with};

#[test]
fn addresses_that_no_machine_can_have() {
    let at = |address: &str| small("", "").replace("10.0.0.11", address);
    for (address, why) in [
        ("10.0.1.11", "10.0.1.11 is not in the subnet"),
        ("10.0.0.0", "10.0.0.0 is no address of a machine"),
        ("10.0.0.255", "10.0.0.255 is no address of a machine"),
        ("10.0.0.1", "10.0.0.1 is the router's"),
        ("10.0.0.128", "10.0.0.128 is handed out to whoever asks"),
        ("fd00::1", "fd00::1 is IPv6"),
    ] {
        refused_with(
            &at(address),
            &["[cluster.yaml:8:34]", &format!("nodes[1].address: {why}")],
        );
    }
    refused_with(
        &small("", "").replace(", address: 10.0.0.11", ""),
        &[
            "nodes[1].address: missing",
            "keeps one address of the subnet",
        ],
    );
    // The last of the lower half is one.
    Folder::with(&at("10.0.0.127")).run(&["validate"]);
    // What a subnet that is there hands out is not known, but what is in it is.
    let there = |cidr: &str| small(&format!("existingNetwork: a, existingSubnet: b{cidr}"), "");
    Folder::with(&there("").replace("10.0.0.11", "10.9.0.1")).run(&["validate"]);
    Folder::with(&there(", cidr: 10.0.0.0/24").replace("10.0.0.11", "10.0.0.200"))
        .run(&["validate"]);
    refused_with(
        &there(", cidr: 10.9.0.0/24"),
        &[
            "10.0.0.11 is not in the subnet",
            "openstack.cidr is 10.9.0.0/24",
        ],
    );
}

#[test]
fn ranges_and_names_that_clash() {
    for (openstack, parts) in [
        (
            "cidr: 10.244.0.0/24",
            vec!["openstack.cidr: 10.244.0.0/24 overlaps with pods 10.244.0.0/16"],
        ),
        (
            "cidr: 10.0.0.0/29",
            vec!["openstack.cidr: 10.0.0.0/29 is too small"],
        ),
        (
            "existingNetwork: a",
            vec!["existingNetwork and existingSubnet go together"],
        ),
        (
            "loadBalancer: octavia",
            vec!["openstack.apiAddress: missing"],
        ),
        (
            "apiAddress: 10.0.0.5",
            vec!["there is no load balancer to have it"],
        ),
        (
            "loadBalancer: octavia, apiAddress: 10.0.0.11",
            vec!["10.0.0.11 is the load balancer's"],
        ),
        (
            "loadBalancer: octavia, apiAddress: 10.0.0.1",
            vec!["openstack.apiAddress: 10.0.0.1 is the router's"],
        ),
        (
            "floatingIPs: [etcd]",
            vec!["etcd is neither a machine nor a role of one"],
        ),
        (
            "floatingIPs: [n]",
            vec![
                "floating addresses are of a network outside",
                "openstack.externalNetwork",
            ],
        ),
        (
            "apiFloatingIP: 10.0.0.20",
            vec!["openstack.apiFloatingIP: 10.0.0.20 is inside"],
        ),
        (
            "availabilityZones: [a, a]",
            vec!["openstack.availabilityZones[1]: a is said twice"],
        ),
        (
            "pools: [{name: p}]",
            vec!["no pool is called p", "pools: [{name: p}]"],
        ),
        ("image: '-v'", vec!["is no name"]),
        ("sshFrom: ['fd00::/64']", vec!["fd00::/64 is IPv6"]),
        (
            "flavor: a",
            vec!["openstack.flavor: unknown key", "flavors"],
        ),
    ] {
        refused_with(&small(openstack, ""), &parts);
    }
    let called = |name: &str| small("", "").replace("name: small", &format!("name: {name}"));
    refused_with(
        &called(&"a".repeat(48)),
        &["does not fit into Neutron's tags: 48 bytes, at most 47"],
    );
    refused_with(&called("1st"), &["begins with a digit"]);
    let pool = small("pools: [{name: n, count: 2}]", "pools: [{name: n}]\n");
    refused_with(
        &pool.replace("name: n, role", "name: n-2, role"),
        &["n-2 of this pool is in nodes too"],
    );
    refused_with(
        &documented()[0].replace("balancer: true\n", ""),
        &["machines would come to it from outside", "balancer: true"],
    );
}

#[test]
fn documents_that_do_not_get_through() {
    refused_with(
        &small("", "gzip: true\n"),
        &["gzip: Heat and the openstack client take documents for text"],
    );
    let folder = Folder::with(&small("", ""));
    let output = folder
        .kgen()
        .args(["render", "--gzip", "-o", "out"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("user-data of m: Heat and the openstack client"),
        "{told}"
    );
    assert!(!folder.path("out").exists());
    // Random bytes do not compress.
    let mut seed = 1_u64;
    let noise: String = (0..60_000)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from((seed >> 33) % 90).unwrap())
        })
        .collect();
    let large = small("", "files: [{path: /etc/noise, source: noise}]\n");
    let folder = Folder::with(&large);
    folder.write("noise", &noise);
    let told = refused_in(&folder);
    for part in ["is more than the 65,535 that openstack takes", "/etc/noise"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!folder.path("out").exists());
}

#[test]
fn what_is_often_regretted_is_told() {
    let settings = small("sshFrom: [0.0.0.0/0]", "").replace("platform: openstack\n", "");
    let folder = Folder::with(&settings);
    let output = folder.run(&["validate"]);
    let told = String::from_utf8(output.stderr).unwrap();
    for part in [
        "openstack.sshFrom[0]: ssh is open to the world",
        "nothing is made of it without platform: openstack",
        "openstack.externalNetwork: without it machines reach nothing outside",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
