//! What was typed → what is meant.
//!
//! [`keys`] reads cluster.yaml into the types of [`schema`], [`check`] looks at
//! them as a whole. Both collect everything that is wrong; only settings that passed
//! become [`Checked`], and only those become a cluster.

mod addons;
mod artifacts;
mod azure;
mod check;
mod etcd;
mod extras;
mod keys;
mod layer;
mod manifests;
mod members;
mod openstack;
mod overrides;
mod pools;
mod ports;
mod pxe;
mod registries;
mod schema;
mod shared;
mod system;
mod units;
mod values;
mod warn;

use std::path::Path;
use std::sync::Arc;

use ::units::types::{NodeName, Role};

pub use addons::{Addons, Dns};
pub use artifacts::{ArtifactSources, Pinned};
pub use azure::{Azure, Image, Subnet};
pub use layer::Layer;
pub use openstack::{LoadBalancer, Openstack};
pub use pools::{Pool, TOKEN_TTL};
pub use ports::BALANCER;
pub use pxe::{BaseUrl, Boot, COMMAND_LINE, Dhcp, Mac, Pxe};
pub use schema::{Args, Images, Machine, Network, Runtime, Settings};
pub use values::{DEFAULT_VERSION, Endpoint, Host, KubernetesVersion, ServiceAccountKey};

use crate::outside::Outside;
use crate::report::{Report, Source};
use crate::yaml::{self, Asked, Reader};

/// The schema of cluster.yaml, for editors. Source: JSON Schema, draft 2020-12.
pub const SCHEMA: &str = include_str!("cluster.schema.json");

/// Settings in which nothing is wrong.
#[derive(Debug, Clone)]
pub struct Checked(Settings, Report);

impl Checked {
    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0
    }

    /// What is worth a second thought.
    pub fn warnings(&self) -> &Report {
        &self.1
    }
}

/// Reads and checks a cluster.yaml that refers to no files.
pub fn load(source: &Arc<Source>) -> Result<Checked, Report> {
    load_with(source, &[], None)
}

/// The keys that cluster.yaml is read for, as far as the mappings of `source`
/// lead to them.
pub fn keys_asked_for(source: &Arc<Source>) -> Result<Asked, Report> {
    let root = yaml::parse(source)?;
    let mut reader = Reader::new(Arc::clone(source));
    keys::read(&mut reader, &root);
    let asked = reader.asked().clone();
    reader.into_report().into_result()?;
    Ok(asked)
}

/// Reads and checks a cluster.yaml with settings like `a.b[0].c=v` over it.
/// Files that it refers to are sought in `folder`; without one it can refer to
/// nothing, and nothing but the text is read.
pub fn load_with(
    source: &Arc<Source>,
    sets: &[String],
    folder: Option<&Path>,
) -> Result<Checked, Report> {
    let root = yaml::parse(source)?;
    let (source, root) = match sets {
        [] => (Arc::clone(source), root),
        sets => overrides::lay(source, root, sets)?,
    };
    let mut reader = Reader::new(Arc::clone(&source)).referring(folder.map(Outside::new));
    let settings = keys::read(&mut reader, &root);
    if let Some(settings) = &settings {
        check::check(&mut reader, settings);
    }
    reader.into_report().into_result()?;
    // Without findings there are settings.
    settings
        .map(|settings| {
            let warnings = warn::warnings(&settings, source.name());
            Checked(settings, warnings)
        })
        .ok_or_else(|| crate::report::Finding::new("no settings could be read").into())
}

/// The built-in settings: one master, and the machine asked for.
pub fn builtin(machines: &[(NodeName, Role)]) -> Checked {
    let settings = Settings {
        machines: machines
            .iter()
            .map(|(name, role)| Machine::named(name.clone(), *role))
            .collect(),
        // Machines come and go without being listed anywhere: the controller
        // manager gives pod ranges.
        assign_pod_cidrs: false,
        ..Settings::default()
    };
    Checked(settings, Report::default())
}
