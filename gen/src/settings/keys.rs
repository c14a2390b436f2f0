//! The keys of cluster.yaml, each read where its name stands.

use std::collections::BTreeMap;

use serde_json::Value;
use units::node_config::{CgroupDriver, NetworkMode, RuntimeSource};
use units::types::{InvalidValue, NodeName, is_dns_label};

use super::schema::{Args, Images, Network, Runtime, Settings};
use super::values::network;
use super::{addons, artifacts, azure, etcd, members, openstack, pools, pxe, system};
use crate::yaml::{At, Node, Object, Reader};

/// The port of Docker over TLS. Source: IANA, "docker-s".
const DOCKER_PORT: u16 = 2376;
/// The image that holds a pod's namespaces, in any registry.
const PAUSE: &str = "pause:3.10.1";

/// Reads the root mapping; what is wrong is in the reader.
pub fn read(r: &mut Reader, root: &Node) -> Option<Settings> {
    let mut o = r.object(root, "")?;
    let mut s = Settings {
        machines_span: o.span.clone(),
        ..Settings::default()
    };
    set(&mut s.name, o.read(r, "name", dns_label));
    set(
        &mut s.version,
        value(o.read(r, "kubernetesVersion", Reader::parse)),
    );
    s.format = value(o.read(r, "format", Reader::parse));
    s.platform = value(o.read(r, "platform", Reader::parse));
    set(&mut s.gzip, value(o.read(r, "gzip", Reader::boolean)));
    s.endpoint = o.read(r, "endpoint", Reader::parse);
    if let Some((node, path)) = o.get("nodes") {
        s.machines_span = node.span.clone();
        s.machines = r.list(node, &path, members::machine);
    }
    let mut role_extras = BTreeMap::new();
    if let Some(mut o) = section(r, &mut o, "roles") {
        (s.roles, role_extras) = pools::roles(r, &mut o);
        o.finish(r);
    }
    if let Some((node, path)) = o.get("pools") {
        s.pools = r.list(node, &path, pools::pool);
    }
    s.node_documents = o.read(r, "nodeDocuments", pools::node_documents);
    s.balancer = o.read(r, "balancer", Reader::boolean);
    set(
        &mut s.static_pods,
        value(o.read(r, "controlPlane", control_plane)),
    );
    if let Some(mut o) = section(r, &mut o, "images") {
        s.images = read_images(r, &mut o);
        o.finish(r);
    }
    let addons = o.get("addons");
    let manifests;
    (s.addons, manifests) = addons::read(r, addons, &s.images);
    s.runtime.sandbox_image = format!("{}/{PAUSE}", s.images.registry);
    if let Some(mut o) = section(r, &mut o, "network") {
        s.network = read_network(r, &mut o);
        o.finish(r);
    }
    if let Some(mut o) = section(r, &mut o, "runtime") {
        s.runtime = read_runtime(r, &mut o, s.runtime);
        o.finish(r);
    }
    for (key, target) in [
        ("kubelet", &mut s.kubelet),
        ("kubeProxy", &mut s.kube_proxy),
    ] {
        if let Some(mut o) = section(r, &mut o, key) {
            set(target, o.read(r, "config", Reader::fragment));
            o.finish(r);
        }
    }
    if let Some(mut o) = section(r, &mut o, "etcd") {
        set(&mut s.etcd, o.read(r, "config", Reader::fragment));
        if let Some((node, path)) = o.get("snapshots") {
            s.etcd_snapshots = etcd::snapshots(r, node, &path);
        }
        o.finish(r);
    }
    if let Some(mut o) = section(r, &mut o, "apiServer") {
        set(&mut s.apiserver_args, o.read(r, "extraArgs", args));
        if let Some((node, path)) = o.get("certSANs") {
            s.cert_sans = r.list(node, &path, |r, n, p| value(r.parse(n, p)));
        }
        o.finish(r);
    }
    for (key, target) in [
        ("controllerManager", &mut s.controller_manager_args),
        ("scheduler", &mut s.scheduler_args),
    ] {
        if let Some(mut o) = section(r, &mut o, key) {
            set(target, o.read(r, "extraArgs", args));
            o.finish(r);
        }
    }
    if let Some(mut o) = section(r, &mut o, "docker") {
        let expose = value(o.read(r, "expose", Reader::boolean));
        let port = value(o.read(r, "port", |r, n, p| number(r, n, p, 1..=65_535)));
        s.docker_port = (expose == Some(true)).then_some(port.unwrap_or(DOCKER_PORT));
        o.finish(r);
    }
    set(
        &mut s.service_account_key,
        value(o.read(r, "serviceAccountKey", Reader::parse)),
    );
    if let Some((node, path)) = o.get("hostAliases") {
        s.host_aliases = system::host_aliases(r, node, &path);
    }
    s.artifacts = o.read(r, "artifacts", artifacts::read).unwrap_or_default();
    s.system = system::read(r, &mut o);
    if let Some((node, path)) = o.get("azure") {
        s.azure = azure::read(r, node, &path, &s.system.ssh.authorized_keys);
    }
    if let Some((node, path)) = o.get("openstack") {
        s.openstack = openstack::read(r, node, &path);
    }
    if let Some((node, path)) = o.get("pxe") {
        s.pxe = pxe::read(r, node, &path);
    }
    s.system.roles = role_extras;
    s.system.manifests = manifests;
    let own = s.machines.iter().map(|m| (&m.name, &m.extras));
    let of_pools = s.pools.iter().map(|p| (&p.name, &p.extras));
    for (name, extras) in own.chain(of_pools) {
        let (name, extras) = (name.value.clone(), extras.clone());
        s.system.machines.insert(name, extras);
    }
    o.finish(r);
    Some(s)
}

