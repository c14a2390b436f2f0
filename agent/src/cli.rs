//! knode's command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::check::phase::{self, Phase};
use crate::check::{self, Verdict};
use crate::error::{Code, Context, Error, Result};
use crate::status::Report;
use crate::sys::root::Root;
use crate::{etcd, fetch, report, reset, run, status, timeline, wait};
use units::paths;

/// Makes this machine a healthy Kubernetes node, and keeps it one.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring this machine into the state that node.yaml describes, and stay.
    ///
    /// This is what knode.service runs. Every step is tried again until it
    /// succeeds; `knode status` says what is being done and what is in the way.
    Run,
    /// Say what is true of this machine now.
    ///
    /// Exit codes: 0 the node is Ready; 3 it is on its way; 4 a step fails.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Say whether this machine is fit to be a node, or whether phases of its
    /// deployment are over.
    ///
    /// Exit codes: 0 nothing is in the way, though there may be warnings;
    /// 4 something is.
    Check {
        /// Whether these phases are over, each by its own criterion; by default
        /// whether the machine is fit, before anything is done to it.
        #[arg(
            long,
            value_name = "PHASES",
            value_delimiter = ',',
            conflicts_with = "offline"
        )]
        phase: Vec<Phase>,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Look at this machine alone: no names, no mirrors, no API server.
        #[arg(long)]
        offline: bool,
    },
    /// Fetch what node.yaml names into the store, once, as `knode run` does.
    ///
    /// Everything is verified by its checksum; what is there already is left.
    /// Exit codes: 0 all is in its place; 4 something could not be fetched;
    /// 1 there is no usable node.yaml or store.
    Fetch(fetch::command::Arguments),
    /// Work with this machine's member of etcd.
    #[command(subcommand)]
    Etcd(etcd::command::Request),
    /// Pack what tells how this machine is into one archive (tar.gz), for
    /// whoever is asked for help: status, checks, journals, units, network,
    /// evidence. Keys, tokens and passwords are left out.
    Report(ReportArguments),
    /// Make this machine what it was before its document: stop and remove what
    /// the document and knode brought, and nothing else.
    ///
    /// Asks first: type the machine's name. May be interrupted and run again.
    /// Exit codes: 0 nothing of knode is left, or --dry-run; 1 it may not be
    /// done, and nothing was; 4 something could not be undone.
    Reset(reset::Arguments),
    /// Draw the boot as a picture (SVG): what took how long.
    Timeline(TimelineArguments),
    /// Wait until ports, addresses, sockets or files are there.
    ///
    /// Targets: tcp://HOST:PORT, http://… and https://… (answered with
    /// success, or as --status and --body say), http+unix:///PATH:/URL-PATH
    /// (the same over a socket), unix:///PATH (accepts a connection),
    /// file:///PATH (exists). Under five attempts a second are made at each.
    /// Exit codes: 0 they are there; 1 the time was up, with the reasons;
    /// 2 the command line is wrong.
    Wait(WaitArguments),
}

#[derive(Debug, clap::Args)]
struct ReportArguments {
    /// Write here; `-` is standard output.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "knode-report.tar.gz"
    )]
    output: PathBuf,
}

#[derive(Debug, clap::Args)]
struct TimelineArguments {
    /// Write here instead of to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long a boot may take; marked in the picture.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    budget: f64,
    /// Draw this report instead of this machine's.
    #[arg(long, value_name = "FILE", default_value = paths::STATUS)]
    status: PathBuf,
}

#[derive(Debug, clap::Args)]
struct WaitArguments {
    /// What to wait for.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<wait::Target>,
    /// Wait for all of them; the default.
    #[arg(long, conflicts_with = "any")]
    all: bool,
    /// Wait for one of them.
    #[arg(long)]
    any: bool,
    /// The answer of http and https that is waited for, as in 200,401; by
    /// default any from 200 to 299.
    #[arg(long, value_name = "CODES", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(100..600))]
    status: Vec<u16>,
    /// The answer has to contain this.
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Give up after so many seconds; by default never.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Trust this authority (PEM file) for https instead of the host's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Runs the program; what it prints goes to standard output, the error to
/// standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two providers could be compiled in by features of others; name ours.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider was installed before");
    }
    let outcome = match cli.command {
        Command::Run => run::run(),
        Command::Status { json } => show_status(json),
        Command::Check {
            phase,
            json,
            offline,
        } => check_machine(&phase, json, offline),
        Command::Fetch(arguments) => fetch::command::fetch(&arguments),
        Command::Etcd(request) => etcd::command::main(&request),
        Command::Report(arguments) => pack_report(&arguments),
        Command::Reset(arguments) => reset::reset(&arguments),
        Command::Timeline(arguments) => timeline(&arguments),
        Command::Wait(arguments) => wait_for(arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!(
            "knode: {}: {}\n{}",
            error.code(),
            error.story(),
            error.code().cure()
        );
        ExitCode::FAILURE
    })
}

