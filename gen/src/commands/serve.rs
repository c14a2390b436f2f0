//! `kgen serve`: a web server for machines that boot from the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal;
use crate::cluster::BaseUrl;
use crate::pxe::index::{self, Index};
use crate::report::{Finding, Report};
use crate::serve::audit::Audit;
use crate::serve::catalogue::Catalogue;
use crate::serve::ledger::{Terms, shown};
use crate::serve::table::Table;
use crate::serve::{Journal, Service, serve, tls_config};
use crate::yaml;

/// What remembers who had its document, beside what is served.
const STATE: &str = "served.jsonl";
/// The port of TLS where no URL has one.
const TLS_PORT: u16 = 8443;

/// So many that knock at once may wait to be let in, if the system allows it
/// (net.core.somaxconn); the standard library's are 128.
const QUEUE: i32 = 4096;
/// So many threads read files: a disk does no more at once, and what is read
/// often is in memory.
const READERS: usize = 16;
/// So many connections are of use at once.
const MOST: usize = 8192;
/// So many are good where the system does not say what it allows.
const FEW: usize = 256;
/// Files that are not of connections, in pairs.
const SPARE: usize = 16;

/// What to serve, where and how.
#[derive(Debug)]
pub struct Serve<'a> {
    /// What `kgen render` wrote: its folder `pxe`.
    pub from: &'a Path,
    /// Where kernels and initrds are; none: there too.
    pub images: Option<&'a Path>,
    /// Where to listen; none: at the port of the settings.
    pub listen: Option<SocketAddr>,
    /// The same with TLS.
    pub tls_listen: Option<SocketAddr>,
    /// The server's certificate and key, for TLS.
    pub tls: Option<(&'a Path, &'a Path)>,
    /// How long documents are given.
    pub window: Duration,
    /// How long after its document was sent a machine may ask again.
    pub repeat: Duration,
    /// What remembers who had its document; none: a file beside what is served.
    pub state: Option<&'a Path>,
    /// Machines that may have their documents once more; nothing is served then.
    pub again: &'a [String],
    /// Whether requests are told as JSON.
    pub json: bool,
}

/// Serves until somebody ends it, or lets machines have their documents again.
pub fn run(args: &Serve<'_>) -> Result<()> {
    let index = index(args.from)?;
    let boot = args.images.unwrap_or(args.from);
    let table = Table::new(&index, args.from, boot);
    let table = table.map_err(|why| damaged(args.from, &why))?;
    let state = match args.state {
        Some(path) => path.to_owned(),
        None => args.from.join(STATE),
    };
    if !args.again.is_empty() {
        return again(args.again, &table, &index, &state);
    }
    match Catalogue::read(boot)? {
        Some(catalogue) => images(&catalogue, &table.boot_files(), &index)?,
        None => {
            for file in table.boot_files().iter().filter(|file| !file.is_file()) {
                let file = file.display();
                terminal::say(&format!(
                    "kgen: {file} is not there yet; machines wait for it"
                ));
            }
        }
    }
    let (plain, tls) = listeners(args, &index)?;
    let connections = room();
    let since = OffsetDateTime::now_utc();
    let terms = Terms {
        since,
        window: args.window,
        again: args.repeat,
    };
    for (scheme, listener) in [
        ("http", plain.as_ref()),
        ("https", tls.as_ref().map(|(listener, _)| listener)),
    ] {
        if let Some(listener) = listener {
            let address = listener.local_addr()?;
            terminal::say(&format!(
                "kgen: serving {} at {scheme}://{address}",
                index.cluster
            ));
        }
    }
    let machines = index.machines.len();
    terminal::say(&format!(
        "kgen: {machines} documents, each once, until {}",
        shown(since + args.window)
    ));
    if tls.is_none() {
        terminal::say(
            "kgen: documents, and the keys in them, go over this network in the clear; \
             --tls-cert and --tls-key give them over TLS",
        );
    }
    let service = Service {
        table,
        journal: Journal::open(&state)?,
        terms,
        audit: Audit::new(args.json, Box::new(io::stdout())),
        connections,
        plain,
        tls,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READERS)
        .build()
        .context("starting to use the network")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("awaiting signals")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                // Without it only the other signal ends the program.
                Ok(()) = tokio::signal::ctrl_c() => {}
            }
            terminal::say("kgen: ending what is on its way");
        };
        serve(service, stop).await
    })
}

