//! What Azure would refuse, or take and not carry, is refused with its place
//! before anything is written.

mod common;

use common::azure::{documented, small};
use common::{CERTIFICATE, Folder, PUBLIC_KEY, refused, refused_with};

#[test]
fn addresses_that_no_machine_can_have() {
    let at = |address: &str| small("", "").replace("10.0.0.11", address);
    refused_with(
        &at("10.1.0.11"),
        &[
            "[cluster.yaml:9:34]",
            "nodes[1].address: 10.1.0.11 is in no subnet",
            "azure.subnets has 10.0.0.0/20 (machines)",
        ],
    );
    for address in [
        "10.0.0.0",
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.15.255",
    ] {
        refused_with(
            &at(address),
            &[
                "[cluster.yaml:9:34]",
                &format!("nodes[1].address: Azure keeps {address} for itself"),
            ],
        );
    }
    refused_with(&at("fd00::1"), &["nodes[1].address: fd00::1 is IPv6"]);
    refused_with(
        &small("", "").replace(", address: 10.0.0.11", ""),
        &["nodes[1].address: missing", "keeps one address of a subnet"],
    );
    let internal = |address: &str| small(&format!("apiAddress: {address}"), "");
    refused_with(
        &internal("10.0.0.11"),
        &["nodes[1].address: 10.0.0.11 is the load balancer's (azure.apiAddress)"],
    );
    refused_with(
        &internal("10.0.0.3"),
        &["[cluster.yaml:6:", "azure.apiAddress: Azure keeps 10.0.0.3"],
    );
    refused_with(
        &internal("10.9.0.1"),
        &["azure.apiAddress: 10.9.0.1 is in no subnet"],
    );
    // The last address that is free is one.
    Folder::with(&at("10.0.15.254")).run(&["validate"]);
}

#[test]
fn ranges_that_do_not_fit() {
    for (azure, told) in [
        (
            "vnet: 10.244.0.0/16",
            "azure.vnet: 10.244.0.0/16 overlaps with pods 10.244.0.0/16",
        ),
        ("vnet: 10.96.0.0/12", "overlaps with services 10.96.0.0/16"),
        ("vnet: 'fd00::/48'", "azure.vnet: fd00::/48 is IPv6"),
        ("vnet: 10.0.0.1/16", "has bits set after its prefix"),
        (
            "subnets: [{name: a, range: 10.1.0.0/24}]",
            "azure.subnets[0].range: 10.1.0.0/24 is not within the network 10.0.0.0/16",
        ),
        (
            "subnets: [{name: a, range: 10.0.0.0/24}, {name: b, range: 10.0.0.128/25}]",
            "azure.subnets[1].range: overlaps with azure.subnets[0].range",
        ),
        (
            "subnets: [{name: a, range: 10.0.0.0/24}, {name: A, range: 10.0.1.0/24}]",
            "azure.subnets[1].name: A is the name of another subnet too",
        ),
        (
            "subnets: [{name: a, range: 10.0.0.8/30}]",
            "too small: Azure keeps five addresses",
        ),
    ] {
        refused_with(&small(azure, ""), &["[cluster.yaml:6:", told]);
    }
}

#[test]
fn names_that_azure_refuses() {
    for (azure, told) in [
        (
            "resourceGroup: a.",
            "Azure refuses \"a.\" for a resource group",
        ),
        ("resourceGroup: a/b", "Azure refuses \"a/b\""),
        ("location: West Europe", "is no region's short name"),
        (
            "subnets: [{name: -a, range: 10.0.0.0/24}]",
            "Azure refuses the name \"-a\"",
        ),
        ("dnsLabel: 1st", "Azure refuses \"1st\""),
        ("adminUser: admin", "Azure makes no account called admin"),
        ("adminUser: operator", "nobody can log in as"),
        ("sizes: {node: large}", "is no size of machines"),
        (
            "images: {amd64: debian}",
            "write PUBLISHER:OFFER:SKU:VERSION",
        ),
        ("zones: [4]", "is not a number from 1 to 3"),
        ("sshFrom: [internet]", "is not a network in CIDR notation"),
        ("regions: [a]", "azure.regions: unknown key"),
    ] {
        refused_with(&small(azure, ""), &["[cluster.yaml:6:", told]);
    }
    let long = "a".repeat(60);
    refused_with(
        &small("", "").replace("name: small", &format!("name: {long}")),
        &["60 bytes, at most 59"],
    );
    let pool = "b".repeat(58);
    refused_with(
        &small("", &format!("pools: [{{name: {pool}}}]\n")),
        &[
            "pools[0].name: Azure refuses names of machines",
            "at most 57 bytes",
        ],
    );
}

