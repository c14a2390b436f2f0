//! Where each service tells its health, as this machine's configuration has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use crate::error::{Code, Context as _, Error, Result};
use crate::sys::kubeconfig::Kubeconfig;
use units::node_config::Service;
use units::paths;

/// The controller manager talks to this master's own API server.
const CONTROLLER_MANAGER: &str = "/etc/kubernetes/controller-manager.conf";

/// What Docker is asked on its socket.
/// Source: Docker Engine API, "Ping".
pub const DOCKER_PING: &str = "http://docker/_ping";

/// How a service is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By GET; anything from 200 to 299 is healthy.
    Url(String),
    /// By CRI's Version call on containerd's socket.
    Cri,
    /// By [`DOCKER_PING`] on Docker's socket.
    Docker,
}

/// The file that tells where a service is asked, where one does.
pub fn file(service: Service) -> Option<&'static str> {
    match service {
        Service::KubeApiserver => Some(CONTROLLER_MANAGER),
        Service::Kubelet => Some(paths::KUBELET_CONFIG),
        Service::KubeProxy => Some(paths::KUBE_PROXY_CONFIG),
        _ => None,
    }
}

/// Where to ask a service, by what its [`file`] holds; `None` where it has
/// nothing to ask.
///
/// # Errors
///
/// [`Code::ConfigInvalid`], [`Code::IdentityCert`]: the file does not tell.
pub fn of(service: Service, text: &str) -> Result<Option<Place>> {
    let url = match service {
        Service::Containerd => return Ok(Some(Place::Cri)),
        Service::Docker => return Ok(Some(Place::Docker)),
        // A ring that lacks its quorum is not cured by restarting a member.
        Service::Etcd => {
            "http://127.0.0.1:2381/health?serializable=true&exclude=NOSPACE".to_owned()
        }
        Service::KubeApiserver => {
            let server = Kubeconfig::parse(text)?.server;
            // Nor is a store that is away by restarting who asks it.
            format!("{}/livez?exclude=etcd", server.trim_end_matches('/'))
        }
        Service::KubeControllerManager => "https://127.0.0.1:10257/healthz".to_owned(),
        Service::KubeScheduler => "https://127.0.0.1:10259/healthz".to_owned(),
        Service::Kubelet => match kubelet(text)? {
            Some(url) => url,
            None => return Ok(None),
        },
        Service::KubeProxy => kube_proxy(text)?,
    };
    Ok(Some(Place::Url(url)))
}

/// Source: Kubernetes API, kubelet.config.k8s.io/v1beta1.
fn kubelet(text: &str) -> Result<Option<String>> {
    let config = configuration(text, paths::KUBELET_CONFIG)?;
    let port = config["healthzPort"].as_u64().unwrap_or(10248);
    let address = config["healthzBindAddress"].as_str();
    let address: Option<IpAddr> = address.unwrap_or("127.0.0.1").parse().ok();
    let address = address.zip(u16::try_from(port).ok());
    let address = address.ok_or_else(|| no_address(paths::KUBELET_CONFIG))?;
    // Port 0 is none.
    Ok((port != 0).then(|| format!("http://{}/healthz", reachable(address.into()))))
}

/// Where kube-proxy tells its health, by its configuration's text.
/// Source: Kubernetes API, kubeproxy.config.k8s.io/v1alpha1.
///
/// # Errors
///
/// [`Code::ConfigInvalid`]: its configuration does not tell.
pub fn kube_proxy(text: &str) -> Result<String> {
    let config = configuration(text, paths::KUBE_PROXY_CONFIG)?;
    let address = match config["healthzBindAddress"].as_str() {
        Some(address) => address.parse().ok(),
        None => Some(SocketAddr::from(([0, 0, 0, 0], 10256))),
    };
    let address = address.ok_or_else(|| no_address(paths::KUBE_PROXY_CONFIG))?;
    Ok(format!("http://{}/livez", reachable(address)))
}

fn configuration(text: &str, path: &str) -> Result<Value> {
    serde_yaml::from_str(text).context(Code::ConfigInvalid, || format!("reading {path}"))
}

fn no_address(path: &str) -> Error {
    let what = format!("reading {path}: where health is told is no address");
    Error::new(Code::ConfigInvalid, what)
}

/// Where to connect to reach what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_asked_where_their_configuration_says() {
        let url = |text: &str| Some(Place::Url(text.to_owned()));
        let proxy = |text: &str| of(Service::KubeProxy, text);
        let kubelet = |text: &str| of(Service::Kubelet, text);
        let usual = "kind: KubeProxyConfiguration\n";
        assert_eq!(proxy(usual).unwrap(), url("http://127.0.0.1:10256/livez"));
        let own = "healthzBindAddress: '[::]:1234'\n";
        assert_eq!(proxy(own).unwrap(), url("http://[::1]:1234/livez"));
        assert!(proxy("healthzBindAddress: x\n").is_err());
        let usual = "kind: KubeletConfiguration\n";
        assert_eq!(
            kubelet(usual).unwrap(),
            url("http://127.0.0.1:10248/healthz")
        );
        assert_eq!(kubelet("healthzPort: 0\n").unwrap(), None);
        assert!(kubelet("healthzPort: 70000\n").is_err());
        assert!(of(Service::KubeApiserver, "").is_err());
    }
}
