//! containerd's configuration for the containerd that will read it.
//!
//! Source: containerd's documentation, "CRI plugin config guide" and
//! "containerd 2.0: migrating the configuration".

use serde_json::{Map, Value, json};

use super::toml;
use units::node_config::{CgroupDriver, Runtime};
use units::paths;

/// The CRI plugin of version 2 of the schema, and the two that it became.
const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";

/// The text, for a containerd of this major version; `None` is unknown, and
/// then it is the schema that every supported one reads.
pub fn text(runtime: &Runtime, major: Option<u32>) -> String {
    let mut over = runtime.config.clone();
    // The schema is that of the containerd that is there.
    over.remove("version");
    let (mut config, layers) = match major {
        Some(2..) => (version_3(runtime), vec![Value::Object(over)]),
        _ => (version_2(runtime), as_version_2(over)),
    };
    for layer in layers {
        lay_over(&mut config, layer);
    }
    let config = config.as_object().cloned().unwrap_or_default();
    format!(
        "# Written by knode; what the settings say comes back.\n{}",
        toml::document(&config)
    )
}

/// What 1.7 reads; 2.x translates it while reading.
fn version_2(runtime: &Runtime) -> Value {
    json!({"version": 2, "plugins": {CRI: {
        "sandbox_image": runtime.sandbox_image,
        "cni": cni(),
        "containerd": containerd(runtime),
        "registry": registry(),
    }}})
}

/// What 2.x reads as it is.
fn version_3(runtime: &Runtime) -> Value {
    json!({"version": 3, "plugins": {
        CRI_IMAGES: {
            "pinned_images": {"sandbox": runtime.sandbox_image},
            "registry": registry(),
        },
        CRI_RUNTIME: {"cni": cni(), "containerd": containerd(runtime)},
    }})
}

fn cni() -> Value {
    json!({"bin_dir": paths::CNI_BIN, "conf_dir": "/etc/cni/net.d"})
}

fn containerd(runtime: &Runtime) -> Value {
    let systemd = runtime.cgroup_driver == CgroupDriver::Systemd;
    json!({"runtimes": {"runc": {
        "runtime_type": "io.containerd.runc.v2",
        "options": {"SystemdCgroup": systemd},
    }}})
}

fn registry() -> Value {
    json!({"config_path": paths::REGISTRIES_DIR})
}

/// Settings in the names of version 3 say the same to a containerd 1.7: its
/// one plugin has the keys of both, and names the sandbox's image otherwise.
/// What is said in version 2's own name comes last and counts most.
fn as_version_2(mut over: Map<String, Value>) -> Vec<Value> {
    let mut layers = Vec::new();
    if let Some(plugins) = over.get_mut("plugins").and_then(Value::as_object_mut) {
        for name in [CRI_RUNTIME, CRI_IMAGES] {
            let Some(mut plugin) = plugins.remove(name) else {
                continue;
            };
            if let Some(plugin) = plugin.as_object_mut()
                && let Some(Value::Object(mut pinned)) = plugin.remove("pinned_images")
                && let Some(image) = pinned.remove("sandbox")
            {
                plugin.insert("sandbox_image".to_owned(), image);
            }
            layers.push(json!({"plugins": {CRI: plugin}}));
        }
    }
    layers.push(Value::Object(over));
    layers
}

/// Mappings key by key, other values as a whole; `null` takes one away
/// (RFC 7386).
fn lay_over(base: &mut Value, over: Value) {
    let Value::Object(over) = over else {
        *base = over;
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (key, value) in over {
        if value.is_null() {
            if let Some(base) = base.as_object_mut() {
                base.remove(&key);
            }
        } else {
            lay_over(&mut base[key.as_str()], value);
        }
    }
}

/// The major version in what `containerd --version` prints:
/// `containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b71…`.
pub fn major(printed: &str) -> Option<u32> {
    let version = printed.split_whitespace().nth(2)?;
    let (major, _) = version.trim_start_matches('v').split_once('.')?;
    major.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::NodeConfig;

    fn runtime(config: Value) -> Runtime {
        let sample = include_str!("../../../../units/testdata/node-v1.yaml");
        let sample: NodeConfig = serde_yaml::from_str(sample).unwrap();
        let mut runtime = sample.runtime.unwrap();
        runtime.config = config.as_object().cloned().unwrap();
        runtime
    }

    fn read(runtime: &Runtime, major: Option<u32>) -> Value {
        ::toml::from_str(&text(runtime, major)).unwrap()
    }

    #[test]
    fn each_containerd_gets_its_schema() {
        let plain = runtime(json!({}));
        for major in [None, Some(1)] {
            let config = read(&plain, major);
            assert_eq!(config["version"], 2);
            let cri = &config["plugins"][CRI];
            assert_eq!(cri["sandbox_image"], "registry.k8s.io/pause:3.10.1");
            assert_eq!(cri["cni"]["bin_dir"], "/opt/cni/bin");
            let runc = &cri["containerd"]["runtimes"]["runc"];
            assert_eq!(runc["options"]["SystemdCgroup"], true);
        }
        let config = read(&plain, Some(2));
        assert_eq!(config["version"], 3);
        let images = &config["plugins"][CRI_IMAGES];
        assert_eq!(
            images["pinned_images"]["sandbox"],
            "registry.k8s.io/pause:3.10.1"
        );
        assert_eq!(images["registry"]["config_path"], "/etc/containerd/certs.d");
        let runtime = &config["plugins"][CRI_RUNTIME];
        let runc = &runtime["containerd"]["runtimes"]["runc"];
        assert_eq!(runc["runtime_type"], "io.containerd.runc.v2");
    }

    #[test]
    fn settings_are_laid_over_key_by_key() {
        let config = runtime(json!({
            "version": 7,
            "debug": {"level": "debug"},
            "plugins": {CRI_RUNTIME: {
                "max_container_log_line_size": 16384,
                "cni": {"conf_dir": null, "bin_dir": "/opt/other"},
                "containerd": {"runtimes": {"kata": {"runtime_type": "io.containerd.kata.v2"}}},
            }, CRI_IMAGES: {"pinned_images": {"sandbox": "example.com/pause:1"}}},
        }));
        let new = read(&config, Some(2));
        assert_eq!(new["version"], 3);
        assert_eq!(new["debug"]["level"], "debug");
        let runtime = &new["plugins"][CRI_RUNTIME];
        assert_eq!(runtime["max_container_log_line_size"], 16384);
        assert_eq!(runtime["cni"], json!({"bin_dir": "/opt/other"}));
        let runtimes = &runtime["containerd"]["runtimes"];
        assert_eq!(runtimes["kata"]["runtime_type"], "io.containerd.kata.v2");
        assert_eq!(runtimes["runc"]["options"]["SystemdCgroup"], true);

        // The same settings mean the same to an old one.
        let old = read(&config, Some(1));
        assert_eq!(old["plugins"].as_object().unwrap().len(), 1);
        let cri = &old["plugins"][CRI];
        assert_eq!(cri["max_container_log_line_size"], 16384);
        assert_eq!(cri["sandbox_image"], "example.com/pause:1");
        assert_eq!(cri["cni"], json!({"bin_dir": "/opt/other"}));
        assert_eq!(
            cri["containerd"]["runtimes"]["kata"]["runtime_type"],
            "io.containerd.kata.v2"
        );
    }

    #[test]
    fn versions_are_read_from_what_they_print() {
        for (printed, expected) in [
            (
                "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193",
                Some(2),
            ),
            (
                "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4",
                Some(1),
            ),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(major(printed), expected, "{printed}");
        }
    }
}
