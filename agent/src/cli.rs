//! knode's command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::error::{Code, Context, Error, Result};
use crate::status::Report;
use crate::sys::root::Root;
use crate::{run, status, wait};
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
    /// Wait until ports, addresses, sockets or files are there.
    ///
    /// Targets: tcp://HOST:PORT, http://… and https://… (answered with
    /// success), unix:///PATH (accepts a connection), file:///PATH (exists).
    /// Exit codes: 0 all are there; 1 the time was up, with the reason.
    Wait(WaitArguments),
}

#[derive(Debug, clap::Args)]
struct WaitArguments {
    /// What to wait for; all of them.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<wait::Target>,
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
    let root = Root::new("/");
    let text = root.read_to_string(paths::STATUS)?;
    let report: Report =
        serde_json::from_str(&text).context(Code::Disk, || format!("reading {}", paths::STATUS))?;
    let shown = if json {
        text + "\n"
    } else {
        status::table(&report)
    };
    // A closed pipe is the reader's wish, not an error.
    if let Err(error) = std::io::stdout().write_all(shown.as_bytes())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(Error::new(Code::Disk, "writing to standard output").because(error));
    }
    Ok(match (report.ready, report.first_failure()) {
        (true, _) => ExitCode::SUCCESS,
        (false, None) => ExitCode::from(3),
        (false, Some(_)) => ExitCode::from(4),
    })
}

fn wait_for(arguments: WaitArguments) -> Result<ExitCode> {
    let authority = match &arguments.ca {
        Some(path) => {
            let path = std::path::absolute(path)
                .context(Code::Disk, || format!("looking for {}", path.display()))?;
            Some(Root::new("/").read(path)?)
        }
        None => None,
    };
    let waiter = wait::Waiter::new(arguments.targets, authority);
    run::runtime()?.block_on(async {
        match arguments.timeout.map(Duration::from_secs) {
            None => waiter.wait(|_| ()).await,
            Some(limit) => waiter.wait_within(limit, |_| ()).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}
