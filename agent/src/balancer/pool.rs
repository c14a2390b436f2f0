//! Which servers there are, how they are, and whose turn it is.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many answers in a row bring a server back.
const SUCCESSES: u32 = 2;
/// Within this time a server that goes out again has to answer twice as often.
const FLAPPING: Duration = Duration::from_secs(60);
/// How often that doubles.
const DOUBLINGS: u32 = 3;
/// How many failures in a row close what is open; one is enough for new
/// connections to go elsewhere.
const FAILURES: u32 = 2;

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Healthy,
    /// It does not; only tried where none is healthy.
    Out,
}

/// What is told of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerReport {
    /// `HOST:PORT`.
    pub server: String,
    /// How it is.
    pub health: Health,
    /// Why it is out: a code and its story. Empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// `HOST:PORT`.
    pub name: String,
    /// Where it is; empty while its name has not been resolved.
    pub addresses: Vec<SocketAddr>,
}

/// The servers.
#[derive(Debug)]
pub(super) struct Pool {
    servers: Vec<Server>,
    own: Vec<IpAddr>,
    /// Whose turn it is among equals.
    turn: usize,
}

#[derive(Debug)]
struct Server {
    name: String,
    addresses: Vec<SocketAddr>,
    /// From node.yaml, so it stays.
    fixed: bool,
    health: Health,
    reason: String,
    /// In a row.
    successes: u32,
    /// In a row.
    failures: u32,
    went_out: Option<Instant>,
    /// How often it went out, each time soon after the last.
    flaps: u32,
    connections: usize,
    /// Closes its connections.
    close: CancellationToken,
    /// It was seen to fail: ask it now.
    look: Arc<Notify>,
}

impl Server {
    fn new(name: &str, fixed: bool) -> Self {
        Self {
            name: name.to_owned(),
            addresses: name.parse().into_iter().collect(),
            fixed,
            health: Health::Unknown,
            reason: String::new(),
            successes: 0,
            failures: 0,
            went_out: None,
            flaps: 0,
            connections: 0,
            close: CancellationToken::new(),
            look: Arc::default(),
        }
    }

    /// How many answers in a row bring it back.
    fn needed(&self) -> u32 {
        SUCCESSES << self.flaps.min(DOUBLINGS)
    }
}

impl Pool {
    pub fn new(servers: &[String]) -> Self {
        let mut pool = Self {
            servers: Vec::new(),
            own: Vec::new(),
            turn: 0,
        };
        for name in servers {
            if pool.find(name).is_none() {
                pool.servers.push(Server::new(name, true));
            }
        }
        pool
    }

    /// Those of the settings and these; whether that is another set. An empty
    /// list is a cluster that does not know itself yet.
    pub fn found(&mut self, names: &[String]) -> bool {
        if names.is_empty() {
            return false;
        }
        let before = self.servers.len();
        self.servers.retain(|server| {
            let stays = server.fixed || names.contains(&server.name);
            if !stays {
                server.close.cancel();
            }
            stays
        });
        let mut changed = self.servers.len() != before;
        for name in names {
            // One that the settings know by its name is there already.
            let address: Option<SocketAddr> = name.parse().ok();
            let known = self.servers.iter().any(|server| {
                server.name == *name || address.is_some_and(|a| server.addresses.contains(&a))
            });
            if !known {
                self.servers.push(Server::new(name, false));
                changed = true;
            }
        }
        changed
    }

    /// The settings have these now; whether that is another set. Those found in
    /// the cluster stay until it is asked again.
    pub fn known(&mut self, names: &[String]) -> bool {
        let before = self.servers.len();
        self.servers.retain(|server| {
            let stays = !server.fixed || names.contains(&server.name);
            if !stays {
                server.close.cancel();
            }
            stays
        });
        let mut changed = self.servers.len() != before;
        for name in names {
            match self.find(name) {
                Some(server) => server.fixed = true,
                None => {
                    self.servers.push(Server::new(name, true));
                    changed = true;
                }
            }
        }
        changed
    }

    pub fn prefer(&mut self, own: &[IpAddr]) {
        self.own = own.to_vec();
    }

