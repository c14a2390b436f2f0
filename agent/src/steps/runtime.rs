//! The container runtime: its configuration, its start, and that it really
//! answers (F4, F27).

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{name, services};
use crate::error::{Code, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::cri;
use units::node_config::{self, CgroupDriver, Service};
use units::paths;

/// How long containerd may take to answer after its start.
const ANSWER: Duration = Duration::from_secs(20);

/// What containerd needs to start and to run a container.
const PROGRAMS: [&str; 3] = [
    "/opt/kubernetes/bin/containerd",
    "/opt/kubernetes/bin/containerd-shim-runc-v2",
    "/opt/kubernetes/bin/runc",
];

pub struct Runtime;

impl Step<Machine> for Runtime {
    fn name(&self) -> &'static str {
        name::RUNTIME
    }

    fn after(&self) -> &[&'static str] {
        &[name::KERNEL]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let Some(runtime) = &machine.config.runtime else {
                return Ok("none on this machine".to_owned());
            };
            machine.until_installed(name::RUNTIME, &PROGRAMS).await;
            let text = configuration(runtime);
            let path = paths::CONTAINERD_CONFIG;
            let changed = machine.root.write_atomic(path, text.as_bytes(), 0o644)?;
            let bus = services::connect().await?;
            // A distribution's containerd may run since boot, with its own
            // configuration: ours is in force once we started it.
            let if_active = if changed.is_changed() {
                services::IfActive::Restart
            } else {
                services::IfActive::Leave
            };
            services::ensure_active(&bus, Service::Containerd, if_active).await?;
            answering(machine).await
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(tokio::time::sleep(Duration::from_secs(15)))
    }
}

/// Asks over its socket until it answers; a started unit is not enough.
async fn answering(machine: &Machine) -> Result<String> {
    let socket = machine.root.path(Path::new(paths::CONTAINERD_SOCKET));
    let ask = async {
        loop {
            match cri::version(&socket).await {
                Ok(version) => return version,
                Err(error) => machine.status.detail(name::RUNTIME, error.story()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(ANSWER, ask).await.map_err(|_| {
        Error::new(
            Code::Runtime,
            format!("containerd does not answer after {} s", ANSWER.as_secs()),
        )
    })
}

/// containerd's configuration, version 2 of its schema: 1.7 reads it as it
/// is, 2.x translates it while reading.
/// Source: containerd's documentation, "CRI plugin config guide".
fn configuration(runtime: &node_config::Runtime) -> String {
    let image = &runtime.sandbox_image;
    let systemd = runtime.cgroup_driver == CgroupDriver::Systemd;
    let bin = paths::CNI_BIN;
    format!(
        r#"# Written by knode; what the settings say comes back.
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{bin}"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"#
    )
}
