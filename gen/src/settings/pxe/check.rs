//! What would keep machines from booting, seen in the settings as a whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{COMMAND_LINE, Dhcp, Pxe};
use crate::platform::Platform;
use crate::settings::schema::{Machine, Settings};
use crate::yaml::{At, Reader};

/// Adds everything that does not fit together.
pub fn check(r: &mut Reader, s: &Settings) {
    macs(r, s);
    let Some(pxe) = &s.pxe else {
        return;
    };
    for machine in s.machines.iter().filter(|m| m.mac.is_none()) {
        let message = format!(
            "{}.mac: missing: a machine that boots from the network is known by it alone",
            machine.path()
        );
        let help = "write the address of the network card that boots: mac: 52:54:00:12:34:56";
        r.find(&machine.name.span, message, Some(help.to_owned()));
    }
    boot_files(r, s, pxe);
    command_lines(r, s, pxe);
    if let Some(dhcp) = &pxe.dhcp {
        addresses(r, s, pxe, dhcp);
    }
}

fn macs(r: &mut Reader, s: &Settings) {
    let mut seen = BTreeMap::new();
    for mac in s.machines.iter().filter_map(|m| m.mac.as_ref()) {
        if let Some(first) = seen.insert(mac.value, &mac.path) {
            let message = format!("{}: {} is {first} too", mac.path, mac.value);
            r.find(&mac.span, message, None);
        }
    }
}

/// Files of two processors, or a kernel and an initrd, are not one.
fn boot_files(r: &mut Reader, s: &Settings, pxe: &Pxe) {
    let mut archs: Vec<_> = s.machines.iter().map(|m| m.arch).collect();
    archs.sort_unstable();
    archs.dedup();
    let mut seen = BTreeMap::new();
    for arch in archs {
        let boot = pxe.boot(arch);
        for (name, what) in [(boot.kernel, "kernel"), (boot.initrd, "initrd")] {
            let what = format!("{what} of {arch}");
            let reserved = ["boot.ipxe", "dnsmasq.conf", "machines.json"];
            if reserved.contains(&name.as_str()) || name.ends_with(".ipxe") {
                let message = format!("pxe.images: the {what} cannot be called {name}");
                r.find(&pxe.place.span, message, None);
            } else if let Some(first) = seen.insert(name.clone(), what.clone()) {
                let message = format!("pxe.images: the {what} is called {name}, as the {first} is");
                r.find(&pxe.place.span, message, None);
            }
        }
    }
}

/// What iPXE would cut off.
fn command_lines(r: &mut Reader, s: &Settings, pxe: &Pxe) {
    let lengths = s.machines.iter().filter_map(|machine| {
        let mac = machine.mac.as_ref()?.value;
        let format = s.format.unwrap_or_default();
        Some(pxe.command_line(format, machine.arch, mac).len())
    });
    if let Some(longest) = lengths.max().filter(|length| *length > COMMAND_LINE) {
        let message = format!(
            "{}: with it the kernel's command line has {longest} bytes, and {COMMAND_LINE} is all \
             that it takes",
            pxe.cmdline.path
        );
        let help = "what is longer is cut off, and with it what comes last";
        r.find(&pxe.cmdline.span, message, Some(help.to_owned()));
    }
}

/// Addresses that machines are given belong to nobody else.
fn addresses(r: &mut Reader, s: &Settings, pxe: &Pxe, dhcp: &Dhcp) {
    let mut taken: Vec<(Ipv4Addr, String)> = Vec::new();
    if let Some(IpAddr::V4(server)) = pxe.server.value.address() {
        taken.push((server, format!("the server's ({})", pxe.server.path)));
    }
    if let Some(router) = &dhcp.router {
        within(r, dhcp, router.value, router);
        taken.push((router.value, format!("the router's ({})", router.path)));
    }
    if let Some(range) = &dhcp.range {
        let (first, last) = range.value;
        within(r, dhcp, first, range);
        within(r, dhcp, last, range);
        for (address, whose) in &taken {
            if (first..=last).contains(address) {
                let message = format!("{}: {address} in it is {whose}", range.path);
                r.find(&range.span, message, None);
            }
        }
    }
    for address in s.machines.iter().filter_map(v4) {
        within(r, dhcp, address.value, &address);
        for (taken, whose) in &taken {
            if *taken == address.value {
                let message = format!("{}: {taken} is {whose}", address.path);
                r.find(&address.span, message, None);
            }
        }
    }
}

/// A machine's address of IPv4.
fn v4(machine: &Machine) -> Option<At<Ipv4Addr>> {
    machine.addresses.iter().find_map(|at| match at.value {
        IpAddr::V4(address) => Some(At {
            value: address,
            span: at.span.clone(),
            path: at.path.clone(),
        }),
        IpAddr::V6(_) => None,
    })
}

fn within<T>(r: &mut Reader, dhcp: &Dhcp, address: Ipv4Addr, at: &At<T>) {
    let network = &dhcp.network.value;
    let path = &at.path;
    if !network.contains(&address) {
        let message = format!(
            "{path}: {address} is not within {network} ({})",
            dhcp.network.path
        );
        r.find(&at.span, message, None);
    } else if address == network.network() || address == network.broadcast() {
        let message = format!("{path}: {address} is the network's own address");
        r.find(&at.span, message, None);
    }
}

/// What may be meant, and is often regretted.
pub fn warnings(s: &Settings) -> Vec<(String, &'static str)> {
    if s.pxe.is_none() {
        return Vec::new();
    }
    let mut all = Vec::new();
    if s.platform != Some(Platform::Pxe) {
        all.push((
            "pxe: nothing is made of it without platform: pxe".to_owned(),
            "write platform: pxe, or call kgen with --platform pxe",
        ));
    }
    if !s.pools.is_empty() {
        all.push((
            "pools: their machines are in nobody's list, and none of them is booted from the \
             network"
                .to_owned(),
            "list machines that boot from the network in nodes, each with its mac",
        ));
    }
    all
}