    /// The names, and by what each is told to be looked at.
    pub fn names(&self) -> Vec<(String, Arc<Notify>)> {
        let servers = self.servers.iter();
        servers
            .map(|server| (server.name.clone(), Arc::clone(&server.look)))
            .collect()
    }

    /// Where the server is, by its name's last resolution.
    pub fn resolved(&mut self, name: &str, addresses: Vec<SocketAddr>) {
        if let Some(server) = self.find(name) {
            server.addresses = addresses;
        }
    }

    /// It answered.
    pub fn succeeded(&mut self, name: &str) {
        let Some(server) = self.find(name) else {
            return;
        };
        server.failures = 0;
        server.successes = server.successes.saturating_add(1);
        let first = server.health == Health::Unknown;
        if first || (server.health == Health::Out && server.successes >= server.needed()) {
            tracing::info!(server = name, "balancer: {name} is healthy");
            server.health = Health::Healthy;
            server.reason.clear();
        }
        self.settle();
    }

    /// It did not answer, or not well.
    pub fn failed(&mut self, name: &str, reason: &str, now: Instant) {
        let Some(server) = self.find(name) else {
            return;
        };
        server.successes = 0;
        server.failures = server.failures.saturating_add(1);
        server.reason = reason.to_owned();
        if server.health != Health::Out {
            let soon = |then: Instant| now.duration_since(then) < FLAPPING;
            server.flaps = match server.went_out {
                Some(then) if soon(then) => server.flaps.saturating_add(1),
                _ => 0,
            };
            server.went_out = Some(now);
            server.health = Health::Out;
            server.look.notify_one();
            tracing::warn!(server = name, "balancer: {name} is out: {reason}");
        }
        self.settle();
    }

    /// Closes the connections of servers that are out, as soon as there is a
    /// better place to go.
    fn settle(&mut self) {
        if !self.any_healthy() {
            return;
        }
        for server in &mut self.servers {
            if server.health == Health::Out && server.failures >= FAILURES && server.connections > 0
            {
                tracing::info!(
                    server = server.name,
                    connections = server.connections,
                    "balancer: connections to {} are closed",
                    server.name
                );
                std::mem::take(&mut server.close).cancel();
                server.connections = 0;
            }
        }
    }

    pub fn any_healthy(&self) -> bool {
        self.servers
            .iter()
            .any(|server| server.health == Health::Healthy)
    }

    /// How the server is, and since when it is out.
    pub fn health(&self, name: &str) -> Option<(Health, Option<Instant>)> {
        let found = self.servers.iter().find(|server| server.name == name)?;
        Some((found.health, found.went_out))
    }

    /// Which servers to try for a new connection, in this order: the machine's
    /// own, then the healthy ones with the fewest connections, then those that
    /// were not asked yet. Those that are out come last, the most hopeful
    /// first: a wrong judgement about all must not cut the machine off.
    pub fn candidates(&mut self) -> Vec<Candidate> {
        self.turn = self.turn.wrapping_add(1);
        let count = self.servers.len().max(1);
        let mut order: Vec<(usize, &Server)> = self.servers.iter().enumerate().collect();
        order.sort_by_key(|(index, server)| {
            let health = match server.health {
                Health::Healthy => 0,
                Health::Unknown => 1,
                Health::Out => 2,
            };
            let own = server
                .addresses
                .iter()
                .any(|address| self.own.contains(&address.ip()));
            (
                health,
                !own,
                Reverse(if health == 2 { server.successes } else { 0 }),
                server.connections,
                (index + self.turn) % count,
            )
        });
        order
            .into_iter()
            .map(|(_, server)| Candidate {
                name: server.name.clone(),
                addresses: server.addresses.clone(),
            })
            .collect()
    }

    /// Counts a connection; what closes it. None: the server is no more.
    pub fn opened(&mut self, name: &str) -> Option<CancellationToken> {
        let server = self.find(name)?;
        server.connections += 1;
        Some(server.close.clone())
    }

    /// The connection that `close` belongs to has ended.
    pub fn closed(&mut self, name: &str, close: &CancellationToken) {
        // Those that were closed from here are not counted any more.
        if !close.is_cancelled()
            && let Some(server) = self.find(name)
        {
            server.connections = server.connections.saturating_sub(1);
        }
    }

