//! `kgen wait`: until the cluster is what its settings mean.

mod probing;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use time::OffsetDateTime;
use units::types::Role;

use self::probing::Probe;
use super::progress::Progress;
use super::terminal;
use crate::api::{Api, Trouble};
use crate::cluster::{Cluster, Endpoint};
use crate::readiness::{self, Criterion, Phase, Seen};
use crate::report::{Finding, Report};
use crate::workspace::{Input, Workspace};

/// How often the API server is asked.
const LOOK: Duration = Duration::from_secs(2);
/// So many criteria are named in the line that tells how far it is.
const NAMED: usize = 2;

/// What to wait for.
#[derive(Debug)]
pub struct Wait<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// The phases; none: all that need no probe.
    pub phases: &'a [Phase],
    /// Whether those that need a probe are among them in any case.
    pub probe: bool,
    /// How many Nodes there have to be at least.
    pub nodes: Option<usize>,
    /// How long to wait.
    pub timeout: Duration,
    /// Another address of the API server.
    pub server: Option<&'a Endpoint>,
    /// Whether the result is printed as JSON.
    pub json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'o> {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'o str>,
    criteria: &'o [Criterion],
}

/// Asks until everything is met or the time is up, and prints what was found
/// last; whether everything is met. Nothing is written, and nothing is left of a
/// probe.
pub fn run(args: &Wait<'_>) -> Result<bool> {
    let workspace = Workspace::open(args.input, &[("master".parse()?, Role::Master)])?;
    if !exists(&workspace.folder.join("pki/ca.crt"))? {
        let finding = Finding::new("there is no pki/ca.crt to know the cluster by");
        let help = "kgen render makes it; wait where the cluster's documents were made";
        return Err(Report::from(finding.help(help)).into());
    }
    let (authority, operator) = workspace.pki()?.operator(false)?;
    let server = args.server.unwrap_or(&workspace.cluster.endpoint);
    let api = Api::new(&server.to_string(), &authority, &operator)?;
    let mut phases = match args.phases {
        [] => Phase::ALL.into_iter().filter(|p| !p.probes()).collect(),
        some => some.to_vec(),
    };
    if args.probe {
        phases.extend(Phase::ALL.into_iter().filter(|p| p.probes()));
    }
    let mut probe = match phases.iter().any(|phase| phase.probes()) {
        true => Some(Probe::new(&workspace.cluster, args.timeout)?),
        false => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting to use the network")?;
    runtime.block_on(async {
        let waiting = until(args, &workspace.cluster, &phases, &api, probe.as_mut());
        let outcome = tokio::select! {
            outcome = waiting => outcome,
            // What was made is taken away again.
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        };
        let ended = match &probe {
            Some(probe) => probe.end(&api).await,
            None => Ok(()),
        };
        let ready = outcome?;
        match ended {
            Ok(()) => Ok(ready),
            Err(Trouble::Away(why) | Trouble::Refused(why)) => {
                bail!("removing the probe's namespace: {why}")
            }
        }
    })
}

async fn until(
    args: &Wait<'_>,
    cluster: &Cluster,
    phases: &[Phase],
    api: &Api,
    mut probe: Option<&mut Probe<'_>>,
) -> Result<bool> {
    let deadline = Instant::now() + args.timeout;
    let mut progress = Progress::new();
    let mut last: Vec<Criterion> = Vec::new();
    let mut away;
    loop {
        let looked = async {
            let seen = look(api).await?;
            let mut found = readiness::judge(cluster, phases, args.nodes, &seen);
            if let Some(probe) = probe.as_deref_mut() {
                // A probe of what is not there yet would only fail slowly.
                if found.iter().all(|criterion| criterion.met) {
                    probe.look(api, &seen.nodes).await?;
                }
                let probed = probe.judge().into_iter();
                found.extend(probed.filter(|c| phases.contains(&c.phase)));
            }
            Ok(found)
        };
        match looked.await {
            Ok(found) => {
                last = found;
                away = None;
            }
            Err(Trouble::Refused(why)) => bail!(why),
            // What was known of it may be so no longer.
            Err(Trouble::Away(why)) => {
                last.clear();
                away = Some(why);
            }
        }
        let ready = away.is_none() && last.iter().all(|criterion| criterion.met);
        if ready || Instant::now() + LOOK > deadline {
            drop(progress);
            print(&last, away.as_deref(), ready, args.json)?;
            return Ok(ready);
        }
        progress.tell(|| line(&last, away.as_deref()));
        tokio::time::sleep(LOOK).await;
    }
}

fn exists(path: &Path) -> Result<bool> {
    let found = path.try_exists();
    found.with_context(|| format!("looking for {}", path.display()))
}

async fn look(api: &Api) -> Result<Seen, Trouble> {
    let (_, health) = api.text("/readyz?verbose").await?;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let leases = api.get(leases).await?;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let requests = api.get(requests).await?;
    let deployments = api.get("/apis/apps/v1/namespaces/kube-system/deployments");
    let deployments = deployments.await?;
    let daemon_sets = api.get("/apis/apps/v1/namespaces/kube-system/daemonsets");
    let daemon_sets = daemon_sets.await?;
    let nodes = api.get("/api/v1/nodes").await?;
    Ok(Seen {
        health: health.body,
        leases: leases.body,
        requests: requests.body,
        deployments: deployments.body,
        daemon_sets: daemon_sets.body,
        now: nodes.at.unwrap_or_else(OffsetDateTime::now_utc),
        nodes: nodes.body,
    })
}

/// What it waits for, in a line.
fn line(criteria: &[Criterion], away: Option<&str>) -> String {
    if let Some(why) = away {
        return format!("waiting: {why}");
    }
    let unmet: Vec<&Criterion> = criteria.iter().filter(|c| !c.met).collect();
    let named = unmet
        .iter()
        .take(NAMED)
        .map(|c| format!("{}: {}", c.subject, c.found));
    let named = named.collect::<Vec<_>>().join("; ");
    format!("{} of {} to go: {named}", unmet.len(), criteria.len())
}

fn print(criteria: &[Criterion], away: Option<&str>, ready: bool, json: bool) -> Result<()> {
    let text = if json {
        let outcome = Outcome {
            ready,
            error: away,
            criteria,
        };
        serde_json::to_string_pretty(&outcome).context("writing JSON")? + "\n"
    } else {
        table(criteria, away)?
    };
    terminal::print(text.as_bytes())
}

fn table(criteria: &[Criterion], away: Option<&str>) -> Result<String> {
    let mut text = String::new();
    let width = criteria.iter().map(|c| c.subject.len()).max().unwrap_or(0);
    for Criterion {
        phase,
        subject,
        met,
        found,
    } in criteria
    {
        let met = if *met { "ok" } else { "NOT YET" };
        let phase = phase.as_str();
        writeln!(text, "{phase:<12}  {subject:<width$}  {met:<7}  {found}")?;
    }
    if let Some(why) = away {
        writeln!(text, "NOT YET  {why}")?;
    }
    Ok(text)
}
