//! The machine's own way to all API servers, where there is no other (B7).

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::name;
use crate::balancer::{self, Health, ServerReport, listing};
use crate::check;
use crate::error::{Code, Context, Error, Result};
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::listen;
use units::node_config::{self, Service};

/// How often the cluster is asked which API servers it has, about.
const LIST: Duration = Duration::from_secs(30);

pub struct Balancer {
    settings: node_config::Balancer,
    running: Lasting,
}

/// The balancer as it goes on from one node.yaml to the next: who has a
/// connection through it keeps it.
#[derive(Debug, Clone, Default)]
pub struct Lasting(Arc<Mutex<Option<Running>>>);

impl Lasting {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the balancer that an earlier node.yaml had, if there is one; says
    /// whether there was.
    pub fn end(&self, machine: &Machine) -> bool {
        let ended = self.running().take().is_some();
        if ended {
            listen::forget();
            machine.status.api_servers(Vec::new());
        }
        ended
    }
}

/// The balancer, and the task that tells how its servers are.
#[derive(Debug)]
struct Running {
    settings: node_config::Balancer,
    balancer: balancer::Balancer,
    telling: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.telling.abort();
    }
}

impl Step<Machine> for Balancer {
    fn name(&self) -> &'static str {
        name::BALANCER
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    /// Done when there is a server to go to. Until then the port is open
    /// already: that none is healthy is waiting, and no failure.
    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let mut reports = self.start(machine)?;
            loop {
                let report = reports.borrow_and_update().clone();
                if any_healthy(&report) {
                    return Ok(summary(&report));
                }
                machine.status.detail(name::BALANCER, waiting(&report));
                changed(&mut reports).await;
            }
        })
    }

    /// Keeps the list fresh until no server is healthy.
    fn again<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Ok(mut reports) = self.start(machine) else {
                return;
            };
            let mut next = Duration::ZERO;
            while any_healthy(&reports.borrow_and_update().clone()) {
                tokio::select! {
                    () = tokio::time::sleep(next) => {
                        self.list(machine).await;
                        next = LIST.mul_f64(0.5 + fastrand::f64());
                    }
                    () = changed(&mut reports) => {
                        let report = reports.borrow().clone();
                        if any_healthy(&report) {
                            machine.status.detail(name::BALANCER, summary(&report));
                        }
                    }
                }
            }
        })
    }
}

impl Balancer {
    pub fn new(settings: node_config::Balancer, running: Lasting) -> Self {
        Self { settings, running }
    }

    /// Starts it, once; one that runs at this port gets other servers.
    fn start(&self, machine: &Machine) -> Result<Reports> {
        let mut running = self.running.running();
        let address = self.settings.listen;
        if let Some(running) = running.as_mut()
            && running.settings.listen == address
        {
            if running.settings != self.settings {
                running.balancer.known(&self.settings.servers);
                running.settings.clone_from(&self.settings);
            }
            return Ok(running.balancer.reports());
        }
        *running = None;
        if !address.ip().is_loopback() {
            return Err(Error::new(
                Code::ConfigInvalid,
                format!("the balancer would listen on {address}, which is not loopback"),
            ));
        }
        let doing = || format!("listening on {address} for the balancer");
        let listener = match listen::tcp(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let holder = check::holder(&machine.root, address.port());
                let holder = holder.unwrap_or_else(|| "another program".to_owned());
                return Err(Error::new(
                    Code::Port,
                    format!("the balancer's port {address} is taken by {holder}"),
                ));
            }
            outcome => outcome.context(Code::Connect, doing)?,
        };
        let root = machine.root.clone();
        let balancer = balancer::Balancer::start(listener, &self.settings.servers, root)?;
        balancer.found(&listing::kept(&machine.root));
        prefer_own(&balancer, machine);
        let (mut reports, status) = (balancer.reports(), machine.status.clone());
        let telling = tokio::spawn(async move {
            loop {
                status.api_servers(reports.borrow_and_update().clone());
                changed(&mut reports).await;
            }
        });
        let reports = balancer.reports();
        *running = Some(Running {
            settings: self.settings.clone(),
            balancer,
            telling,
        });
        Ok(reports)
    }

    /// Asks the cluster for its servers. A machine that may not know, or not
    /// yet, goes on with what it has.
    async fn list(&self, machine: &Machine) {
        // kube-proxy may see endpoints; a kubelet may not by itself.
        let asked = match machine.proxy_api() {
            Ok(api) => listing::ask(&api, &machine.root).await,
            Err(error) => Err(error),
        };
        let running = self.running.running();
        let Some(running) = running.as_ref() else {
            return;
        };
        prefer_own(&running.balancer, machine);
        match asked {
            Ok(servers) => running.balancer.found(&servers),
            Err(error) => tracing::debug!(
                code = %error.code(),
                "asking for the API servers: {}",
                error.story()
            ),
        }
    }
}

