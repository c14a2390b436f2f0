//! Kernel features that pods and services need: modules and sysctls (P29), and
//! ports that no outgoing connection may take from a service (F22).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use futures_util::future::BoxFuture;

use super::name;
use crate::check;
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::bus::Bus;
use crate::sys::root::Root;

/// The unit that loads what `/etc/modules-load.d/knode.conf` names; systemd
/// may load modules, knode may not.
const LOADER: &str = "systemd-modules-load.service";

/// Ports that the kernel gives to nobody who asks for just any.
/// Source: the kernel's documentation, networking/ip-sysctl.
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

pub struct Kernel;

impl Step<Machine> for Kernel {
    fn name(&self) -> &'static str {
        name::KERNEL
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let root = &machine.root;
            if !missing(root)?.is_empty() {
                load().await?;
            }
            let missing = missing(root)?;
            if !missing.is_empty() {
                return Err(Error::new(
                    Code::Kernel,
                    format!("the kernel lacks {}", missing.join(", ")),
                ));
            }
            let ipv6 = machine
                .config
                .cluster
                .pod_cidrs
                .iter()
                .any(|net| net.addr().is_ipv6());
            let mut set = Vec::new();
            for (key, value) in sysctls(ipv6) {
                if root.set_sysctl(key, value)?.is_changed() {
                    set.push(key);
                }
            }
            if reserve(machine)? {
                set.push(RESERVED);
            }
            Ok(match set.as_slice() {
                [] => "modules and sysctls were right".to_owned(),
                keys => format!("set {}", keys.join(", ")),
            })
        })
    }
}

/// Modules whose work is not to be seen in the kernel: whether a module is
/// built in or loaded makes no difference.
fn missing(root: &Root) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    if !root
        .read_to_string("/proc/filesystems")?
        .contains("\toverlay\n")
    {
        missing.push("overlay");
    }
    if !root.exists("/proc/sys/net/bridge/bridge-nf-call-iptables")? {
        missing.push("br_netfilter");
    }
    Ok(missing)
}

async fn load() -> Result<()> {
    let bus = Bus::connect()
        .await
        .context(Code::Bus, || "asking for kernel modules".to_owned())?;
    bus.restart(LOADER).await.context(Code::Kernel, || {
        format!("loading kernel modules by {LOADER}")
    })
}

/// The same values as `/etc/sysctl.d/90-knode.conf`; forwarding of IPv6 only
/// where pods have it, since it makes a host ignore router advertisements.
fn sysctls(ipv6: bool) -> Vec<(&'static str, &'static str)> {
    let mut sysctls = vec![
        ("net.ipv4.ip_forward", "1"),
        ("net.bridge.bridge-nf-call-iptables", "1"),
        ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ];
    if ipv6 {
        sysctls.push(("net.ipv6.conf.all.forwarding", "1"));
    }
    sysctls
}

/// Keeps the services' ports free for them, beside those that are reserved
/// already: whether that was news.
fn reserve(machine: &Machine) -> Result<bool> {
    let root = &machine.root;
    let wanted = check::wanted_ports(root, &machine.config);
    match reserved(&root.sysctl(RESERVED)?, wanted.into_keys()) {
        Some(value) => Ok(root.set_sysctl(RESERVED, &value)?.is_changed()),
        None => Ok(false),
    }
}

/// What is to be written so that `wanted` is reserved too; `None` when it is.
fn reserved(present: &str, wanted: impl IntoIterator<Item = u16>) -> Option<String> {
    let range = |text: &str| -> Option<RangeInclusive<u16>> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    let present: Vec<_> = present.split(',').filter_map(range).collect();
    let missing: BTreeSet<u16> = wanted
        .into_iter()
        .filter(|port| !present.iter().any(|range| range.contains(port)))
        .collect();
    let told = |range: &RangeInclusive<u16>| format!("{}-{}", range.start(), range.end());
    let all = present
        .iter()
        .map(told)
        .chain(missing.iter().map(u16::to_string));
    (!missing.is_empty()).then(|| all.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f22_what_is_reserved_stays_and_what_is_missing_is_added_once() {
        assert_eq!(reserved("", []), None);
        assert_eq!(reserved("", [10250, 10248]).as_deref(), Some("10248,10250"));
        let added = reserved("8080,9000-9005", [9003, 10250]).unwrap();
        assert_eq!(added, "8080-8080,9000-9005,10250");
        assert_eq!(reserved(&added, [9003, 10250]), None);
        assert_eq!(reserved("10240-10260\n", [10250]), None);
    }
}
