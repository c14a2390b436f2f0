//! Kernel features that pods and services need: modules and sysctls (P29).

use futures_util::future::BoxFuture;

use super::name;
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::bus::Bus;
use crate::sys::root::Root;

/// The unit that loads what `/etc/modules-load.d/knode.conf` names; systemd
/// may load modules, knode may not.
const LOADER: &str = "systemd-modules-load.service";

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
