//! The command line: flags in, one call out, errors told once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use units::types::{Arch, NodeName, Role};

use crate::cluster::Endpoint;
use crate::commands::shared::Several;
use crate::commands::{
    certs, diff, hardening, init, inventory, kubeconfig, lock, manual, render, routes, schema,
    serve, sizes, terminal, user_data, validate, wait,
};
use crate::format::Format;
use crate::inventory::Form;
use crate::pki::{Authority, Stage};
use crate::platform::Platform;
use crate::readiness::Phase;
use crate::report::Report;
use crate::workspace::{Asked, Input};

/// Nothing went wrong.
const OK: u8 = 0;
/// Something outside went wrong: a disk, a permission.
const FAILED: u8 = 1;
/// What was typed is wrong; nothing was written.
const BAD_INPUT: u8 = 2;
/// What was to be checked does not hold: certificates expire soon, or a score is
/// too low.
const CHECK_FAILED: u8 = 3;

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
  kgen --pool workers > user-data
                                any number of machines, which need not be listed
  kgen validate                 all that is wrong with it, before anything is made
  kgen render -o out            all machines: out/NAME/user-data, out/admin.conf
  kgen kubeconfig > admin.conf  the way in, for kubectl

Certificates and keys are made once and kept in pki/ beside cluster.yaml. Keep
that folder: the same input gives the same output as long as it is there.

Exit status: 0 done, 2 something is wrong with the input and nothing was
written, 3 what was checked does not hold (certs check, wait), 1 anything else."
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

    /// One document for any number of machines: those of a pool of cluster.yaml
    #[arg(long, value_name = "NAME", conflicts_with_all = ["role", "name", "by_hostname"])]
    pool: Option<NodeName>,

    /// One document for all machines with the role node, which act by their
    /// host names
    #[arg(long, conflicts_with = "name")]
    by_hostname: bool,

    /// Only these of them
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        requires = "by_hostname"
    )]
    names: Vec<NodeName>,

    #[command(flatten)]
    target: TargetArgs,
}

impl UserDataArgs {
    /// The machines that are to have one document, if several are.
    fn several(&self) -> Option<Several> {
        if let Some(pool) = &self.pool {
            return Some(Several::Pool(pool.clone()));
        }
        self.by_hostname.then(|| Several::ByHostname {
            role: self.role,
            names: self.names.clone(),
        })
    }
}

/// In which form documents are sent.
#[derive(Debug, Args)]
struct TargetArgs {
    /// Who reads the document: coreos (the default), cloud-init or ignition
    #[arg(long)]
    format: Option<Format>,

    /// What hands it to the machine, and may take only so much: aws, azure,
    /// cloudstack, digitalocean, gce, openstack, pxe, vsphere or generic
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
    /// Print the machines by role, as Ansible reads it
    Inventory {
        /// yaml, ini, or json as a dynamic inventory prints it
        #[arg(long, default_value_t, value_name = "FORM")]
        format: Form,
    },
    /// Pin what machines download: write kgen.lock with addresses, checksums
    /// and sizes, as they are published
    Lock(LockArgs),
    /// Judge what would be rendered by the CIS Kubernetes Benchmark, before it runs
    Hardening {
        /// As JSON
        #[arg(long)]
        json: bool,

        /// The exit status is 3 if the score is less
        #[arg(long, value_name = "PERCENT")]
        at_least: Option<usize>,
    },
    /// Print the JSON schema of cluster.yaml, for editors
    Schema,
    /// List the certificates and tokens in pki/, check when they expire, make
    /// them anew
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
    /// Ask a running cluster until it is what the settings mean; the exit status
    /// is 3 if it is not in time
    Wait(WaitArgs),
    /// Serve machines that boot from the network what was rendered for them:
    /// each document once, and every request told in a line
    Serve(ServeArgs),
    /// Print the operator's kubeconfig, or put it into the one that is there
    Kubeconfig(KubeconfigArgs),
    /// What is asked of a running OpenStack
    #[command(subcommand)]
    Openstack(OpenstackCommand),
}

/// What to pin, and from where.
#[derive(Debug, Args)]
struct LockArgs {
    /// For this processor, amd64 or arm64, and not for those of the settings;
    /// may be given more than once
    #[arg(long, value_name = "ARCH")]
    arch: Vec<Arch>,

    /// Which version, as in kubernetes=1.36.1 or etcd=3.6.14; none: as the
    /// settings and the lock say
    #[arg(long, value_name = "NAME=VERSION")]
    version: Vec<String>,

    /// Read MIRROR/dl.k8s.io/PATH instead of https://dl.k8s.io/PATH, and let
    /// machines do so too; of several, in this order
    #[arg(long, value_name = "MIRROR")]
    mirror: Vec<String>,

    /// Leave the network alone: take what kgen and kgen.lock know
    #[arg(long)]
    offline: bool,

    /// Download everything from everywhere, and check the bytes themselves
    #[arg(long, conflicts_with = "offline")]
    verify: bool,

