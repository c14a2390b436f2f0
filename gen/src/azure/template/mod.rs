//! The template of Azure Resource Manager, and its parameters.
//! Source: `Azure/azure-resource-manager-schemas`, deploymentTemplate.json of
//! 2019-04-01, Microsoft.Network of 2024-05-01, Microsoft.Compute of 2024-11-01.

mod compute;
mod network;

pub(super) use compute::UPDATE_DOMAINS;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{Deployment, TAG};
use crate::budget::grouped;
use crate::report::{Finding, Report};

/// Where schemas of templates are.
const SCHEMAS: &str = "https://schema.management.azure.com/schemas/2019-04-01";
/// The version of resources of networks.
const NETWORK: &str = "2024-05-01";
/// The version of machines.
const COMPUTE: &str = "2024-11-01";
/// Resources of a template. Source: Azure documentation, "Best practices for
/// ARM templates", as are the other limits.
const RESOURCES: usize = 800;
/// Bytes of a template, and of its parameters.
const BYTES: usize = 4 << 20;

/// The template, which has no secrets.
pub fn template(deployment: &Deployment) -> Result<String, Report> {
    let mut resources = network::resources(deployment);
    resources.extend(compute::resources(deployment));
    let count = resources.len();
    let mut parameters = Map::new();
    parameters.insert(
        "location".to_owned(),
        json!({
            "type": "string",
            "defaultValue": deployment.location,
            "metadata": {"description": "The region."}
        }),
    );
    for vm in &deployment.machines {
        let description = format!("The size of machines with the role {}.", vm.role);
        parameters.insert(
            compute::size_parameter(deployment, vm),
            json!({
                "type": "string",
                "defaultValue": vm.size,
                "metadata": {"description": description}
            }),
        );
    }
    for document in deployment.documents() {
        let description = format!("{document}/user-data, in base64.");
        let value = json!({"type": "securestring", "metadata": {"description": description}});
        parameters.insert(parameter(document), value);
    }
    let ip = resource_id(
        "Microsoft.Network/publicIPAddresses",
        &[&deployment.named("ip")],
    );
    let template = json!({
        "$schema": format!("{SCHEMAS}/deploymentTemplate.json#"),
        "contentVersion": "1.0.0.0",
        "parameters": parameters,
        "resources": resources,
        "outputs": {
            "publicAddress": {
                "type": "string",
                "value": format!("[reference({ip}).ipAddress]")
            }
        }
    });
    let text = format!("{template:#}\n");
    let mut report = Report::default();
    if count > RESOURCES {
        let message =
            format!("azure: a template takes {RESOURCES} resources, and this has {count}");
        report.add(Finding::new(message).help("use pools for machines that are alike"));
    }
    too_large("template", text.len(), &mut report);
    report.into_result()?;
    Ok(text)
}

/// The parameters, with documents and their keys: for their owner alone.
pub fn parameters(
    deployment: &Deployment,
    documents: &BTreeMap<String, Zeroizing<Vec<u8>>>,
) -> Result<Zeroizing<String>, Report> {
    // What is secret is in no value of JSON, which would leave copies behind.
    let mut text = Zeroizing::new(String::new());
    text.push_str(&format!(
        "{{\n  \"$schema\": \"{SCHEMAS}/deploymentParameters.json#\",\n  \
         \"contentVersion\": \"1.0.0.0\",\n  \"parameters\": {{"
    ));
    let mut report = Report::default();
    for (i, name) in deployment.documents().into_iter().enumerate() {
        let Some(bytes) = documents.get(name) else {
            report.add(Finding::new(format!(
                "azure: there is no document of {name}"
            )));
            continue;
        };
        let encoded = Zeroizing::new(STANDARD.encode(bytes.as_slice()));
        let comma = if i == 0 { "" } else { "," };
        text.push_str(&format!(
            "{comma}\n    \"{}\": {{\n      \"value\": \"",
            parameter(name)
        ));
        text.push_str(&encoded);
        text.push_str("\"\n    }");
    }
    text.push_str("\n  }\n}\n");
    too_large("parameters", text.len(), &mut report);
    report.into_result()?;
    Ok(text)
}

fn too_large(what: &str, bytes: usize, report: &mut Report) {
    if bytes > BYTES {
        let message = format!(
            "azure: the {what} have {} bytes, and Azure takes {}",
            grouped(bytes),
            grouped(BYTES)
        );
        let help = "use pools, or nodeDocuments: by-hostname, that machines share a document";
        report.add(Finding::new(message).help(help));
    }
}

/// The name of a document's parameter: an identifier of JavaScript, which `-`
/// is not part of and `_` is no part of documents' names.
fn parameter(document: &str) -> String {
    format!("customData_{}", document.replace('-', "_"))
}

/// A resource of this deployment, as a function of template expressions.
fn resource_id(kind: &str, names: &[&str]) -> String {
    let names = names.join("', '");
    format!("resourceId('{kind}', '{names}')")
}

/// The same as an expression.
fn id(kind: &str, names: &[&str]) -> String {
    format!("[{}]", resource_id(kind, names))
}

/// A reference to a resource.
fn reference(kind: &str, names: &[&str]) -> Value {
    json!({"id": id(kind, names)})
}

/// What every resource has.
fn resource(
    deployment: &Deployment,
    kind: &str,
    version: &str,
    name: &str,
    depends_on: Vec<String>,
    properties: Value,
) -> Value {
    let mut resource = json!({
        "type": kind,
        "apiVersion": version,
        "name": name,
        "location": "[parameters('location')]",
        "tags": {TAG: deployment.cluster},
        "properties": properties
    });
    if !depends_on.is_empty() {
        resource["dependsOn"] = json!(depends_on);
    }
    resource
}

/// Zones as Azure writes them.
fn zones(zones: &[u8]) -> Value {
    zones.iter().map(u8::to_string).collect()
}
