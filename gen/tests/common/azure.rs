//! Clusters on Azure, and what was rendered for them.

use serde_json::Value;

use super::{Folder, PUBLIC_KEY};

/// The settings in docs/azure.md: first the example, then the one with a pool.
pub fn documented() -> Vec<String> {
    let docs = include_str!("../../../docs/azure.md");
    let blocks = docs.split("```yaml\n").skip(1);
    let blocks: Vec<String> = blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect();
    assert_eq!(blocks.len(), 2);
    blocks
}

/// A master and a node; `azure` and `more` go into it.
pub fn small(azure: &str, more: &str) -> String {
    format!(
        "name: small\nserviceAccountKey: ecdsa-p256\nformat: cloud-init\nplatform: azure\nssh: {{authorizedKeys: ['{PUBLIC_KEY}']}}\n\
         azure: {{{azure}}}\n{more}\
         nodes:\n- {{name: m, role: master, address: 10.0.0.10}}\n\
         - {{name: n, role: node, address: 10.0.0.11}}\n"
    )
}

/// Every way in which what is made differs, by name.
pub fn variants() -> Vec<(&'static str, String)> {
    let documented = documented();
    vec![
        ("the example", documented[0].clone()),
        ("a pool", documented[1].clone()),
        ("nothing but defaults", small("vnet: 10.0.0.0/16", "")),
        (
            "routes",
            small(
                "sshFrom: [192.0.2.0/24, 198.51.100.7/32], diskGB: 64",
                "network: {mode: routed}\n",
            ),
        ),
        (
            "zones and a load balancer inside, with ssh",
            small(
                "zones: [2, 3], apiAddress: 10.0.0.100, sshFrom: [192.0.2.0/24], sshPorts: 40000, \
                 images: {amd64: /subscriptions/a/resourceGroups/b/providers/Microsoft.Compute/images/c}",
                "",
            ),
        ),
        (
            "one document for all nodes",
            small(
                "images: {amd64: /CommunityGalleries/a/Images/b/Versions/latest}",
                "nodeDocuments: by-hostname\n",
            ),
        ),
    ]
}

/// A folder in which this was rendered.
pub fn rendered(settings: &str) -> Folder {
    let folder = Folder::with(settings);
    super::beside(&folder);
    folder.run(&["render", "-o", "out"]);
    folder
}

/// The template in it.
pub fn template(folder: &Folder) -> Value {
    serde_json::from_str(&folder.read("out/azure/template.json")).unwrap()
}

/// The parameters in it.
pub fn parameters(folder: &Folder) -> Value {
    serde_json::from_str(&folder.read("out/azure/parameters.json")).unwrap()
}

/// The resources of a type.
pub fn of_type<'t>(template: &'t Value, kind: &str) -> Vec<&'t Value> {
    let resources = template["resources"].as_array().unwrap();
    resources.iter().filter(|r| r["type"] == kind).collect()
}
