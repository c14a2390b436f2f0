//! What cloud-init asks for beside a document.
//!
//! Source: cloud-init documentation, "NoCloud".

use sha2::{Digest as _, Sha256};
use units::types::to_hex;

use super::Machine;

/// The document's name.
pub const USER_DATA: &str = "user-data";
/// Who the machine is.
pub const META_DATA: &str = "meta-data";
/// What the network is to be.
pub const NETWORK_CONFIG: &str = "network-config";
/// What a cloud would add; cloud-init asks for it in any case, and again for ten
/// seconds where it is not there.
pub const VENDOR_DATA: &str = "vendor-data";
/// All of them.
pub const FILES: [&str; 4] = [META_DATA, NETWORK_CONFIG, USER_DATA, VENDOR_DATA];
/// So much of a checksum tells documents apart.
const SHORT: usize = 12;

/// What cloud-init asks for beside a machine's document, by name.
pub fn beside(cluster: &str, machine: &Machine, document: &[u8]) -> [(&'static str, String); 3] {
    [
        (META_DATA, meta_data(cluster, machine, document)),
        (NETWORK_CONFIG, network_config(machine)),
        (VENDOR_DATA, String::new()),
    ]
}

/// The machine's identity: with another document it is another instance, so
/// that cloud-init applies it also where there is a disk that remembers.
fn meta_data(cluster: &str, machine: &Machine, document: &[u8]) -> String {
    let digest = to_hex(&Sha256::digest(document));
    let name = &machine.name;
    format!(
        "instance-id: {cluster}-{name}-{}\nlocal-hostname: {name}\n",
        &digest[..SHORT]
    )
}

/// The card that the machine booted from asks for its address; of the others
/// nothing is said. Source: cloud-init documentation, "Networking config
/// version 2".
fn network_config(machine: &Machine) -> String {
    let mac = machine.mac;
    format!(
        "version: 2\nethernets:\n  boot:\n    match: {{macaddress: '{mac}'}}\n    dhcp4: true\n"
    )
}
