//! NodePlan → bytes: one file a language, and nothing but the language.

mod cloud_init;
mod coreos;
mod encode;
mod ignition;
mod memo;
mod support;
mod write_files;

pub use encode::gzip;
pub use ignition::VERSION as IGNITION_VERSION;
pub use support::check;

use anyhow::Result;
use serde::Serialize;

use crate::format::Format;
use crate::plan::{NodePlan, PlannedFile};

/// A document, as bytes that may hold keys.
pub type Document = zeroize::Zeroizing<String>;

/// The first line of both YAML languages, without which a document is ignored.
const HEADER: &str = "#cloud-config\n";

/// Writes a plan in a language.
pub fn render(plan: &NodePlan, format: Format) -> Result<Document> {
    match format {
        Format::Coreos => coreos::render(plan),
        Format::CloudInit => cloud_init::render(plan),
        Format::Ignition => ignition::render(plan),
    }
}

/// About how many bytes a file takes in a document.
pub fn cost(file: &PlannedFile, format: Format) -> Result<usize> {
    match format {
        Format::Coreos | Format::CloudInit => Ok(write_files::entry(file, format)?.len()),
        Format::Ignition => ignition::cost(file),
    }
}

/// What a document begins with.
fn head(value: &impl Serialize) -> Result<String> {
    Ok([HEADER, &body(value)?].concat())
}

/// YAML that PyYAML (1.1) and Go's (1.2) read alike.
fn body(value: &impl Serialize) -> Result<String> {
    let options = serde_yaml::ser_options! { folded_wrap_chars: 1_000_000_000 };
    Ok(serde_yaml::to_string_with_options(value, options)?)
}
