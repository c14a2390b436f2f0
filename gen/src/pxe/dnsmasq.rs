//! dnsmasq's configuration: addresses, and what to boot.
//!
//! Source: dnsmasq(8); RFC 4578 for the numbers of architectures.

use std::fmt::Write as _;

use super::{Deployment, ipxe};
use crate::cluster::Dhcp;

/// The file's name.
pub const NAME: &str = "dnsmasq.conf";

/// iPXE's program for firmware that is a BIOS, and for EFI on x86_64, arm64.
const BIOS: &str = "undionly.kpxe";
const EFI: &str = "ipxe.efi";
const EFI_ARM64: &str = "ipxe-arm64.efi";

/// The configuration, if it is asked for.
pub fn configuration(d: &Deployment) -> Option<String> {
    let dhcp = d.dhcp.as_ref()?;
    let mut text = format!(
        "# Written by kgen render: {cluster} boots from the network.
# Tried by: dnsmasq --test --conf-file=dnsmasq.conf

# No DNS, and nothing on other interfaces.
port=0
interface={interface}
except-interface=lo
bind-interfaces
log-dhcp

# Who asks: iPXE itself, or a network card's own firmware.
dhcp-match=set:ipxe,175
dhcp-match=set:bios,option:client-arch,0
dhcp-match=set:efi,option:client-arch,7
dhcp-match=set:efi,option:client-arch,9
dhcp-match=set:efi-arm64,option:client-arch,11

# Firmware gets iPXE by TFTP, iPXE gets its script by HTTP.
enable-tftp
tftp-root={root}
dhcp-boot=tag:ipxe,{server}/{script}
",
        cluster = d.cluster,
        interface = dhcp.interface.value,
        root = dhcp.tftp_root,
        server = d.server,
        script = ipxe::BOOT,
    );
    let result = match &dhcp.range {
        Some(range) => addresses(&mut text, d, dhcp, range.value),
        None => proxy(&mut text, dhcp),
    };
    // A String takes everything.
    result.ok().map(|()| text)
}

/// Addresses are given here.
fn addresses(
    text: &mut String,
    d: &Deployment,
    dhcp: &Dhcp,
    (first, last): (std::net::Ipv4Addr, std::net::Ipv4Addr),
) -> std::fmt::Result {
    for (tag, program) in [("bios", BIOS), ("efi", EFI), ("efi-arm64", EFI_ARM64)] {
        writeln!(text, "dhcp-boot=tag:!ipxe,tag:{tag},{program}")?;
    }
    writeln!(text, "\n# Addresses.")?;
    writeln!(text, "dhcp-authoritative")?;
    let mask = dhcp.network.value.netmask();
    writeln!(text, "dhcp-range={first},{last},{mask},12h")?;
    match &dhcp.router {
        Some(router) => writeln!(text, "dhcp-option=option:router,{}", router.value)?,
        // Otherwise dnsmasq names itself.
        None => writeln!(text, "dhcp-option=option:router")?,
    }
    if !dhcp.dns.is_empty() {
        let servers: Vec<String> = dhcp.dns.iter().map(|s| s.value.to_string()).collect();
        writeln!(text, "dhcp-option=option:dns-server,{}", servers.join(","))?;
    }
    for machine in &d.machines {
        let (mac, name) = (machine.mac, &machine.name);
        match machine.address {
            Some(address) => writeln!(text, "dhcp-host={mac},{address},{name},infinite")?,
            None => writeln!(text, "dhcp-host={mac},{name}")?,
        }
    }
    Ok(())
}

/// Another server gives addresses; this one answers beside it.
fn proxy(text: &mut String, dhcp: &Dhcp) -> std::fmt::Result {
    let network = dhcp.network.value.network();
    let mask = dhcp.network.value.netmask();
    for (kind, program) in [
        ("x86PC", BIOS),
        ("BC_EFI", EFI),
        ("X86-64_EFI", EFI),
        ("ARM64_EFI", EFI_ARM64),
    ] {
        writeln!(text, "pxe-service=tag:!ipxe,{kind},\"iPXE\",{program}")?;
    }
    writeln!(text, "\n# Another DHCP server gives the addresses.")?;
    writeln!(text, "dhcp-range={network},proxy,{mask}")
}