fn read_network(r: &mut Reader, o: &mut Object<'_>) -> Network {
    let mut n = Network::default();
    let cidr = |r: &mut Reader, node: &Node, path: &str| r.parse_with(node, path, network);
    let pods = o.one_or_many(r, "podCIDR", "podCIDRs", cidr);
    let services = o.one_or_many(r, "serviceCIDR", "serviceCIDRs", cidr);
    if !pods.is_empty() {
        n.pod_cidrs = pods;
    }
    if !services.is_empty() {
        n.service_cidrs = services;
    }
    set(
        &mut n.node_mask,
        o.read(r, "nodeMask", |r, n, p| number(r, n, p, 8..=30)),
    );
    set(
        &mut n.node_mask_ipv6,
        o.read(r, "nodeMaskIPv6", |r, n, p| number(r, n, p, 16..=124)),
    );
    set(
        &mut n.mode,
        value(o.read(r, "mode", |r, n, p| r.parse_with(n, p, mode))),
    );
    set(&mut n.domain, o.read(r, "domain", domain));
    n.mtu = value(o.read(r, "mtu", |r, n, p| number(r, n, p, 1280..=65_535)));
    set(
        &mut n.metadata_guard,
        value(o.read(r, "metadataGuard", Reader::boolean)),
    );
    set(
        &mut n.resolve_machines,
        value(o.read(r, "resolveMachines", Reader::boolean)),
    );
    n
}

fn read_images(r: &mut Reader, o: &mut Object<'_>) -> Images {
    let mut images = Images::default();
    let registry = o.read(r, "registry", |r, n, p| r.parse_with(n, p, registry));
    set(&mut images.registry, value(registry));
    images.etcd = o.read(r, "etcd", image);
    images.probe = o.read(r, "probe", image);
    images
}

/// The beginning of images' names: a host, maybe with a port, and a path.
fn registry(text: &str) -> Result<String, String> {
    let good = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        !part.is_empty() && part.bytes().all(allowed)
    };
    if !text.contains("://") && text.split('/').all(good) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not HOST[:PORT][/PATH], as in registry.k8s.io"
    ))
}

