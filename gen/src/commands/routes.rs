//! `kgen openstack routes`: routes of an OpenStack router to machines' pods. (P50)

mod target;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use units::node_config::NetworkMode;

use self::target::Target;
use super::terminal;
use crate::cluster::{Cluster, Endpoint};
use crate::openstack::credentials::{self, Access, Environment};
use crate::openstack::http::{self, Trouble};
use crate::openstack::keystone;
use crate::openstack::neutron::{Neutron, Router};
use crate::openstack::routes::{self, Plan, Step};
use crate::report::{Finding, Report};
use crate::workspace::{Input, Workspace};

/// How often something is tried.
const TRIES: u32 = 5;
/// The first pause between two tries; each is twice as long as the last.
const PAUSE: Duration = Duration::from_millis(500);
/// No pause that a service asks for is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// What to do at which router.
#[derive(Debug)]
pub struct Routes<'a> {
    /// Where settings come from.
    pub input: Input<'a>,
    /// Whether it is done, and not only told.
    pub apply: bool,
    /// A cloud of clouds.yaml.
    pub cloud: Option<&'a str>,
    /// The router's name or ID.
    pub router: Option<&'a str>,
    /// Whether no routes are wanted.
    pub none: bool,
    /// Another address of the API server.
    pub server: Option<&'a Endpoint>,
    /// Whether the result is printed as JSON.
    pub json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'o> {
    router: &'o str,
    id: &'o str,
    /// Whether the router is as it should be now.
    done: bool,
    /// Whether all ranges are known that machines have.
    complete: bool,
    routes: &'o [Step],
}

