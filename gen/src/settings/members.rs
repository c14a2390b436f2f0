//! The keys of one machine under `nodes:`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use units::types::{Arch, NodeName, Role, Taint, TaintEffect, is_label_value, is_qualified_name};

use super::extras;
use super::layer::Layer;
use super::pxe::{self, Mac};
use super::values::network;
use crate::system::Extras;
use crate::yaml::{At, Node, Reader};

/// One machine, as it was typed.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The Node's name.
    pub name: At<NodeName>,
    /// What it does.
    pub role: At<Role>,
    /// Its addresses, one a family.
    pub addresses: Vec<At<IpAddr>>,
    /// Its own pod ranges, one a family, where they were typed.
    pub pod_cidrs: Vec<At<IpNet>>,
    /// What its Node is.
    pub layer: Layer,
    /// Its processor.
    pub arch: Arch,
    /// What a cloud calls it.
    pub provider_id: Option<String>,
    /// The network card that it boots from.
    pub mac: Option<At<Mac>>,
    /// Files, units, packages and scripts of its own.
    pub extras: Extras,
}

impl Machine {
    /// A machine of which only name and role are known.
    pub fn named(name: NodeName, role: Role) -> Self {
        fn typed_nowhere<T>(value: T) -> At<T> {
            At {
                value,
                span: 0..0,
                path: String::new(),
            }
        }
        Self {
            name: typed_nowhere(name),
            role: typed_nowhere(role),
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            layer: Layer::default(),
            arch: Arch::default(),
            provider_id: None,
            mac: None,
            extras: Extras::default(),
        }
    }

    /// Where it stands: `nodes[1]`.
    pub fn path(&self) -> &str {
        self.name.path.trim_end_matches(".name")
    }
}

/// Reads one item of `nodes`.
pub fn machine(r: &mut Reader, node: &Node, path: &str) -> Option<Machine> {
    let mut o = r.object(node, path)?;
    let name = o.required(r, "name", Reader::parse);
    let role = o.required(r, "role", Reader::parse);
    let addresses = o.one_or_many(r, "address", "addresses", address);
    let pod_cidrs = o.one_or_many(r, "podCIDR", "podCIDRs", |r, n, p| {
        r.parse_with(n, p, network)
    });
    let layer = Layer::read(r, &mut o);
    let arch = o.read(r, "arch", Reader::parse).map(|a| a.value);
    let provider_id = o.read(r, "providerID", provider_id);
    let mac = pxe::mac(r, &mut o);
    let extras = extras::read(r, &mut o);
    o.finish(r);
    Some(Machine {
        name: name?,
        role: role?,
        addresses,
        pod_cidrs,
        layer,
        arch: arch.unwrap_or_default(),
        provider_id: provider_id.map(|id| id.value),
        mac,
        extras,
    })
}

/// Source: Kubernetes API, core/v1 NodeSpec: `<ProviderName>://<ID>`.
fn provider_id(r: &mut Reader, node: &Node, path: &str) -> Option<At<String>> {
    r.parse_with(node, path, |text| {
        let good = text
            .split_once("://")
            .is_some_and(|(provider, id)| !provider.is_empty() && !id.trim_matches('/').is_empty());
        if good && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is not a provider's name, :// and what it calls the machine"
        ))
    })
}

fn address(r: &mut Reader, node: &Node, path: &str) -> Option<At<IpAddr>> {
    r.parse_with(node, path, |text| {
        let address: IpAddr = text
            .parse()
            .map_err(|_| format!("{text:?} is not an address, as in 10.0.0.11 or fd00::11"))?;
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Err(format!(
                "{text} is not an address that other machines reach"
            ));
        }
        Ok(address)
    })
}

