//! `kgen wait`: until the cluster is what its settings mean.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use time::OffsetDateTime;
use units::types::Role;

use super::progress::Progress;
use super::terminal;
use crate::api::{Api, Trouble};
use crate::cluster::Endpoint;
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
    /// The phases; none: all.
    pub phases: &'a [Phase],
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
/// last; whether everything is met. Nothing is written.
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
    let phases = match args.phases {
        [] => &Phase::ALL[..],
        some => some,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting to use the network")?;
    let deadline = Instant::now() + args.timeout;
    let mut progress = Progress::new();
    let mut last: Vec<Criterion> = Vec::new();
    let mut away;
    loop {
        match runtime.block_on(look(&api)) {
            Ok(seen) => {
                last = readiness::judge(&workspace.cluster, phases, args.nodes, &seen);
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
        std::thread::sleep(LOOK);
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
    let nodes = api.get("/api/v1/nodes").await?;
    Ok(Seen {
        health: health.body,
        leases: leases.body,
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
        writeln!(text, "{phase:<8}  {subject:<width$}  {met:<7}  {found}")?;
    }
    if let Some(why) = away {
        writeln!(text, "NOT YET  {why}")?;
    }
    Ok(text)
}
