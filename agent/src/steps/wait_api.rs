//! Waits for the API server, for as long as it takes: a machine may boot
//! before its master exists (P23, P24, P55).

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::name;
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use crate::retry::Backoff;
use crate::sys::kubeconfig::Kubeconfig;
use units::paths;

/// The pause between the first attempts.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause while machines boot together.
const EAGER: Duration = Duration::from_secs(1);
/// How many attempts that lasts, about two minutes.
const EAGER_ATTEMPTS: u32 = 150;
/// The longest pause after that: a master that is away for hours is not met
/// by a storm when it comes back (F20, F29).
const PATIENT: Duration = Duration::from_secs(5);
/// Machines that boot together wait for each other so long, and it is no news.
const LONG: Duration = Duration::from_secs(20);

pub struct Wait {
    /// The steps before it: the balancer, if the way is through it, and the API
    /// server that is on this machine.
    pub after: Vec<&'static str>,
}

impl Step<Machine> for Wait {
    fn name(&self) -> &'static str {
        name::WAIT
    }

    fn after(&self) -> &[&'static str] {
        &self.after
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let server = until_ready(machine, name::WAIT).await?;
            Ok(format!("{server} is ready"))
        })
    }
}

/// Returns the server's address when it is ready. What is in the way is told
/// as `step`'s detail, with its code: waiting is no failure.
pub async fn until_ready(machine: &Machine, step: &str) -> Result<String> {
    let text = machine.root.read_to_string(paths::KUBELET_KUBECONFIG)?;
    let server = Kubeconfig::parse(&text)?.server;
    // Behind the balancer's port are all machines' API servers.
    let own = server.contains("//127.0.0.1:") && machine.config.balancer.is_none();
    let mut backoff = Backoff::new(FIRST, if own { FIRST * 2 } else { EAGER });
    let since = Instant::now();
    loop {
        if backoff.attempts() == EAGER_ATTEMPTS && !own {
            backoff = Backoff::new(EAGER, PATIENT);
        }
        match machine.anonymous_api()?.ready().await {
            Ok(()) => return Ok(server),
            Err(error) => {
                let what = format!("waiting for {server}: {}: {}", error.code(), error.story());
                if since.elapsed() < LONG {
                    machine.status.detail(step, what);
                } else {
                    machine.status.waits(step, what);
                }
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
