//! Every resource of a template for Azure, by the published schemas of Azure
//! Resource Manager. They are no part of this repository: `$AZURE_SCHEMAS`
//! names a folder with them, laid out as in
//! Azure/azure-resource-manager-schemas; without it, a folder
//! shared/azure-schemas beside this repository is taken. (P46)

mod common;

use std::env;
use std::fs;
use std::path::PathBuf;

use boon::{Compiler, Draft, Schemas};
use common::azure::{parameters, rendered, template, variants};
use serde_json::{Value, json};

const PUBLIC: &str = "https://schema.management.azure.com/schemas";
const NETWORK: &str = "2024-05-01/Microsoft.Network.NRP.json";
const COMPUTE: &str = "2024-11-01/Microsoft.Compute.json";
const TEMPLATE: &str = "2019-04-01/deploymentTemplate.json";
const PARAMETERS: &str = "2019-04-01/deploymentParameters.json";

fn folder(test: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/azure-schemas");
    let folder = env::var_os("AZURE_SCHEMAS").map_or_else(|| beside.into(), PathBuf::from);
    if folder.join(NETWORK).exists() {
        return Some(folder);
    }
    common::skip(
        test,
        "no schemas of Azure: name their folder in AZURE_SCHEMAS",
    );
    None
}

/// The schemas let unknown keys pass; here they do not.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let open = object.contains_key("properties")
                && object.get("type") == Some(&json!("object"))
                && !object.contains_key("additionalProperties");
            if open {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            object.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

struct Validator {
    compiler: Compiler,
    schemas: Schemas,
}

impl Validator {
    fn new(folder: &std::path::Path) -> Self {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V4);
        let extensions = "2024-11-01/Microsoft.Compute.Extensions.json";
        for file in [
            NETWORK,
            COMPUTE,
            TEMPLATE,
            PARAMETERS,
            extensions,
            "common/definitions.json",
        ] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            let mut schema: Value = serde_json::from_str(&text).unwrap();
            if file == NETWORK || file == COMPUTE {
                // What every resource may have is said in the template's own schema.
                let resources = schema["resourceDefinitions"].as_object_mut().unwrap();
                for resource in resources.values_mut() {
                    resource["properties"]["dependsOn"] = json!({"type": "array"});
                }
                strict(&mut schema);
            }
            if file == TEMPLATE {
                // It names the schemas of all providers: each resource is judged by its own.
                schema["definitions"]["resource"] =
                    json!({"$ref": "#/definitions/ARMResourceBase"});
            }
            compiler
                .add_resource(&format!("{PUBLIC}/{file}"), schema)
                .unwrap();
        }
        Self {
            compiler,
            schemas: Schemas::new(),
        }
    }

    fn validate(&mut self, schema: &str, value: &Value) -> Result<(), String> {
        let location = format!("{PUBLIC}/{schema}");
        let index = self.compiler.compile(&location, &mut self.schemas).unwrap();
        let outcome = self.schemas.validate(value, index);
        outcome.map_err(|error| format!("{error:#}"))
    }

    fn resource(&mut self, resource: &Value) -> Result<(), String> {
        let kind = resource["type"].as_str().unwrap();
        let (provider, kind) = kind.split_once('/').unwrap();
        let file = match provider {
            "Microsoft.Network" => NETWORK,
            "Microsoft.Compute" => COMPUTE,
            other => panic!("no schema of {other}"),
        };
        self.validate(&format!("{file}#/resourceDefinitions/{kind}"), resource)
    }
}

#[test]
fn every_resource_is_as_its_schema_says() {
    let Some(folder) = folder("every_resource_is_as_its_schema_says") else {
        return;
    };
    let mut validator = Validator::new(&folder);
    let mut judged = 0;
    for (variant, settings) in variants() {
        let rendered = rendered(&settings);
        let template = template(&rendered);
        for resource in template["resources"].as_array().unwrap() {
            let outcome = validator.resource(resource);
            outcome.unwrap_or_else(|error| panic!("{variant}: {resource:#}\n{error}"));
            judged += 1;
        }
        for (schema, value) in [(TEMPLATE, &template), (PARAMETERS, &parameters(&rendered))] {
            let outcome = validator.validate(schema, value);
            outcome.unwrap_or_else(|error| panic!("{variant}: {schema}\n{error}"));
        }
    }
    assert!(judged > 60, "{judged}");
}

/// The judge is strict: what is misspelt, of another version or of a wrong kind
/// is refused, at any depth.
#[test]
fn what_is_wrong_is_refused() {
    let Some(folder) = folder("what_is_wrong_is_refused") else {
        return;
    };
    let mut validator = Validator::new(&folder);
    let good = template(&rendered(&variants()[0].1));
    let resource = |kind: &str| {
        let resources = good["resources"].as_array().unwrap();
        resources
            .iter()
            .find(|r| r["type"] == kind)
            .unwrap()
            .clone()
    };
    for (kind, place, wrong) in [
        (
            "Microsoft.Compute/virtualMachines",
            "/apiVersion",
            json!("2024-10-01"),
        ),
        (
            "Microsoft.Compute/virtualMachines",
            "/properties/osProfile/customdata",
            json!("a"),
        ),
        (
            "Microsoft.Network/networkInterfaces",
            "/properties/ipConfigurations/0/properties/primary",
            json!("yes"),
        ),
        (
            "Microsoft.Network/loadBalancers",
            "/properties/probes/0/properties/protocol",
            json!("TLS"),
        ),
        (
            "Microsoft.Network/networkSecurityGroups",
            "/properties/securityRules/0/properties/ports",
            json!([1]),
        ),
    ] {
        let mut resource = resource(kind);
        assert_eq!(validator.resource(&resource), Ok(()));
        let (parent, key) = place.rsplit_once('/').unwrap();
        resource.pointer_mut(parent).unwrap()[key] = wrong;
        assert!(validator.resource(&resource).is_err(), "{kind}{place}");
    }
}