/// A master goes to its own API server while that is healthy.
fn prefer_own(balancer: &balancer::Balancer, machine: &Machine) {
    if !machine.runs(Service::KubeApiserver) {
        return;
    }
    let known = machine.addresses.borrow().clone().unwrap_or_default();
    balancer.prefer(&[machine.config.node.addresses.as_slice(), &known].concat());
}

type Reports = tokio::sync::watch::Receiver<Vec<ServerReport>>;

async fn changed(reports: &mut Reports) {
    // The sender lives in the balancer, as long as this step does.
    if reports.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn any_healthy(report: &[ServerReport]) -> bool {
    report.iter().any(|server| server.health == Health::Healthy)
}

/// How many are healthy, and which are not.
fn summary(report: &[ServerReport]) -> String {
    let healthy = report
        .iter()
        .filter(|s| s.health == Health::Healthy)
        .count();
    let mut text = format!("{healthy} of {} API servers healthy", report.len());
    for server in report.iter().filter(|s| s.health == Health::Out) {
        text.push_str(&format!("; {} is out", server.server));
    }
    text
}

/// That none is, and why.
fn waiting(report: &[ServerReport]) -> String {
    let reasons: Vec<String> = report
        .iter()
        .map(|server| match server.reason.as_str() {
            "" => format!("{}: not asked yet", server.server),
            reason => format!("{}: {reason}", server.server),
        })
        .collect();
    format!(
        "{}: no API server is healthy: {}",
        Code::ApiUnreachable,
        reasons.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;
    use crate::sys::root::Root;
    use units::NodeConfig;

    fn machine(folder: &tempfile::TempDir) -> Machine {
        let sample = include_str!("../../../units/testdata/node-v1.yaml");
        let config: NodeConfig = serde_yaml::from_str(sample).unwrap();
        let name = config.node.name.clone().unwrap();
        std::fs::create_dir_all(folder.path().join("run/knode")).unwrap();
        let root = Root::new(folder.path());
        let status = Status::new(root.clone(), [name::BALANCER]);
        Machine::new(config, name, root, status)
    }

    fn step(listen: std::net::SocketAddr) -> Balancer {
        let settings = node_config::Balancer {
            listen,
            servers: vec!["127.0.0.1:1".to_owned()],
        };
        Balancer::new(settings, Lasting::default())
    }

    #[tokio::test]
    async fn a_port_that_is_taken_and_one_for_everybody_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(&folder);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = step(address).converge(&machine).await.unwrap_err();
        assert_eq!(error.code(), Code::Port);
        assert!(
            error.story().contains(&address.to_string()),
            "{}",
            error.story()
        );
        let open = step("0.0.0.0:7443".parse().unwrap());
        let error = open.converge(&machine).await.unwrap_err();
        assert_eq!(error.code(), Code::ConfigInvalid);
    }

    /// P55: a machine may boot before its masters exist.
    #[tokio::test]
    async fn without_a_server_it_waits_and_says_for_what() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(&folder);
        let step = step("127.0.0.1:0".parse().unwrap());
        let waits = step.converge(&machine);
        let limit = Duration::from_secs(2);
        assert!(tokio::time::timeout(limit, waits).await.is_err());
        machine.status.read(|report| {
            let detail = &report.steps[0].detail;
            assert!(detail.starts_with("E-API-UNREACHABLE"), "{detail}");
            assert!(detail.contains("127.0.0.1:1: E-"), "{detail}");
            assert_eq!(report.api_servers[0].health, Health::Out);
        });
    }

    /// Who is connected stays so while node.yaml changes.
    #[tokio::test]
    async fn another_node_yaml_keeps_the_port_and_changes_the_servers() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(&folder);
        // A port that is free, most likely still when it is listened at.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = free.local_addr().unwrap();
        drop(free);
        let lasting = Lasting::default();
        let step = |servers: &[&str]| {
            let servers = servers.iter().map(|s| (*s).to_owned()).collect();
            Balancer::new(node_config::Balancer { listen, servers }, lasting.clone())
        };
        let names = |reports: &Reports| -> Vec<String> {
            reports.borrow().iter().map(|s| s.server.clone()).collect()
        };
        let first = step(&["127.0.0.1:1", "127.0.0.1:2"]);
        let reports = first.start(&machine).unwrap();
        drop(first);
        let second = step(&["127.0.0.1:2", "127.0.0.1:3"]);
        let again = second.start(&machine).unwrap();
        assert!(again.same_channel(&reports), "it is the same balancer");
        assert_eq!(names(&again), ["127.0.0.1:2", "127.0.0.1:3"]);
        drop(second);
        assert!(std::net::TcpStream::connect(listen).is_ok());
        assert!(lasting.end(&machine));
        assert!(!lasting.end(&machine), "it was ended");
    }
}
