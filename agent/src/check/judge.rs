//! What is wanted, compared with what was seen. Pure.

use super::Finding;
use super::network::{Outside, host};
use super::observe::{Facts, Place, Presence};
use crate::error::Code;
use units::NodeConfig;
use units::node_config::{NetworkMode, RuntimeSource};

/// Below, `statvfs` numbers that leave no room for anything at all.
const NO_ROOM: u64 = 16 << 20;
const NO_INODES: u64 = 256;
/// Below, the kubelet soon evicts pods.
const LITTLE_ROOM: u64 = 2 << 30;
const FEW_INODES: u64 = 20_000;
/// Kubernetes' oldest kernel (its documentation, "Kernel version requirements").
const OLDEST_KERNEL: (u32, u32) = (4, 19);
/// The oldest with all of cgroup v2 that Kubernetes uses ("About cgroup v2").
const GOOD_KERNEL: (u32, u32) = (5, 8);
/// `RestartSteps=` in our units; before, restarts do not slow down.
const GOOD_SYSTEMD: u32 = 254;
/// `Type=notify` with all that our units say, and cgroup v2 as the kubelet uses it.
const OLDEST_SYSTEMD: u32 = 244;
/// Kubernetes refuses cgroup v1 from here on (its `failCgroupV1`).
const CGROUP_V2_ONLY: u32 = 35;
/// Seconds that clocks may differ; beyond the second, certificates and tokens fail.
const CLOSE: i64 = 10;
const FAR: i64 = 300;
/// The smallest MTU of IPv6 (RFC 8200).
const IPV6_MTU: u32 = 1280;

/// Everything that is known, judged; without a configuration, what every
/// node needs.
pub fn judge(facts: &Facts, config: Option<&NodeConfig>) -> Vec<Finding> {
    let with_pods = config.is_none_or(|config| config.network.is_some());
    let mut findings = vec![kernel(facts)];
    if with_pods {
        findings.push(cgroup(facts, config));
        findings.push(modules(facts, config));
    }
    findings.extend(facts.programs.as_ref().map(|place| programs(place, facts)));
    findings.extend(facts.data.as_ref().map(data));
    if with_pods {
        findings.push(swap(facts));
        findings.extend(facts.mtu.map(|found| mtu(found, config)));
    }
    findings.extend(config.map(|_| ports(facts)).into_iter().flatten());
    findings.extend(facts.systemd.as_deref().map(systemd));
    findings.extend(facts.synchronised.map(kept_right));
    findings.extend(certificate_begins(facts));
    let runtime = config.and_then(|config| config.runtime.as_ref());
    if runtime.is_some_and(|runtime| runtime.source == RuntimeSource::Distribution) {
        findings.push(containerd(facts));
    }
    findings.extend(facts.outside.iter().flat_map(outside));
    findings
}

/// Major and minor of a version such as `6.12.43+deb13-amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    Some((
        major,
        numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0),
    ))
}

fn kernel(facts: &Facts) -> Finding {
    let found = facts.kernel.as_deref().unwrap_or("unknown");
    let finding = Finding::ok("kernel", found, "5.8 or newer");
    match version(found) {
        Some(version) if version < OLDEST_KERNEL => finding.failure(Code::Kernel),
        Some(version) if version >= GOOD_KERNEL => finding,
        _ => finding.warning(Code::Kernel),
    }
}

fn cgroup(facts: &Facts, config: Option<&NodeConfig>) -> Finding {
    let wanted = "v2 with cpu, cpuset, io, memory, pids";
    let Some(controllers) = &facts.controllers else {
        let minor = config.and_then(|config| version(&config.cluster.kubernetes_version));
        let finding = Finding::ok("cgroup", "v1", wanted);
        return match minor {
            _ if facts.cgroup_v1_allowed => finding.warning(Code::Cgroup),
            Some((_, minor)) if minor < CGROUP_V2_ONLY => finding.warning(Code::Cgroup),
            _ => finding.failure(Code::Cgroup),
        };
    };
    let found = format!("v2 with {}", controllers.join(", "));
    let lacks = |name: &&str| !controllers.iter().any(|there| there == name);
    let finding = Finding::ok("cgroup", found, wanted);
    if ["cpu", "memory", "pids"].iter().any(lacks) {
        finding.failure(Code::Cgroup)
    } else if ["cpuset", "io"].iter().any(lacks) {
        finding.warning(Code::Cgroup)
    } else {
        finding
    }
}