/// Tells of images that were built, if they are what was built.
fn images(catalogue: &Catalogue, files: &[&Path], index: &Index) -> Result<()> {
    let checked = catalogue.check(files)?;
    let path = catalogue.path().display();
    let size = |(name, size): &(String, u64)| format!("{name} ({:.1} MB)", *size as f64 / 1e6);
    let good: Vec<String> = checked.good.iter().map(size).collect();
    if !good.is_empty() {
        let (good, kernel) = (good.join(" and "), catalogue.kernel());
        terminal::say(&format!("kgen: {good} as {path} says, Linux {kernel}"));
    }
    let mut warnings = Report::default();
    for file in &checked.unknown {
        let finding = Finding::new(format!("{path} does not know {}", file.display()));
        let help = "it is served unchecked; pxe.images in the settings names kernel and initrd";
        warnings.add(finding.warning().help(help));
    }
    match catalogue.has_knode(&index.knode) {
        Some(Ok(())) => terminal::say("kgen: documents name the knode in it: nobody downloads one"),
        Some(Err(finding)) => warnings.add(finding),
        None => {}
    }
    terminal::warn(&warnings);
    Ok(())
}

/// Lets machines have their documents once more, of this program or of one
/// that serves them now.
fn again(words: &[String], table: &Table, index: &Index, state: &Path) -> Result<()> {
    let (mut macs, mut report) = (Vec::new(), Report::default());
    for word in words {
        let Some(machine) = table.machine(word) else {
            let names: Vec<&str> = index.machines.iter().map(|m| m.name.as_str()).collect();
            let help = match yaml::nearest(word, names.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("there are {}", names.join(", ")),
            };
            let finding = format!("no machine has the name or the network card {word}");
            report.add(Finding::new(finding).help(help));
            continue;
        };
        macs.push(machine.mac);
    }
    report.into_result()?;
    Journal::open(state)?.allow(&macs)?;
    for word in words {
        terminal::say(&format!("kgen: {word} may have its document once more"));
    }
    Ok(())
}

fn index(from: &Path) -> Result<Index> {
    let path = from.join(index::NAME);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let finding = Finding::new(format!("{}: there is no such file", path.display()));
            let help = "kgen render -o out writes it to out/pxe, with platform: pxe; --from names \
                        another folder";
            return Err(Report::from(finding.help(help)).into());
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let index: Index =
        serde_json::from_str(&text).map_err(|error| damaged(from, &error.to_string()))?;
    if !index.is_known() {
        let why = format!(
            "is of the form {}, which this kgen does not know",
            index.version
        );
        return Err(damaged(from, &why).into());
    }
    Ok(index)
}

fn damaged(from: &Path, why: &str) -> Report {
    let path = from.join(index::NAME);
    let finding = Finding::new(format!("{}: {why}", path.display()));
    finding.help("kgen render writes it anew").into()
}

type Tls = (TcpListener, std::sync::Arc<rustls::ServerConfig>);

/// Where connections come in: in the clear where the settings say http, over
/// TLS where there is a certificate.
fn listeners(args: &Serve<'_>, index: &Index) -> Result<(Option<TcpListener>, Option<Tls>)> {
    let url = |text: &str| -> Result<BaseUrl> {
        let url: Result<BaseUrl, _> = text.parse();
        url.map_err(|error| damaged(args.from, &error.to_string()).into())
    };
    let (server, documents) = (url(&index.server)?, url(&index.documents)?);
    let plain = args
        .listen
        .or_else(|| (!server.is_https()).then(|| any(&server, server.port())));
    let secured = [&documents, &server].into_iter().find(|u| u.is_https());
    let tls = match args.tls {
        Some((certificate, key)) => {
            let config = tls_config(certificate, key)?;
            let url = secured.unwrap_or(&server);
            let port = secured.map_or(TLS_PORT, BaseUrl::port);
            Some((bind(args.tls_listen.unwrap_or(any(url, port)))?, config))
        }
        None if plain.is_none() => {
            let finding = Finding::new(format!("{server} is reached over TLS"));
            let help = "--tls-cert and --tls-key name the server's certificate and key; --listen \
                        serves in the clear, for something before it that has them";
            return Err(Report::from(finding.help(help)).into());
        }
        None => None,
    };
    Ok((plain.map(bind).transpose()?, tls))
}

/// All addresses of the kind that a URL has.
fn any(url: &BaseUrl, port: u16) -> SocketAddr {
    match url.address() {
        Some(IpAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, port).into(),
        _ => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listening = || format!("listening at {address}");
    let listener = TcpListener::bind(address).with_context(listening)?;
    // Whoever finds no place in the queue asks again a second later.
    let queue = Backlog::new(QUEUE).context("the length of a queue")?;
    listen(&listener, queue).with_context(listening)?;
    Ok(listener)
}

/// How many connections there may be at once: as many as the system allows, and
/// as are of use.
fn room() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return FEW;
    };
    // Fewer connections at once are slower, and no failure.
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let files = if raised { hard } else { soft };
    // Each is an open file, and may read one.
    let most = usize::try_from(files / 2).unwrap_or(MOST);
    most.saturating_sub(SPARE).clamp(1, MOST)
}