/// The labels of a Node, without those that a kubelet may not set.
pub fn labels(r: &mut Reader, node: &Node, path: &str) -> Option<BTreeMap<String, String>> {
    let mut o = r.object(node, path)?;
    let mut labels = BTreeMap::new();
    for (key, node) in o.entries() {
        let path = o.path_of(&key.text);
        if !is_qualified_name(&key.text) {
            let help = "at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', after an optional DNS/";
            r.find(
                &key.span,
                format!("{path}: not a label's name"),
                Some(help.to_owned()),
            );
        } else if let Some(why) = reserved(&key.text) {
            r.find(
                &key.span,
                format!("{path}: a reserved label"),
                Some(why.to_owned()),
            );
        }
        let value = r.parse_with(node, &path, |text| {
            is_label_value(text)
                .then(|| text.to_owned())
                .ok_or_else(|| format!("{text:?} is not a label's value"))
        });
        if let Some(value) = value {
            labels.insert(key.text.clone(), value.value);
        }
    }
    Some(labels)
}

/// Why a kubelet may not give itself this label, if it may not.
/// Source: Kubernetes documentation, admission plugin NodeRestriction.
fn reserved(key: &str) -> Option<&'static str> {
    let (domain, name) = key.split_once('/')?;
    let within = |zone: &str| {
        domain == zone
            || domain
                .strip_suffix(zone)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    if domain == "node-role.kubernetes.io" {
        return Some(
            "a kubelet may not say what its own role is; the role comes from the key role, \
             and masters set this label",
        );
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return None;
    }
    let allowed = within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
        || (domain == "kubernetes.io" && matches!(name, "hostname" | "arch" | "os"))
        || (domain == "topology.kubernetes.io" && matches!(name, "region" | "zone"))
        || (domain == "failure-domain.beta.kubernetes.io" && matches!(name, "region" | "zone"))
        || (domain == "beta.kubernetes.io" && matches!(name, "instance-type" | "arch" | "os"));
    (!allowed).then_some(
        "the API server lets no kubelet set labels under kubernetes.io and k8s.io but those \
         under node.kubernetes.io, kubelet.kubernetes.io and topology.kubernetes.io/region, zone",
    )
}

/// One taint.
pub fn taint(r: &mut Reader, node: &Node, path: &str) -> Option<Taint> {
    let mut o = r.object(node, path)?;
    let key = o.required(r, "key", |r, n, p| {
        r.parse_with(n, p, |text| {
            is_qualified_name(text)
                .then(|| text.to_owned())
                .ok_or_else(|| format!("{text:?} is not a taint's key"))
        })
    });
    let value = o.read(r, "value", |r, n, p| {
        r.parse_with(n, p, |text| {
            is_label_value(text)
                .then(|| text.to_owned())
                .ok_or_else(|| format!("{text:?} is not a taint's value"))
        })
    });
    let effect = o.required(r, "effect", |r, n, p| {
        r.parse_with(n, p, |text| match text {
            "NoSchedule" => Ok(TaintEffect::NoSchedule),
            "PreferNoSchedule" => Ok(TaintEffect::PreferNoSchedule),
            "NoExecute" => Ok(TaintEffect::NoExecute),
            _ => Err(format!(
                "unknown effect {text:?}: use NoSchedule, PreferNoSchedule or NoExecute"
            )),
        })
    });
    o.finish(r);
    Some(Taint {
        key: key?.value,
        value: value.map(|v| v.value).unwrap_or_default(),
        effect: effect?.value,
    })
}

#[cfg(test)]
mod tests {
    use super::reserved;

    #[test]
    fn labels_that_kubelets_may_not_set_are_reserved() {
        for label in [
            "node-role.kubernetes.io/worker",
            "kubernetes.io/x",
            "node-restriction.kubernetes.io/x",
            "foo.k8s.io/x",
        ] {
            assert!(reserved(label).is_some(), "{label}");
        }
        for label in [
            "rack",
            "example.com/rack",
            "notkubernetes.io/x",
            "node.kubernetes.io/pool",
            "topology.kubernetes.io/zone",
        ] {
            assert!(reserved(label).is_none(), "{label}");
        }
    }
}
