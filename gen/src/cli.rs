//! The command line: flags in, one call out, errors told once.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use units::types::{NodeName, Role};

use crate::commands::{certs, diff, init, kubeconfig, manual, render, sizes, user_data, validate};
use crate::format::Format;
use crate::platform::Platform;
use crate::report::Report;
use crate::workspace::{Asked, Input};

/// Nothing went wrong.
const OK: u8 = 0;
/// Something outside went wrong: a disk, a permission.
const FAILED: u8 = 1;
/// What was typed is wrong; nothing was written.
const BAD_INPUT: u8 = 2;
/// Certificates expire soon.
const EXPIRING: u8 = 3;

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
  kgen validate                 all that is wrong with it, before anything is made
  kgen render -o out            all machines: out/NAME/user-data, out/admin.conf
  kgen kubeconfig > admin.conf  the way in, for kubectl

Certificates and keys are made once and kept in pki/ beside cluster.yaml. Keep
that folder: the same input gives the same output as long as it is there.

Exit status: 0 done, 2 something is wrong with the input and nothing was
written, 3 certificates expire soon (certs check), 1 anything else."
)]
struct Cli {
    #[command(flatten)]
    user_data: UserDataArgs,

    /// The settings file; pki/ and kgen.lock are beside it
    #[arg(short, long, global = true, value_name = "CLUSTER.YAML")]
    file: Option<PathBuf>,

    /// A setting over the file's, as in network.mtu=1450, nodes[0].arch=arm64
    /// or 'apiServer.certSANs=[a, b]'; may be given more than once
    #[arg(long, global = true, value_name = "PATH=VALUE")]
    set: Vec<String>,

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

    #[command(flatten)]
    target: TargetArgs,
}

/// In which form documents are sent.
#[derive(Debug, Args)]
struct TargetArgs {
    /// Who reads the document: coreos (the default), cloud-init or ignition
    #[arg(long)]
    format: Option<Format>,

    /// What hands it to the machine, and may take only so much: aws, azure,
    /// cloudstack, digitalocean, gce, openstack, vsphere or generic
    #[arg(long)]
    platform: Option<Platform>,

    /// Compress the whole document, which coreos and cloud-init take
    #[arg(long)]
    gzip: bool,
}

impl From<TargetArgs> for Asked {
    fn from(args: TargetArgs) -> Self {
        Self {
            format: args.format,
            platform: args.platform,
            gzip: args.gzip,
        }
    }
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

        #[command(flatten)]
        target: TargetArgs,
    },
    /// Show what rendering would change in a folder, secrets not shown; the exit
    /// status is 0 if nothing, 1 if something, more if it failed
    Diff {
        /// The folder that was rendered to
        #[arg(short, long, value_name = "FOLDER")]
        out: PathBuf,

        #[command(flatten)]
        target: TargetArgs,
    },
    /// Print how large the documents are, and which platforms take them
    Sizes {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Look at the settings, or at rendered documents, and tell all that is wrong
    Validate {
        /// Documents of any language, compressed or not; none: the settings
        #[arg(value_name = "DOCUMENT")]
        documents: Vec<PathBuf>,

        #[command(flatten)]
        target: TargetArgs,

        /// Take warnings for errors
        #[arg(long)]
        strict: bool,
    },
    /// List the certificates in pki/, check when they expire, make them anew
    #[command(subcommand)]
    Certs(Certs),
    /// Print what makes a shell complete kgen's words
    Completions {
        /// Of which shell
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// The folder to write to
        #[arg(value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Print the operator's kubeconfig
    Kubeconfig {
        /// One that works even when RBAC is broken; keep it apart
        #[arg(long)]
        super_admin: bool,
    },
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
enum Certs {
    /// List all: name, day and days until they expire, issuer, names
    List {
        /// As JSON, with everything there is
        #[arg(long)]
        json: bool,
    },
    /// List those that expire soon, with the exit status 3 if there are any
    Check {
        /// How soon
        #[arg(long, default_value_t = 30)]
        days: u32,

        /// As JSON, with everything there is
        #[arg(long)]
        json: bool,
    },
    /// Make certificates and their keys anew; authorities are kept
    Renew {
        /// Those of a name (nodes/master/apiserver, admin), a machine (master)
        /// or a kind (apiserver); none: all
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(match run(cli) {
        Ok(status) => status,
        Err(error) => told(&error),
    })
}

fn run(cli: Cli) -> Result<u8> {
    let file = cli.file.as_deref();
    let input = Input {
        file,
        set: &cli.set,
    };
    let done = match cli.command {
        None => user_data::run(&user_data::UserData {
            input,
            role: cli.user_data.role,
            name: cli.user_data.name,
            asked: cli.user_data.target.into(),
        }),
        Some(Command::Init) => init::run(file),
        Some(Command::Render { out, target }) => render::run(&render::Render {
            input,
            asked: target.into(),
            out: &out,
        }),
        Some(Command::Diff { out, target }) => {
            let found = diff::run(&diff::Diff {
                input,
                asked: target.into(),
                out: &out,
            });
            // As kubectl diff does: 1 is no failure.
            return match found {
                Ok(changes) => Ok(u8::from(changes)),
                Err(error) => Ok(told(&error).max(BAD_INPUT)),
            };
        }
        Some(Command::Sizes { target }) => sizes::run(input, target.into()),
        Some(Command::Validate {
            documents,
            target,
            strict,
        }) => validate::run(&validate::Validate {
            input,
            documents: &documents,
            asked: target.into(),
            strict,
        }),
        Some(Command::Certs(Certs::List { json })) => certs::list(input, json),
        Some(Command::Certs(Certs::Check { days, json })) => {
            let soon = certs::check(input, days, json)?;
            return Ok(if soon { EXPIRING } else { OK });
        }
        Some(Command::Certs(Certs::Renew { names })) => certs::renew(input, &names),
        Some(Command::Completions { shell }) => manual::completions(Cli::command(), shell),
        Some(Command::Man { out }) => manual::pages(Cli::command(), &out),
        Some(Command::Kubeconfig { super_admin }) => kubeconfig::run(input, super_admin),
    };
    done.map(|()| OK)
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