    /// Print the lock and write nothing
    #[arg(long)]
    dry_run: bool,
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
    /// Replace authorities in stages, so that no machine is cut off
    RotateCa {
        /// Which: cluster, etcd, front-proxy or all
        #[arg(default_value = "all", value_parser = authorities, value_name = "WHICH")]
        which: Authorities,

        #[command(flatten)]
        stage: StageArgs,
    },
    /// Replace the key that signs service accounts' tokens, in stages
    RotateSa {
        #[command(flatten)]
        stage: StageArgs,
    },
    /// Make certificates and their keys anew; authorities are kept
    Renew {
        /// Those of a name (nodes/master/apiserver, admin, pools/workers), a
        /// machine (master) or a kind (apiserver); none: all certificates
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

/// What to wait for, and how long.
#[derive(Debug, Args)]
struct WaitArgs {
    /// Only these phases: certificates, masters, nodes, network, daemons,
    /// add-ons, and with a probe pods, services; none: all without a probe
    #[arg(long = "for", value_name = "PHASES", value_delimiter = ',')]
    phases: Vec<Phase>,

    /// Also run a pod, and reach a Service from another by DNS, ClusterIP and
    /// NodePort, in a namespace that is removed again
    #[arg(long)]
    probe: bool,

    /// At least so many Nodes in all, those of pools among them
    #[arg(long, value_name = "NUMBER")]
    nodes: Option<usize>,

    /// How long: a number with s, m or h
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = timeout)]
    timeout: Duration,

    /// Another address of the API server: a URL or HOST[:PORT]
    #[arg(long, value_name = "URL")]
    server: Option<Endpoint>,

    /// As JSON
    #[arg(long)]
    json: bool,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 60 * 60)];
    let parts = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, seconds) = parts.unzip();
    let number = number
        .filter(|number| number.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|number| number.parse::<u64>().ok());
    let time = number.zip(seconds).and_then(|(n, s)| n.checked_mul(s));
    // A year is as good as for ever.
    time.filter(|time| *time <= 365 * 24 * 60 * 60)
        .map(Duration::from_secs)
        .ok_or_else(|| "write a number with s, m or h, as in 10m".to_owned())
}

/// What to ask of OpenStack.
#[derive(Debug, Subcommand)]
enum OpenstackCommand {
    /// The routes to machines' pods that a router has, with network.mode: routed
    #[command(subcommand)]
    Routes(RoutesCommand),
}

/// What to do about routes.
#[derive(Debug, Subcommand)]
enum RoutesCommand {
    /// Print what apply would do; the exit status is 3 if there is anything
    Plan(RoutesArgs),
    /// Add what is missing, put wrong next hops right, leave foreign routes alone
    Apply(RoutesArgs),
}

/// At which router, and with whose credentials.
#[derive(Debug, Args)]
struct RoutesArgs {
    /// A cloud of clouds.yaml; none: that of OS_CLOUD, or the variables OS_*
    #[arg(long, value_name = "CLOUD")]
    os_cloud: Option<String>,

    /// Its name or ID; none: as openstack.router says, or the one that is made
    #[arg(long, value_name = "ROUTER")]
    router: Option<String>,

    /// Take away all routes to this cluster's pods
    #[arg(long)]
    none: bool,

    /// Another address of the API server, which is asked for ranges that the
    /// settings do not know: a URL or HOST[:PORT]
    #[arg(long, value_name = "URL")]
    server: Option<Endpoint>,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What to serve, and on what terms.
#[derive(Debug, Args)]
struct ServeArgs {
    /// What was rendered for machines that boot from the network
    #[arg(long, default_value = "out/pxe", value_name = "FOLDER")]
    from: PathBuf,

    /// Where kernels and initrds are, if not there
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,

    /// Where to listen; none: on all addresses, at the port of pxe.server
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// Where to listen with TLS; none: on all addresses, at the port of
    /// pxe.documents
    #[arg(long, value_name = "ADDRESS:PORT", requires = "tls_cert")]
    tls_listen: Option<SocketAddr>,

    /// The server's certificate, and those between it and its authority, PEM;
    /// documents are then given over TLS only
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// How long documents are given: a number with s, m or h
    #[arg(long = "for", default_value = "1h", value_name = "TIME", value_parser = timeout)]
    window: Duration,

    /// How long a machine may ask once more after its document was sent
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = timeout)]
    repeat: Duration,

    /// What remembers who had its document; none: served.jsonl beside what is
    /// served
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Let these machines, by name or network card, have their documents once
    /// more, also from a kgen that serves them now, and serve nothing
    #[arg(long, value_name = "MACHINES", value_delimiter = ',')]
    again: Vec<String>,

    /// Tell requests as JSON
    #[arg(long)]
    json: bool,
}

/// Whose kubeconfig, and where to.
#[derive(Debug, Args)]
struct KubeconfigArgs {
    /// One that works even when RBAC is broken; keep it apart
    #[arg(long)]
    super_admin: bool,

    /// Another address of the API server: a URL or HOST[:PORT]
    #[arg(long, value_name = "URL")]
    server: Option<Endpoint>,

