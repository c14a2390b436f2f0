//! What can be said of a role, of a pool and of a machine alike: one is laid
//! over the other.

use std::collections::BTreeMap;

use serde_json::Value;
use units::node_config::Registration;
use units::types::Taint;

use super::members::{labels, taint};
use crate::yaml::{At, Object, Reader};

/// What was typed at one of these places.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Labels of the Node, beside those of the layer below and over them.
    pub labels: BTreeMap<String, String>,
    /// Taints, if any were typed, even none of them; instead of those of the
    /// layer below.
    pub taints: Option<Vec<Taint>>,
    /// Laid over the KubeletConfiguration of the layer below.
    pub kubelet: Option<At<Value>>,
    /// Who makes the Node object.
    pub registration: Option<At<Registration>>,
}

impl Layer {
    /// Reads the keys of a layer; others are the caller's.
    pub fn read(r: &mut Reader, o: &mut Object<'_>) -> Self {
        Self {
            labels: o.read(r, "labels", labels).unwrap_or_default(),
            taints: o.get("taints").map(|(n, p)| r.list(n, &p, taint)),
            kubelet: kubelet(r, o),
            registration: o.read(r, "registration", |r, n, p| {
                r.parse_with(n, p, |text| match text {
                    "agent" => Ok(Registration::Agent),
                    "kubelet" => Ok(Registration::Kubelet),
                    _ => Err(format!("{text:?} makes no Nodes: use agent or kubelet")),
                })
            }),
        }
    }
}

fn kubelet(r: &mut Reader, o: &mut Object<'_>) -> Option<At<Value>> {
    let (node, path) = o.get("kubelet")?;
    let mut o = r.object(node, &path)?;
    let config = o.read(r, "config", |r, n, p| {
        r.fragment(n, p).map(|value| At {
            value,
            span: n.span.clone(),
            path: p.to_owned(),
        })
    });
    o.finish(r);
    config
}