fn modules(facts: &Facts, config: Option<&NodeConfig>) -> Finding {
    let network = config.and_then(|config| config.network.as_ref());
    let mode = network.map(|network| network.mode);
    let needed = |module: &&str| match *module {
        "vxlan" => mode == Some(NetworkMode::Vxlan),
        "nf_tables" => mode != Some(NetworkMode::None),
        _ => true,
    };
    let of = |presence: Presence| -> Vec<&str> {
        let modules = facts.modules.iter().filter(|(_, p)| **p == presence);
        modules.map(|(module, _)| *module).filter(needed).collect()
    };
    let wanted: Vec<&str> = facts.modules.keys().copied().filter(needed).collect();
    let finding = |found: String| Finding::ok("kernel modules", found, wanted.join(", "));
    match (of(Presence::Absent), of(Presence::Unknown)) {
        (absent, _) if !absent.is_empty() => {
            finding(format!("no {}", absent.join(", "))).failure(Code::Kernel)
        }
        (_, unknown) if !unknown.is_empty() => {
            finding(format!("cannot tell of {}", unknown.join(", "))).warning(Code::Kernel)
        }
        _ => finding("all there".to_owned()),
    }
}

fn megabytes(bytes: u64) -> String {
    if bytes >= 10 << 30 {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// Where programs go: they are written, and executed.
fn programs(place: &Place, facts: &Facts) -> Finding {
    let at = place.path.display();
    let room = place.filesystem.available_bytes;
    let inodes = place.filesystem.available_inodes;
    let needed = facts.probable_bytes.max(NO_ROOM);
    let wanted = format!("writable, executable, {} free", megabytes(needed));
    let finding = |found: String| Finding::ok("programs", found, wanted.clone());
    if place.filesystem.read_only {
        return finding(format!("{at} is read-only")).blocking(Code::Mount);
    }
    if place.filesystem.noexec {
        return finding(format!("{at} is mounted noexec")).blocking(Code::Mount);
    }
    let finding = finding(format!("{at} has {} free{}", megabytes(room), few(inodes)));
    if room < facts.certain_bytes || inodes.is_some_and(|inodes| inodes < NO_INODES) {
        finding.blocking(Code::DiskFull)
    } else if room < needed {
        finding.warning(Code::DiskFull)
    } else {
        finding
    }
}

/// Words on inodes where they are scarce.
fn few(inodes: Option<u64>) -> String {
    match inodes {
        Some(inodes) if inodes < FEW_INODES => format!(", room for {inodes} files"),
        _ => String::new(),
    }
}

/// Where containers, images, and the kubelet's state go.
fn data(place: &Place) -> Finding {
    let at = place.path.display();
    let room = place.filesystem.available_bytes;
    let inodes = place.filesystem.available_inodes;
    let wanted = format!("writable, {} free", megabytes(LITTLE_ROOM));
    if place.filesystem.read_only {
        return Finding::ok("data", format!("{at} is read-only"), wanted).blocking(Code::Mount);
    }
    let found = format!("{at} has {} free{}", megabytes(room), few(inodes));
    let finding = Finding::ok("data", found, wanted);
    if room < NO_ROOM || inodes.is_some_and(|inodes| inodes < NO_INODES) {
        finding.blocking(Code::DiskFull)
    } else if room < LITTLE_ROOM || inodes.is_some_and(|inodes| inodes < FEW_INODES) {
        finding.warning(Code::DiskFull)
    } else {
        finding
    }
}

fn swap(facts: &Facts) -> Finding {
    if facts.swap.is_empty() {
        return Finding::ok("swap", "off", "off");
    }
    let found = facts.swap.join(", ");
    if facts.swap_allowed {
        return Finding::ok("swap", found, "borne by the kubelet (failSwapOn: false)");
    }
    Finding::ok("swap", found, "off").failure(Code::Swap)
}

fn mtu(found: u32, config: Option<&NodeConfig>) -> Finding {
    let network = config.and_then(|config| config.network.as_ref());
    let mode = network.map(|network| network.mode);
    let over_v6 = config
        .and_then(|config| config.node.addresses.first())
        .is_some_and(|address| address.is_ipv6());
    let around = match (mode, over_v6) {
        (Some(NetworkMode::Vxlan), false) => 50,
        (Some(NetworkMode::Vxlan), true) => 70,
        _ => 0,
    };
    let carried = found.saturating_sub(around);
    let told = format!("{found}, of which pods have {carried}");
    if let Some(asked) = network.and_then(|network| network.mtu)
        && asked > carried
    {
        return Finding::ok("MTU", told, format!("at least the {asked} of the settings"))
            .failure(Code::Mtu);
    }
    let finding = Finding::ok("MTU", told, format!("at least {IPV6_MTU} for pods"));
    if carried < IPV6_MTU {
        finding.warning(Code::Mtu)
    } else {
        finding
    }
}

/// One finding a port that somebody else has, else one for all.
fn ports(facts: &Facts) -> Vec<Finding> {
    let strangers = facts.listeners.iter().filter(|l| !l.is_rightful());
    let findings: Vec<Finding> = strangers
        .map(|listener| {
            let program = listener.program.as_deref().unwrap_or("an unknown program");
            let subject = format!("port {}", listener.port);
            let wanted = format!("free for {}", listener.service);
            Finding::ok(&subject, format!("taken by {program}"), wanted).failure(Code::Port)
        })
        .collect();
    if !findings.is_empty() {
        return findings;
    }
    let found = match facts.listeners.len() {
        0 => "free".to_owned(),
        count => format!("{count} in use by the services themselves"),
    };
    vec![Finding::ok("ports", found, "free for the services")]
}

fn systemd(found: &str) -> Finding {
    let finding = Finding::ok("systemd", found, format!("{GOOD_SYSTEMD} or newer"));
    match version(found) {
        Some((major, _)) if major < OLDEST_SYSTEMD => finding.failure(Code::Systemd),
        Some((major, _)) if major >= GOOD_SYSTEMD => finding,
        _ => finding.warning(Code::Systemd),
    }
}

fn kept_right(synchronised: Option<bool>) -> Finding {
    let (found, right) = match synchronised {
        Some(true) => ("synchronised", true),
        Some(false) => ("not synchronised", false),
        None => ("nobody says", false),
    };
    let finding = Finding::ok("time servers", found, "synchronised");
    if right {
        finding
    } else {
        finding.warning(Code::Clock)
    }
}

fn certificate_begins(facts: &Facts) -> Option<Finding> {
    let (now, begins) = (facts.now?, facts.not_before?);
    let wanted = format!(
        "after {}, when the kubelet's certificate begins",
        begins.date()
    );
    if now >= begins {
        return Some(Finding::ok("clock", now.date().to_string(), wanted));
    }
    let behind = span((begins - now).whole_seconds());
    let found = format!("{}, at least {behind} behind", now.date());
    Some(Finding::ok("clock", found, wanted).failure(Code::Clock))
}

/// Seconds as people say them.
fn span(seconds: i64) -> String {
    match seconds.abs() {
        s if s >= 86_400 => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
        s if s >= 3600 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s if s >= 60 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{s} s"),
    }
}

fn containerd(facts: &Facts) -> Finding {
    let wanted = "on the machine, as the settings say";
    match &facts.containerd {
        Some(path) => Finding::ok("containerd", path.display().to_string(), wanted),
        None => Finding::ok("containerd", "not there", wanted).failure(Code::RuntimeMissing),
    }
}

/// Whether another machine is found, answers, and has the same time. It may
/// not exist yet; so nothing here is a failure but a name that nobody knows,
/// and a clock.
fn outside(seen: &Outside) -> Vec<Finding> {
    let role = seen.role;
    let name = host(&seen.url);
    let subject = format!("{role} {name}");
    let addresses = match &seen.addresses {
        Ok(addresses) => addresses,
        Err((code, why)) => {
            let finding = Finding::ok(&subject, why, "a name that resolves");
            return vec![if role == "endpoint" {
                finding.failure(*code)
            } else {
                finding.warning(*code)
            }];
        }
    };
    let at: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let at = if at == [name] {
        String::new()
    } else {
        format!("{}, ", at.join(" "))
    };
    match &seen.ahead {
        None => vec![],
        Some(Err((Code::Clock, why))) => {
            vec![
                Finding::ok(&subject, why, "a clock within certificates' life")
                    .failure(Code::Clock),
            ]
        }
        Some(Err((code, why))) => vec![Finding::ok(&subject, why, "answers").warning(*code)],
        Some(Ok(None)) => vec![Finding::ok(&subject, format!("{at}answers"), "answers")],
        Some(Ok(Some(ahead))) => {
            let side = if *ahead < 0 { "behind" } else { "ahead" };
            let wanted = format!("answers, clocks within {CLOSE} s");
            let clock = match ahead.abs() {
                apart if apart <= CLOSE => "same time".to_owned(),
                _ => format!("our clock is {} {side}", span(*ahead)),
            };
            let finding = Finding::ok(&subject, format!("{at}answers, {clock}"), wanted);
            vec![match ahead.abs() {
                apart if apart > FAR => finding.failure(Code::Clock),
                apart if apart > CLOSE => finding.warning(Code::Clock),
                _ => finding,
            }]
        }
    }
}