fn show_status(json: bool) -> Result<ExitCode> {
    let (text, report) = read_status(Path::new(paths::STATUS))?;
    print(&if json {
        text + "\n"
    } else {
        status::table(&report)
    })?;
    Ok(match (report.ready, report.first_failure()) {
        (true, _) => ExitCode::SUCCESS,
        (false, None) => ExitCode::from(3),
        (false, Some(_)) => ExitCode::from(4),
    })
}

fn check_machine(phases: &[Phase], json: bool, offline: bool) -> Result<ExitCode> {
    let root = Root::new("/");
    let config = match run::read_configuration(&root) {
        Ok((_, config)) => Some(config),
        Err(error) => {
            eprintln!(
                "knode: {}: {}; checking what every node needs",
                error.code(),
                error.story()
            );
            None
        }
    };
    let findings = run::runtime()?.block_on(async {
        let mut findings = Vec::new();
        if phases.is_empty() || phases.contains(&Phase::Provision) {
            let mut facts = check::observe(&root, config.as_ref(), true).await;
            if let Some(config) = config.as_ref().filter(|_| !offline) {
                facts.outside = check::look_outside(&root, config).await;
            }
            findings = check::judge(&facts, config.as_ref());
        }
        if let Some(config) = config.as_ref().filter(|_| !phases.is_empty()) {
            let seen = phase::see(&root, config, phases).await?;
            for phase in phases {
                findings.extend(phase::judge(*phase, &seen));
            }
        }
        Ok::<_, Error>(findings)
    })?;
    if config.is_none() && !phases.is_empty() {
        return Ok(ExitCode::from(4));
    }
    print(&if json {
        let text = serde_json::to_string_pretty(&findings);
        text.context(Code::Disk, || "putting the findings into words".to_owned())? + "\n"
    } else {
        check::table(&findings)
    })?;
    Ok(match check::worst(&findings) {
        Verdict::Failure => ExitCode::from(4),
        Verdict::Ok | Verdict::Warning => ExitCode::SUCCESS,
    })
}

fn pack_report(arguments: &ReportArguments) -> Result<ExitCode> {
    let root = Root::new("/");
    let config = run::read_configuration(&root)
        .ok()
        .map(|(_, config)| config);
    let findings = run::runtime()?.block_on(async {
        let facts = check::observe(&root, config.as_ref(), true).await;
        check::judge(&facts, config.as_ref())
    });
    let archive = report::pack(&root, &check::table(&findings))?;
    if arguments.output == Path::new("-") {
        return match std::io::stdout().write_all(&archive) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::new(Code::Disk, "writing to standard output").because(error))
            }
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    let path = absolute(&arguments.output)?;
    // Others need not read what happens on this machine.
    root.write_atomic(&path, &archive, 0o600)?;
    print(&format!(
        "{} ({} kB)\n",
        path.display(),
        archive.len().div_ceil(1000)
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn timeline(arguments: &TimelineArguments) -> Result<ExitCode> {
    let (_, report) = read_status(&arguments.status)?;
    let svg = timeline::svg(&report, arguments.budget);
    match &arguments.output {
        Some(path) => {
            let path = absolute(path)?;
            Root::new("/").write_atomic(path, svg.as_bytes(), 0o644)?;
        }
        None => print(&svg)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read_status(path: &Path) -> Result<(String, Report)> {
    let text = Root::new("/").read_to_string(absolute(path)?)?;
    let report = serde_json::from_str(&text)
        .context(Code::Disk, || format!("reading {}", path.display()))?;
    Ok((text, report))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).context(Code::Disk, || format!("looking for {}", path.display()))
}

/// To standard output. A closed pipe is the reader's wish, not an error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Code::Disk, "writing to standard output").because(error))
        }
        _ => Ok(()),
    }
}

fn wait_for(arguments: WaitArguments) -> Result<ExitCode> {
    let authority = match &arguments.ca {
        Some(path) => Some(Root::new("/").read(absolute(path)?)?),
        None => None,
    };
    let expect = wait::Expect {
        status: arguments.status,
        body: arguments.body,
    };
    let waiter = wait::Waiter::new(arguments.targets, authority)
        .expecting(expect)
        .any(arguments.any);
    run::runtime()?.block_on(async {
        match arguments.timeout.map(Duration::from_secs) {
            None => waiter.wait(|_| ()).await,
            Some(limit) => waiter.wait_within(limit, |_| ()).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}
