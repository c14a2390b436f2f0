//! NodePlan → bytes: one file a language, and nothing but the language.

mod cloud_init;
mod coreos;
mod encode;

use anyhow::Result;
use serde::Serialize;

use crate::format::Format;
use crate::plan::NodePlan;

/// A document, as bytes that may hold keys.
pub type Document = zeroize::Zeroizing<String>;

/// The first line of both languages, without which a document is ignored.
const HEADER: &str = "#cloud-config\n";

/// Writes a plan in a language.
pub fn render(plan: &NodePlan, format: Format) -> Result<Document> {
    match format {
        Format::Coreos => coreos::render(plan),
        Format::CloudInit => cloud_init::render(plan),
    }
}

/// YAML that PyYAML (1.1) and Go's (1.2) read alike.
fn yaml(value: &impl Serialize) -> Result<Document> {
    let options = serde_yaml::ser_options! { folded_wrap_chars: 1_000_000_000 };
    let body = zeroize::Zeroizing::new(serde_yaml::to_string_with_options(value, options)?);
    Ok(zeroize::Zeroizing::new([HEADER, &body].concat()))
}
