//! In a template for Azure every reference leads to something, everything is
//! there before what refers to it, and names are unique. (P46)

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::azure::{rendered, template, variants};
use serde_json::Value;

/// Where children of a resource stand in it.
const CHILDREN: [(&str, &str); 6] = [
    ("subnets", "subnets"),
    ("frontendIPConfigurations", "frontendIPConfigurations"),
    ("backendAddressPools", "backendAddressPools"),
    ("probes", "probes"),
    ("inboundNatRules", "inboundNatRules"),
    ("routes", "routes"),
];

/// `TYPE/NAME/NAME` of each `resourceId('TYPE', 'NAME', …)` in a text.
fn ids(text: &str) -> Vec<(String, Vec<String>)> {
    let calls = text.split("resourceId(").skip(1);
    calls
        .map(|call| {
            let call = call.split(')').next().unwrap();
            let mut words = call.split(", ").map(|word| {
                let word = word.strip_prefix('\'').and_then(|w| w.strip_suffix('\''));
                word.unwrap_or_else(|| panic!("not a literal: {call}"))
                    .to_owned()
            });
            (words.next().unwrap(), words.collect())
        })
        .collect()
}

/// Whether a resource, or a child of one, is in the template; the resource.
fn find<'t>(template: &'t Value, kind: &str, names: &[String]) -> Option<&'t Value> {
    let resources = template["resources"].as_array().unwrap();
    let parts: Vec<&str> = kind.split('/').collect();
    // Microsoft.Network/loadBalancers/probes has a name for all but the first.
    assert_eq!(parts.len() - 1, names.len(), "{kind}: {names:?}");
    let parent = parts[..2].join("/");
    let found = resources
        .iter()
        .find(|r| r["type"] == *parent && r["name"] == *names[0])?;
    if let Some(child) = parts.get(2) {
        let (_, key) = CHILDREN.iter().find(|(kind, _)| kind == child).unwrap();
        let children = found["properties"][key].as_array()?;
        children.iter().find(|c| c["name"] == *names[1])?;
    }
    Some(found)
}

fn key(resource: &Value) -> String {
    format!(
        "{}/{}",
        resource["type"].as_str().unwrap(),
        resource["name"].as_str().unwrap()
    )
}

#[test]
fn every_reference_resolves_and_is_waited_for() {
    let mut references = 0;
    for (variant, settings) in variants() {
        let template = template(&rendered(&settings));
        for resource in template["resources"].as_array().unwrap() {
            let own = key(resource);
            let depends_on: BTreeSet<String> = resource["dependsOn"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|on| {
                    let on = on.as_str().unwrap();
                    assert!(on.starts_with("[resourceId(") && on.ends_with(")]"), "{on}");
                    let (kind, names) = ids(on).remove(0);
                    let found = find(&template, &kind, &names);
                    key(found.unwrap_or_else(|| panic!("{variant}: {own} waits for {on}")))
                })
                .collect();
            let mut referred = BTreeSet::new();
            for (kind, names) in ids(&resource["properties"].to_string()) {
                let found = find(&template, &kind, &names);
                let found = found.unwrap_or_else(|| panic!("{variant}: {own}: {kind} {names:?}"));
                referred.insert(key(found));
                references += 1;
            }
            // What it refers to in itself is there with it.
            referred.remove(&own);
            assert_eq!(referred, depends_on, "{variant}: {own}");
        }
        for (kind, names) in ids(&template["outputs"].to_string()) {
            assert!(
                find(&template, &kind, &names).is_some(),
                "{variant}: {kind}"
            );
        }
    }
    assert!(references > 100, "{references}");
}

/// Resources can be made one after the other.
#[test]
fn nothing_waits_for_itself() {
    for (variant, settings) in variants() {
        let template = template(&rendered(&settings));
        let mut waiting: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for resource in template["resources"].as_array().unwrap() {
            let on = ids(&resource["dependsOn"].to_string());
            let on = on
                .into_iter()
                .map(|(kind, names)| format!("{kind}/{}", names[0]));
            waiting.insert(key(resource), on.collect());
        }
        while !waiting.is_empty() {
            let ready: BTreeSet<String> = waiting
                .iter()
                .filter(|(_, on)| on.iter().all(|on| !waiting.contains_key(on)))
                .map(|(name, _)| name.clone())
                .collect();
            assert!(!ready.is_empty(), "{variant}: {waiting:?}");
            waiting.retain(|name, _| !ready.contains(name));
        }
    }
}

/// Every name within a list, at any depth.
fn names_within(value: &Value, path: &str) {
    if let Some(list) = value.as_array() {
        let names: Vec<String> = list
            .iter()
            .filter_map(|item| {
                let name = item["name"].as_str()?.to_ascii_lowercase();
                Some(format!(
                    "{}/{name}",
                    item["type"].as_str().unwrap_or_default()
                ))
            })
            .collect();
        let unique: BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{path}: {names:?}");
    }
    let below = value.as_object().into_iter().flatten();
    below.for_each(|(key, value)| names_within(value, &format!("{path}.{key}")));
    let items = value.as_array().into_iter().flatten().enumerate();
    items.for_each(|(i, value)| names_within(value, &format!("{path}[{i}]")));
}

#[test]
fn names_are_unique_and_are_such_as_azure_takes() {
    for (variant, settings) in variants() {
        let template = template(&rendered(&settings));
        names_within(&template, variant);
        for resource in template["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            assert!((1..=64).contains(&name.len()), "{variant}: {name}");
            assert!(
                name.bytes().all(good) && !name.ends_with('-'),
                "{variant}: {name}"
            );
            assert_eq!(resource["location"], "[parameters('location')]");
        }
    }
}
