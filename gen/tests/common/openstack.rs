//! Clusters on OpenStack, and what was rendered for them.

use std::process::Output;

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

/// What clouds in tests take for passwords and tokens.
const SECRETS: [&str; 4] = ["hunter2", "hunter3", "a-token", "an-older-token"];

/// Runs `kgen openstack routes` with these variables and no others of OpenStack's; what is secret is
/// in nothing that it says.
pub fn routes(
    folder: &Folder,
    variables: &[(&str, &str)],
    words: &[&str],
) -> (i32, String, String) {
    let mut command = folder.kgen();
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OS_")) {
        command.env_remove(name);
    }
    let home = folder.path("home");
    let command = command
        .env("HOME", &home)
        .env_remove("XDG_CONFIG_HOME")
        .envs(variables.iter().copied())
        .args(["openstack", "routes"])
        .args(words);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (out, err) = (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    );
    for secret in SECRETS {
        assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
    }
    (status.code().unwrap(), out, err)
}
