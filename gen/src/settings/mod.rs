//! What was typed → what is meant.
//!
//! [`keys`] reads cluster.yaml into the types of [`schema`], [`check`] looks at
//! them as a whole. Both collect everything that is wrong; only settings that passed
//! become [`Checked`], and only those become a cluster.

mod check;
mod keys;
mod members;
mod overrides;
mod schema;
mod values;
mod warn;

use std::sync::Arc;

use units::types::{NodeName, Role};

pub use schema::{Args, Machine, Network, Runtime, Settings};
pub use values::{DEFAULT_VERSION, Endpoint, Host, KubernetesVersion, ServiceAccountKey};

use crate::report::{Report, Source};
use crate::yaml::{self, Reader};

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

/// Reads and checks a cluster.yaml.
pub fn load(source: &Arc<Source>) -> Result<Checked, Report> {
    load_with(source, &[])
}

/// Reads and checks a cluster.yaml with settings like `a.b[0].c=v` over it.
pub fn load_with(source: &Arc<Source>, sets: &[String]) -> Result<Checked, Report> {
    let root = yaml::parse(source)?;
    let (source, root) = match sets {
        [] => (Arc::clone(source), root),
        sets => overrides::lay(source, root, sets)?,
    };
    let mut reader = Reader::new(Arc::clone(&source));
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
