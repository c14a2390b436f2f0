//! What the kubelet runs as static pods: what they need of the machine, and how
//! they are, asked of the container runtime, as there may be no API server yet
//! (P36).

use std::time::Duration;

use serde_json::Value;

use super::name;
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::sys::cri::{Container, Runtime};
use crate::sys::root::Root;
use units::node_config::Service;
use units::paths;

/// How long a pod may be on its way before that counts as a failure: its
/// image may have to be pulled.
const PATIENCE: Duration = Duration::from_secs(60);
/// The namespace of the cluster's own pods.
const NAMESPACE: &str = "kube-system";
/// Where images of operating systems have the authorities that they trust.
/// Source: Go, crypto/x509, root_linux.go.
const AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Makes the folders that manifests name, for root alone where they have to
/// be; the kubelet would open them to everybody.
///
/// # Errors
///
/// [`Code::Disk`], [`Code::DiskFull`].
pub fn prepare(root: &Root, pods: &[Service]) -> Result<()> {
    if pods.contains(&Service::Etcd) {
        root.create_dir(paths::ETCD_DATA, 0o700)?;
    }
    root.create_dir(paths::KUBERNETES_LOG, 0o700)?;
    root.create_dir(paths::TRUSTED, 0o755)?;
    for path in AUTHORITIES {
        if let Some(bundle) = root.read_if_exists(path)? {
            let kept = format!("{}/ca-certificates.crt", paths::TRUSTED);
            root.write_atomic(kept, &bundle, 0o644)?;
            break;
        }
    }
    Ok(())
}

/// Waits for what a pod has to bring about, for a while.
///
/// # Errors
///
/// That of `done`; [`Code::StaticPod`] with the container's state.
pub async fn patiently<T>(
    machine: &Machine,
    service: Service,
    done: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(PATIENCE, done).await {
        Ok(done) => done,
        Err(_) => {
            let state = state(machine, service).await;
            let after = PATIENCE.as_secs();
            let story = format!("{service} does not answer after {after} s: {state}");
            Err(Error::new(Code::StaticPod, story))
        }
    }
}

/// Waits until a pod's container runs.
///
/// # Errors
///
/// [`Code::Runtime`], [`Code::StaticPod`].
pub async fn until_running(machine: &Machine, step: &str, service: Service) -> Result<()> {
    let running = async {
        loop {
            let newest = newest(machine, service).await?;
            if newest.as_ref().is_some_and(|container| container.running) {
                return Ok(());
            }
            machine
                .status
                .detail(step, describe(service, newest.as_ref()));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    patiently(machine, service, running).await
}

/// Waits until the kubelet has told how many pods its machine takes. One that
/// is restarted before goes by the Node as it was born, which takes none, and
/// would end its static pods for good.
///
/// # Errors
///
/// [`Code::NotReady`], and as every request; see [`crate::sys::api::Api::get`].
pub async fn until_reported(machine: &Machine) -> Result<()> {
    let api = machine.kubelet_api()?;
    let path = format!("/api/v1/nodes/{}", machine.name);
    let reported = async {
        while !takes_pods(&api.get(&path).await?.unwrap_or_default()) {
            let waiting = "waiting for the kubelet to report what the machine takes";
            machine.status.detail(name::START, waiting);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, reported)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                Code::NotReady,
                "the kubelet has not reported what the machine takes: see its journal",
            ))
        })
}

fn takes_pods(node: &Value) -> bool {
    let pods = node["status"]["allocatable"]["pods"].as_str();
    pods.is_some_and(|pods| pods != "0")
}

/// Ends a pod's container, which the kubelet starts anew; says whether there
/// was one.
///
/// # Errors
///
/// [`Code::Runtime`].
pub async fn restart(machine: &Machine, service: Service) -> Result<bool> {
    match newest(machine, service).await? {
        Some(container) if container.running => {
            runtime(machine)?.stop(&container.id).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// How a pod is, in words.
async fn state(machine: &Machine, service: Service) -> String {
    match newest(machine, service).await {
        Ok(newest) => describe(service, newest.as_ref()),
        Err(error) => error.story(),
    }
}

async fn newest(machine: &Machine, service: Service) -> Result<Option<Container>> {
    let containers = runtime(machine)?.containers().await?;
    let name = service.to_string();
    let mut containers = containers.into_iter();
    Ok(containers.find(|found| found.name == name && found.namespace == NAMESPACE))
}

fn runtime(machine: &Machine) -> Result<Runtime> {
    Runtime::at(machine.root.path(paths::CONTAINERD_SOCKET))
}

fn describe(service: Service, newest: Option<&Container>) -> String {
    match newest {
        None => format!(
            "there is no container {service} yet; kubelet.service's journal tells whether its \
             image is there"
        ),
        Some(container) => {
            let attempt = container.attempt;
            let how = if container.running {
                "runs"
            } else {
                "has ended"
            };
            format!(
                "container {service} {how}, made {} times: see \
                 /var/log/pods/{NAMESPACE}_{service}-*/{service}/{attempt}.log",
                attempt + 1
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_as_open_as_those_of_services() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.create_dir("/etc/pki/tls/certs", 0o755).unwrap();
        root.write_atomic(AUTHORITIES[1], b"some", 0o644).unwrap();
        prepare(&root, &[Service::Etcd, Service::KubeApiserver]).unwrap();
        let mode = |path: &str| root.stat(path).unwrap().unwrap().mode;
        assert_eq!(mode(paths::ETCD_DATA), 0o700);
        assert_eq!(mode(paths::KUBERNETES_LOG), 0o700);
        let bundle = format!("{}/ca-certificates.crt", paths::TRUSTED);
        assert_eq!(root.read_to_string(bundle).unwrap(), "some");

        let without = tempfile::tempdir().unwrap();
        let root = Root::new(without.path());
        prepare(&root, &[Service::KubeApiserver]).unwrap();
        assert!(!root.exists(paths::ETCD_DATA).unwrap());
        assert!(root.exists(paths::TRUSTED).unwrap());
    }

    #[test]
    fn a_node_as_it_was_born_takes_no_pods() {
        let node = |allocatable| serde_json::json!({"status": {"allocatable": allocatable}});
        assert!(!takes_pods(
            &serde_json::json!({"status": {"addresses": []}})
        ));
        assert!(!takes_pods(&node(serde_json::json!({"pods": "0"}))));
        assert!(takes_pods(&node(serde_json::json!({"pods": "110"}))));
    }

    #[test]
    fn a_pod_that_does_not_come_up_is_named() {
        let none = describe(Service::Etcd, None);
        assert!(none.contains("no container etcd"), "{none}");
    }
}
