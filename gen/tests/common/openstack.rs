//! Clusters on OpenStack, and what was rendered for them.

use serde_json::Value;

use super::{Folder, PUBLIC_KEY};

/// The settings in docs/openstack.md: first the example, then the one with a
/// load balancer and a pool.
pub fn documented() -> Vec<String> {
    let docs = include_str!("../../../docs/openstack.md");
    let blocks = docs.split("```yaml\n").skip(1);
    let blocks: Vec<String> = blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect();
    assert_eq!(blocks.len(), 2);
    blocks
}

/// A master and a node; `openstack` and `more` go into it.
pub fn small(openstack: &str, more: &str) -> String {
    format!(
        "name: small\nformat: cloud-init\nplatform: openstack\nssh: {{authorizedKeys: ['{PUBLIC_KEY}']}}\n\
         openstack: {{{openstack}}}\n{more}\
         nodes:\n- {{name: m, role: master, address: 10.0.0.10}}\n\
         - {{name: n, role: node, address: 10.0.0.11}}\n"
    )
}

/// A folder in which this was rendered.
pub fn rendered(settings: &str) -> Folder {
    let folder = Folder::with(settings);
    super::beside(&folder);
    folder.run(&["render", "-o", "out"]);
    folder
}

/// A file of it, read as YAML.
pub fn yaml(folder: &Folder, file: &str) -> Value {
    serde_yaml::from_str(&folder.read(&format!("out/openstack/{file}"))).unwrap()
}