/// Prints what there is to do, or does it; whether the router is as it should
/// be.
pub fn run(args: &Routes<'_>) -> Result<bool> {
    let workspace = Workspace::open(args.input, &[])?;
    let cluster = &workspace.cluster;
    let name = router_of(args, cluster)?;
    let cloud = credentials::load(&Environment::of_process(), args.cloud)?;
    let access = Access::new(&cloud)?;
    let client = http::client(access.authority.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting to use the network")?;
    runtime.block_on(async {
        let target = Target::find(args, &workspace).await?;
        let session = patiently(|| keystone::session(&client, &access)).await?;
        let neutron = Neutron::new(client.clone(), session);
        let router = patiently(|| neutron.find(&name)).await?;
        let around = patiently(|| neutron.surroundings(&router.id)).await?;
        routes::check(&target.wanted, &around)?;
        let plan = plan(&router, &target);
        if !args.apply {
            print(args, &router, &plan, &target, plan.is_done())?;
            return Ok(plan.is_done());
        }
        let done = apply(&neutron, router.clone(), &target).await;
        // What was done of it is told even if not all could be.
        print(args, &router, &plan, &target, done.is_ok())?;
        done.map(|()| true)
    })
}

fn plan(router: &Router, target: &Target) -> Plan {
    Plan::new(
        &router.routes,
        &target.wanted,
        &target.pods,
        target.is_known,
    )
}

fn router_of(args: &Routes<'_>, cluster: &Cluster) -> Result<String, Report> {
    if cluster.network_mode != NetworkMode::Routed && !args.none {
        let message = "network.mode: a router has a part in it with routed alone";
        let help = "write network: {mode: routed}, or take its routes away with --none";
        return Err(Finding::new(message).help(help).into());
    }
    let typed = args.router.map(str::to_owned);
    let openstack = cluster.openstack.as_ref();
    let named = || Some(openstack?.router.as_ref()?.value.clone());
    let made = || openstack?.existing.is_none().then(|| cluster.name.clone());
    typed.or_else(named).or_else(made).ok_or_else(|| {
        let help = "name it with --router, or in openstack.router";
        Report::from(Finding::new("which router?").help(help))
    })
}

/// Makes it so. Whatever happens meanwhile, the router is looked at and planned
/// for anew before each try.
async fn apply(neutron: &Neutron, first: Router, target: &Target) -> Result<()> {
    let is_atomic = patiently(|| neutron.is_atomic()).await?;
    let mut router = first;
    let mut tries = 1;
    loop {
        let now = plan(&router, target);
        if now.is_done() {
            return Ok(());
        }
        let changed = change(neutron, &router, &now, is_atomic).await;
        let id = router.id.clone();
        match patiently(|| neutron.router(&id)).await {
            Ok(seen) => router = seen,
            Err(error) => {
                let why = changed
                    .err()
                    .map_or_else(String::new, |t| format!("{}; ", t.message()));
                bail!("{why}what the router has now is not known: {error:#}; run it again");
            }
        }
        let left = plan(&router, target);
        let (why, pause) = match changed {
            Ok(()) if left.is_done() => return Ok(()),
            Ok(()) => ("somebody else changes the router too".to_owned(), None),
            Err(Trouble::Refused(why, _)) => bail!("{why}{}", rest(&left, &router)),
            Err(Trouble::Conflict(why)) => (why, None),
            Err(Trouble::Passing(why, pause)) => (why, pause),
        };
        if tries == TRIES {
            bail!("{why}; tried {TRIES} times{}", rest(&left, &router));
        }
        wait(tries, pause).await;
        tries += 1;
    }
}

async fn change(
    neutron: &Neutron,
    router: &Router,
    plan: &Plan,
    is_atomic: bool,
) -> Result<(), Trouble> {
    if !is_atomic {
        return neutron.replace(router, &plan.result(&router.routes)).await;
    }
    // No machine is without a route in between.
    neutron
        .add(&router.id, &plan.to_add(&router.routes))
        .await?;
    neutron.remove(&router.id, &plan.to_remove()).await
}

/// What is not done yet.
fn rest(left: &Plan, router: &Router) -> String {
    let add = left.to_add(&router.routes);
    let remove = left.to_remove();
    let mut parts: Vec<String> = add.iter().map(|r| format!("add {r}")).collect();
    parts.extend(remove.iter().map(|r| format!("remove {r}")));
    format!("; not done: {}", parts.join(", "))
}

/// Tries again what only looks.
async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, Trouble>>,
{
    let mut tries = 1;
    loop {
        let (why, pause) = match attempt().await {
            Ok(value) => return Ok(value),
            Err(Trouble::Refused(why, _) | Trouble::Conflict(why)) => bail!(why),
            Err(Trouble::Passing(why, pause)) => (why, pause),
        };
        if tries == TRIES {
            bail!("{why}; tried {TRIES} times");
        }
        wait(tries, pause).await;
        tries += 1;
    }
}

async fn wait(tries: u32, asked: Option<Duration>) {
    let pause = PAUSE * 2_u32.pow(tries - 1);
    tokio::time::sleep(asked.unwrap_or(pause).clamp(pause, LONGEST)).await;
}

fn print(
    args: &Routes<'_>,
    router: &Router,
    plan: &Plan,
    target: &Target,
    done: bool,
) -> Result<()> {
    let text = if args.json {
        let outcome = Outcome {
            router: &router.name,
            id: &router.id,
            done,
            complete: target.is_known,
            routes: &plan.steps,
        };
        serde_json::to_string_pretty(&outcome).context("writing JSON")? + "\n"
    } else {
        table(plan)?
    };
    terminal::print(text.as_bytes())
}

fn table(plan: &Plan) -> Result<String> {
    let rows = plan.steps.iter().map(|step| {
        let was: Vec<String> = step.was.iter().map(ToString::to_string).collect();
        [
            step.action.as_str().to_owned(),
            step.destination.to_string(),
            step.nexthop
                .map(|hop| format!("via {hop}"))
                .unwrap_or_default(),
            step.machine.clone().unwrap_or_default(),
            if was.is_empty() {
                String::new()
            } else {
                format!("was via {}", was.join(", "))
            },
        ]
    });
    let rows: Vec<[String; 5]> = rows.collect();
    let width = |i: usize| rows.iter().map(|row| row[i].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    for [action, destination, next, machine, was] in &rows {
        let [a, d, n, m] = widths;
        let line = format!("{action:<a$}  {destination:<d$}  {next:<n$}  {machine:<m$}  {was}");
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(text)
}
