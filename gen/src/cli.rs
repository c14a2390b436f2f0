//! The command line: flags in, one call out, errors told once.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use units::types::{NodeName, Role};

use crate::commands::{init, kubeconfig, render, user_data};
use crate::format::Format;
use crate::report::Report;

/// Nothing went wrong.
const OK: u8 = 0;
/// Something outside went wrong: a disk, a permission.
const FAILED: u8 = 1;
/// What was typed is wrong; nothing was written.
const BAD_INPUT: u8 = 2;

/// Turns one cluster settings file into one user-data document per machine.
///
/// Boot a machine with the document and it becomes a healthy member of the
/// cluster: no SSH, no management machine, in any order, at any time.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    after_help = "\
First steps:
  kgen --role master --format cloud-init > user-data
                                boot a master with it; without a cluster.yaml
                                everything else is assumed, and said
  kgen init                     write a commented cluster.yaml to change that
  kgen --role node --name node-1 > user-data
                                one machine of cluster.yaml
  kgen render -o out            all machines: out/NAME/user-data, out/admin.conf
  kgen kubeconfig > admin.conf  the way in, for kubectl

Certificates and keys are made once and kept in pki/ beside cluster.yaml. Keep
that folder: the same input gives the same output as long as it is there.

Exit status: 0 done, 2 something is wrong with the input and nothing was
written, 1 anything else."
)]
struct Cli {
    #[command(flatten)]
    user_data: UserDataArgs,

    /// The settings file; pki/ and kgen.lock are beside it
    #[arg(short, long, global = true, value_name = "CLUSTER.YAML")]
    file: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

/// The main job.
#[derive(Debug, Args)]
struct UserDataArgs {
    /// What the machine does: master (control-plane), node (worker, minion) or etcd
    #[arg(long)]
    role: Option<Role>,

    /// Which machine of cluster.yaml; not needed where the role says it
    #[arg(long)]
    name: Option<NodeName>,

    /// Who reads the document: coreos (the default) or cloud-init
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented cluster.yaml to begin with
    Init,
    /// Write everything for everybody: user-data of all machines, kubeconfigs
    Render {
        /// The folder to write to
        #[arg(short, long, value_name = "FOLDER")]
        out: PathBuf,

        /// Who reads the documents: coreos (the default) or cloud-init
        #[arg(long)]
        format: Option<Format>,
    },
    /// Print the operator's kubeconfig
    Kubeconfig {
        /// One that works even when RBAC is broken; keep it apart
        #[arg(long)]
        super_admin: bool,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(match run(cli) {
        Ok(()) => OK,
        Err(error) => told(&error),
    })
}

fn run(cli: Cli) -> Result<()> {
    let file = cli.file.as_deref();
    match cli.command {
        None => user_data::run(&user_data::UserData {
            file,
            role: cli.user_data.role,
            name: cli.user_data.name,
            format: cli.user_data.format,
        }),
        Some(Command::Init) => init::run(file),
        Some(Command::Render { out, format }) => render::run(&render::Render {
            file,
            format,
            out: &out,
        }),
        Some(Command::Kubeconfig { super_admin }) => kubeconfig::run(file, super_admin),
    }
}

/// Tells what went wrong, and with which status.
fn told(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Report>() {
        Some(report) => {
            eprint!("{}", report.render(std::io::stderr().is_terminal()));
            BAD_INPUT
        }
        None => {
            eprintln!("kgen: {error:#}");
            FAILED
        }
    }
}