    pub fn report(&self) -> Vec<ServerReport> {
        let servers = self.servers.iter();
        servers
            .map(|server| ServerReport {
                server: server.name.clone(),
                health: server.health,
                reason: server.reason.clone(),
            })
            .collect()
    }

    fn find(&mut self, name: &str) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "10.0.0.1:6443";
    const TWO: &str = "10.0.0.2:6443";
    const THREE: &str = "10.0.0.3:6443";

    fn pool() -> Pool {
        let mut pool = Pool::new(&[ONE, TWO, THREE].map(str::to_owned));
        for name in [ONE, TWO, THREE] {
            pool.succeeded(name);
        }
        pool
    }

    fn first(pool: &mut Pool) -> String {
        pool.candidates()[0].name.clone()
    }

    #[test]
    fn healthy_servers_share_and_the_machines_own_comes_first() {
        let mut pool = pool();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..30 {
            let name = first(&mut pool);
            pool.opened(&name).unwrap();
            *counts.entry(name).or_insert(0) += 1;
        }
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
        pool.prefer(&["10.0.0.2".parse().unwrap()]);
        assert_eq!(first(&mut pool), TWO);
        pool.failed(TWO, "gone", Instant::now());
        assert_ne!(first(&mut pool), TWO);
    }

    #[test]
    fn one_failure_takes_a_server_out_two_close_it_and_two_answers_bring_it_back() {
        let mut pool = pool();
        let now = Instant::now();
        let close = pool.opened(ONE).unwrap();
        pool.failed(ONE, "refused", now);
        assert_eq!(pool.candidates()[2].name, ONE);
        assert!(!close.is_cancelled());
        pool.failed(ONE, "refused", now);
        assert!(close.is_cancelled());
        pool.closed(ONE, &close);

        pool.succeeded(ONE);
        assert_eq!(pool.health(ONE).unwrap().0, Health::Out);
        pool.succeeded(ONE);
        assert_eq!(pool.health(ONE).unwrap().0, Health::Healthy);
        assert_eq!(pool.report()[0].reason, "");
        assert!(!pool.opened(ONE).unwrap().is_cancelled());

        // Once more within a minute: it has to show more patience.
        pool.failed(ONE, "refused", now + Duration::from_secs(10));
        for _ in 0..3 {
            pool.succeeded(ONE);
            assert_eq!(pool.health(ONE).unwrap().0, Health::Out);
        }
        pool.succeeded(ONE);
        assert_eq!(pool.health(ONE).unwrap().0, Health::Healthy);
    }

    #[test]
    fn where_none_is_healthy_nothing_is_closed_and_all_are_tried() {
        let mut pool = pool();
        let close = pool.opened(TWO).unwrap();
        for name in [ONE, TWO, THREE] {
            pool.failed(name, "etcd failed", Instant::now());
            pool.failed(name, "etcd failed", Instant::now());
        }
        // It was closed when the last of the others was still healthy.
        assert!(close.is_cancelled());
        let last = pool.opened(THREE).unwrap();
        pool.failed(THREE, "etcd failed", Instant::now());
        assert!(!last.is_cancelled(), "there is no better place");
        assert_eq!(pool.candidates().len(), 3);
        pool.succeeded(TWO);
        assert_eq!(first(&mut pool), TWO, "the most hopeful one");
        pool.succeeded(TWO);
        assert!(last.is_cancelled(), "now there is");
    }

    #[test]
    fn lists_add_to_the_settings_and_never_take_from_them() {
        let mut pool = Pool::new(&["master-1:6443".to_owned()]);
        pool.resolved("master-1:6443", vec![ONE.parse().unwrap()]);
        assert!(!pool.found(&[]));
        assert!(pool.found(&[ONE, TWO].map(str::to_owned)));
        let names = |pool: &Pool| -> Vec<String> {
            pool.names().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&pool), ["master-1:6443", TWO]);
        let close = pool.opened(TWO).unwrap();
        assert!(!pool.found(&[TWO, ONE].map(str::to_owned)));
        assert!(pool.found(&[THREE.to_owned()]));
        assert_eq!(names(&pool), ["master-1:6443", THREE]);
        assert!(close.is_cancelled());
        assert!(pool.opened(TWO).is_none());
    }
}