    /// Put cluster, user and context into a kubeconfig that is there, and keep
    /// all else in it; none named: kubectl's, from KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    merge: Option<Option<PathBuf>>,

    /// What context and cluster are called in it
    #[arg(long, value_name = "NAME", requires = "merge", value_parser = context)]
    context: Option<String>,

    /// Make it the current context even if another one is
    #[arg(long = "use", requires = "merge")]
    make_current: bool,
}

fn context(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a name is of visible characters without spaces".to_owned());
    }
    Ok(text.to_owned())
}

/// How far to go.
#[derive(Debug, Args)]
struct StageArgs {
    /// prepare (the new one is made, and trusted beside the old), switch (the
    /// new one signs) or finish (the old one is trusted no longer); none: say
    /// which is next
    #[arg(long)]
    stage: Option<Stage>,

    /// Do not wait a day after the stage before: every machine has been made
    /// anew from its documents
    #[arg(long, requires = "stage")]
    now: bool,
}

/// The authorities that one word means.
#[derive(Debug, Clone)]
struct Authorities(Vec<Authority>);

fn authorities(text: &str) -> Result<Authorities, String> {
    if text == "all" {
        return Ok(Authorities(Authority::ALL.to_vec()));
    }
    match Authority::ALL.into_iter().find(|a| a.name() == text) {
        Some(authority) => Ok(Authorities(vec![authority])),
        None => Err("use cluster, etcd, front-proxy or all".to_owned()),
    }
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
            several: cli.user_data.several(),
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
        Some(Command::Inventory { format }) => inventory::run(input, format),
        Some(Command::Lock(pin)) => lock::run(&lock::Pin {
            input,
            archs: &pin.arch,
            versions: &pin.version,
            mirrors: &pin.mirror,
            offline: pin.offline,
            verify: pin.verify,
            dry_run: pin.dry_run,
        }),
        Some(Command::Hardening { json, at_least }) => {
            let held = hardening::run(input, json, at_least)?;
            return Ok(if held { OK } else { CHECK_FAILED });
        }
        Some(Command::Schema) => schema::run(),
        Some(Command::Certs(Certs::List { json })) => certs::list(input, json),
        Some(Command::Certs(Certs::Check { days, json })) => {
            let soon = certs::check(input, days, json)?;
            return Ok(if soon { CHECK_FAILED } else { OK });
        }
        Some(Command::Certs(Certs::RotateCa { which, stage })) => certs::rotate(&certs::Rotate {
            input,
            authorities: &which.0,
            stage: stage.stage,
            now: stage.now,
        }),
        Some(Command::Certs(Certs::RotateSa { stage })) => certs::rotate(&certs::Rotate {
            input,
            authorities: &[],
            stage: stage.stage,
            now: stage.now,
        }),
        Some(Command::Certs(Certs::Renew { names })) => certs::renew(input, &names),
        Some(Command::Completions { shell }) => manual::completions(Cli::command(), shell),
        Some(Command::Man { out }) => manual::pages(Cli::command(), &out),
        Some(Command::Wait(args)) => {
            let ready = wait::run(&wait::Wait {
                input,
                phases: &args.phases,
                probe: args.probe,
                nodes: args.nodes,
                timeout: args.timeout,
                server: args.server.as_ref(),
                json: args.json,
            })?;
            return Ok(if ready { OK } else { CHECK_FAILED });
        }
        Some(Command::Openstack(OpenstackCommand::Routes(routes))) => {
            let (args, apply) = match routes {
                RoutesCommand::Plan(args) => (args, false),
                RoutesCommand::Apply(args) => (args, true),
            };
            let done = routes::run(&routes::Routes {
                input,
                apply,
                cloud: args.os_cloud.as_deref(),
                router: args.router.as_deref(),
                none: args.none,
                server: args.server.as_ref(),
                json: args.json,
            })?;
            return Ok(if done { OK } else { CHECK_FAILED });
        }
        Some(Command::Serve(args)) => serve::run(&serve::Serve {
            from: &args.from,
            images: args.images.as_deref(),
            listen: args.listen,
            tls_listen: args.tls_listen,
            tls: args.tls_cert.as_deref().zip(args.tls_key.as_deref()),
            window: args.window,
            repeat: args.repeat,
            state: args.state.as_deref(),
            again: &args.again,
            json: args.json,
        }),
        Some(Command::Kubeconfig(args)) => kubeconfig::run(&kubeconfig::Kubeconfig {
            input,
            super_admin: args.super_admin,
            server: args.server.as_ref(),
            merge: args.merge.map(|file| kubeconfig::Merge {
                file,
                context: args.context.as_deref(),
                make_current: args.make_current,
            }),
        }),
    };
    done.map(|()| OK)
}

/// Tells what went wrong, and with which status.
fn told(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Report>() {
        Some(report) => {
            eprint!("{}", report.render(terminal::in_colour()));
            BAD_INPUT
        }
        None => {
            eprintln!("kgen: {error:#}");
            FAILED
        }
    }
}