#[test]
fn settings_that_do_not_go_together() {
    for (azure, more, told) in [
        (
            "",
            "network: {mode: routed}\npools: [{name: p}]\n",
            "pools[0].name: with network.mode: routed each machine has a route, and nobody knows those of p yet",
        ),
        (
            "",
            "network: {mode: host-gw}\n",
            "Azure hands no packet to a neighbour",
        ),
        (
            "",
            "network: {mode: routed, podCIDRs: [10.244.0.0/16, 'fd00:1::/48'], serviceCIDRs: [10.96.0.0/16, 'fd00:2::/112']}\n",
            "fd00:1::/48 is IPv6",
        ),
        (
            "pools: [{name: p}]",
            "",
            "azure.pools[0].name: no pool is called p",
        ),
        (
            "pools: [{name: p}, {name: p}]",
            "pools: [{name: p}]\n",
            "azure.pools[1].name: p is said twice",
        ),
        (
            "pools: [{name: p, subnet: s}]",
            "pools: [{name: p}]\n",
            "azure.pools[0].subnet: no subnet is called s",
        ),
        ("zones: [1, 1]", "", "azure.zones[1]: 1 is said twice"),
        (
            "zones: [1], faultDomains: 2",
            "",
            "azure.faultDomains: machines in zones are in no availability set",
        ),
        (
            "sshPorts: 2000",
            "",
            "azure.sshPorts: nobody may come in by ssh",
        ),
        (
            "sshPorts: 6442, sshFrom: [192.0.2.0/24]",
            "",
            "azure.sshPorts: the API server's port 6443 is one of them",
        ),
        (
            "dnsLabel: here",
            "endpoint: 'https://here.westeurope.cloudapp.azure.com'\n",
            "endpoint: machines would come to it from outside",
        ),
    ] {
        refused_with(&small(azure, more), &["[cluster.yaml:", told]);
    }
    // With a balancer, or open to all, they come in.
    let endpoint = "endpoint: 'https://here.westeurope.cloudapp.azure.com'\n";
    for (azure, more) in [
        ("dnsLabel: here", "balancer: true\n"),
        ("dnsLabel: here, apiFrom: [0.0.0.0/0]", ""),
    ] {
        Folder::with(&small(azure, &format!("{endpoint}{more}"))).run(&["validate"]);
    }
}

/// Azure makes no machine that nobody can log in to by a key that it knows.
#[test]
fn machines_have_keys_that_azure_takes() {
    let none = small("", "").replace(&format!("ssh: {{authorizedKeys: ['{PUBLIC_KEY}']}}\n"), "");
    refused_with(
        &none,
        &[
            "ssh.authorizedKeys: no key that Azure takes",
            "authorizedKeys: [\"@id_ed25519.pub\"]",
        ],
    );
    let certificate = CERTIFICATE.lines().nth(1).unwrap();
    let told = refused(&small("", "").replace(PUBLIC_KEY, certificate));
    assert!(told.contains("ssh.authorizedKeys"), "{told}");
}

#[test]
fn documents_over_the_limit_are_told_with_their_parts() {
    let blob: String = (0..9000)
        .map(|i: u32| format!("{:x}", i.wrapping_mul(2_654_435_761)))
        .collect();
    let settings = small("", &format!("kubelet: {{config: {{a: '{blob}'}}}}\n"));
    refused_with(
        &settings,
        &[
            "user-data of m: ",
            "is more than the 65,535 that azure takes",
            "its largest parts are",
        ],
    );
}

/// One parameter a document, and a template takes no more than 256.
#[test]
fn more_machines_than_a_template_takes() {
    let mut settings = small("vnet: 10.0.0.0/16", "");
    for i in 0..254 {
        settings.push_str(&format!(
            "- {{name: n-{i}, role: node, address: 10.0.4.{i}}}\n"
        ));
    }
    refused_with(
        &settings,
        &[
            "azure: a template takes 255 documents, and these are 256",
            "nodeDocuments: by-hostname",
        ],
    );
    let shared = format!("nodeDocuments: by-hostname\n{settings}");
    Folder::with(&shared).run(&["validate"]);
}

#[test]
fn what_is_open_to_the_world_is_a_warning() {
    let folder = Folder::with(&small("sshFrom: [0.0.0.0/0]", ""));
    let told = String::from_utf8(folder.run(&["validate"]).stderr).unwrap();
    assert!(
        told.contains("azure.sshFrom[0]: ssh is open to the world"),
        "{told}"
    );
    // What is documented warns of nothing.
    let folder = Folder::with(&documented()[0]);
    common::beside(&folder);
    folder.run(&["validate", "--strict"]);
}