fn read_runtime(r: &mut Reader, o: &mut Object<'_>, mut runtime: Runtime) -> Runtime {
    let source = o.read(r, "source", |r, n, p| {
        r.parse_with(n, p, |text| match text {
            "artifact" => Ok(RuntimeSource::Artifact),
            "distribution" => Ok(RuntimeSource::Distribution),
            _ => Err(format!(
                "unknown source {text:?}: use artifact or distribution"
            )),
        })
    });
    set(&mut runtime.source, value(source));
    set(&mut runtime.sandbox_image, o.read(r, "sandboxImage", image));
    let driver = o.read(r, "cgroupDriver", |r, n, p| {
        r.parse_with(n, p, |text| match text {
            "systemd" => Ok(CgroupDriver::Systemd),
            "cgroupfs" => Ok(CgroupDriver::Cgroupfs),
            _ => Err(format!("unknown driver {text:?}: use systemd or cgroupfs")),
        })
    });
    set(&mut runtime.cgroup_driver, value(driver));
    if let Some(Value::Object(config)) = o.read(r, "config", Reader::fragment) {
        runtime.config = config;
    }
    runtime
}

/// How the control plane runs: whether as static pods.
fn control_plane(r: &mut Reader, node: &Node, path: &str) -> Option<At<bool>> {
    r.parse_with(node, path, |text| match text {
        "systemd" => Ok(false),
        "static-pods" => Ok(true),
        _ => Err(
            "the control plane runs under systemd or as static pods: write systemd, \
             which needs no registry and starts faster, or static-pods",
        ),
    })
}

/// A mapping under `key`, if there is one.
fn section<'n>(r: &mut Reader, o: &mut Object<'n>, key: &'static str) -> Option<Object<'n>> {
    let (node, path) = o.get(key)?;
    r.object(node, &path)
}

/// Replaces a default by what was typed.
fn set<T>(target: &mut T, typed: Option<T>) {
    if let Some(typed) = typed {
        *target = typed;
    }
}

fn value<T>(at: Option<At<T>>) -> Option<T> {
    at.map(|at| at.value)
}

/// A number within a range.
pub(super) fn number<T>(
    r: &mut Reader,
    node: &Node,
    path: &str,
    range: std::ops::RangeInclusive<T>,
) -> Option<At<T>>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    r.parse_with(node, path, |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "{text:?} is not a number from {} to {}",
            range.start(),
            range.end()
        )),
    })
}

fn dns_label(r: &mut Reader, node: &Node, path: &str) -> Option<String> {
    value(r.parse_with(node, path, |text| {
        text.parse::<NodeName>()
            .map(|name| name.to_string())
            .map_err(|_| format!("{text:?} is not a DNS label: a-z, 0-9 and '-', at most 63"))
    }))
}

fn domain(r: &mut Reader, node: &Node, path: &str) -> Option<String> {
    value(r.parse_with(node, path, |text| {
        if text.len() <= 200 && text.split('.').all(is_dns_label) {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} is not a DNS domain in lower case"))
        }
    }))
}

fn mode(text: &str) -> Result<NetworkMode, InvalidValue> {
    match text {
        "vxlan" => Ok(NetworkMode::Vxlan),
        "host-gw" => Ok(NetworkMode::HostGw),
        "routed" => Ok(NetworkMode::Routed),
        "none" => Ok(NetworkMode::None),
        _ => Err(InvalidValue(format!(
            "unknown mode {text:?}: use vxlan, host-gw, routed or none"
        ))),
    }
}

pub(super) fn image(r: &mut Reader, node: &Node, path: &str) -> Option<String> {
    value(r.parse_with(node, path, |text| {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"') {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} is not the name of an image"))
        }
    }))
}

/// Flags and their values; `profiling`, `--profiling` mean the same.
fn args(r: &mut Reader, node: &Node, path: &str) -> Option<Args> {
    let mut o = r.object(node, path)?;
    let mut args = Args::new();
    for (key, node) in o.entries() {
        let path = o.path_of(&key.text);
        let flag = key.text.strip_prefix("--").unwrap_or(&key.text);
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
        if flag.is_empty() || flag.starts_with('-') || !flag.bytes().all(good) {
            r.find(&key.span, format!("{path}: not the name of a flag"), None);
        } else if let Some(text) = r.text(node, &path) {
            if text.value.chars().any(char::is_control) {
                r.find(&text.span, format!("{path}: has control characters"), None);
            }
            args.insert(flag.to_owned(), text.value);
        }
    }
    Some(args)
}
