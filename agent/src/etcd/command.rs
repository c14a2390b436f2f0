//! `knode etcd`: what an operator asks for on a machine with a member.

mod restore;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use tokio::time::Instant;

use super::config::Config;
use super::mark::{self, Mark};
use super::{hex, join, ring, snapshots};
use crate::error::{Code, Context as _, Error, Result};
use crate::run;
use crate::sys::bus::Bus;
use crate::sys::etcd::{Gateway, LOCAL, Member};
use crate::sys::lock::Lock;
use crate::sys::root::Root;
use units::node_config::Service;
use units::paths;

/// How long a member may take to be back.
const BACK: Duration = Duration::from_secs(180);
/// How long knode's own work on the member is waited for.
const HELD: Duration = Duration::from_secs(120);

/// What is asked for.
#[derive(Debug, Subcommand)]
pub enum Request {
    /// List the ring's members, and how each is.
    Members,
    /// Save this member's database in a file, and verify it.
    ///
    /// Without FILE it goes where the machine's own snapshots are.
    Snapshot {
        /// Where it goes; what is there is replaced.
        file: Option<PathBuf>,
    },
    /// Begin a ring anew from a snapshot, with this machine as its only member.
    ///
    /// What is in the ring and not in the snapshot is lost. The old data are
    /// moved aside and stay. Then run `knode etcd rejoin` on each other machine
    /// of the ring that has data; one without comes back by itself.
    Restore {
        /// The snapshot.
        file: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Bring this machine's member into the ring again, without its data.
    ///
    /// They are moved aside and stay; the others' come from the ring, most of
    /// which has to be healthy.
    Rejoin {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Take this machine's member out of the ring.
    ///
    /// Its data are moved aside and stay.
    Leave {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Take another machine's member out of the ring.
    Remove {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Write this member's database anew, so that its file gives back what is
    /// not in use. It answers nobody meanwhile.
    Defragment,
}

/// Does what is asked for.
///
/// # Errors
///
/// [`Code::Etcd`] and its kin with the ring's reason, [`Code::Disk`].
pub fn main(request: &Request) -> Result<ExitCode> {
    run::runtime()?.block_on(async {
        let root = Root::new("/");
        let config = Config::read(&root)?;
        let command = Command {
            gateway: Gateway::new(&root)?,
            root,
            config,
        };
        match request {
            Request::Members => command.members().await?,
            Request::Snapshot { file } => command.snapshot(file.as_deref()).await?,
            Request::Restore { file, yes } => command.restore(file, *yes).await?,
            Request::Rejoin { yes } => command.rejoin(*yes).await?,
            Request::Leave { yes } => command.leave(*yes).await?,
            Request::Remove { name, yes } => command.remove(name, *yes).await?,
            Request::Defragment => command.defragment().await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

struct Command {
    root: Root,
    config: Config,
    gateway: Gateway,
}

impl Command {
    async fn members(&self) -> Result<()> {
        let members = match self.gateway.members(LOCAL).await {
            Ok(members) => members,
            // The others know as well.
            Err(error) => match ring::look(&self.gateway, &self.config).await.ring {
                Some(ring) => ring,
                None => return Err(error),
            },
        };
        let healthy = ring::healthy(&self.gateway, &members).await;
        for member in &members {
            let status = self.gateway.status(ring::url(member)).await;
            let how = match (healthy.contains(&member), &status) {
                (false, _) => "not healthy",
                (true, _) if member.learner => "learner",
                (true, Ok(status)) if status.leader == status.id => "leader",
                (true, _) => "healthy",
            };
            let size = status.map_or(String::new(), |status| {
                format!("{} MB", status.size.div_ceil(1_000_000))
            });
            let (id, name) = (hex(member.id), &member.name);
            let urls = member.peer_urls.join(",");
            print(&format!(
                "{id:<16}  {name:<20}  {how:<11}  {size:>8}  {urls}\n"
            ))?;
        }
        Ok(())
    }

    async fn snapshot(&self, file: Option<&Path>) -> Result<()> {
        let node = run::read_configuration(&self.root).ok();
        let settings = node.and_then(|(_, node)| node.etcd?.snapshots);
        let file = snapshots::target(file, settings.as_ref(), &self.config.name);
        let doing = || format!("looking for {}", file.display());
        let file = std::path::absolute(&file).context(Code::Disk, doing)?;
        if let (None, Some(settings)) = (file.parent().filter(|f| f.is_dir()), &settings) {
            self.root.create_dir(&settings.folder, 0o700)?;
        }
        let bar = std::io::stderr().is_terminal();
        let mut told = 0;
        let size = self.gateway.save(LOCAL, &file, |done, all| {
            let percent = done * 100 / all.max(1);
            if bar && percent != told {
                told = percent;
                eprint!("\r{percent:>3} % of {} MB", all.div_ceil(1_000_000));
            }
        });
        let size = size.await?;
        if bar {
            eprintln!();
        }
        print(&format!("{} ({size} bytes, verified)\n", file.display()))
    }

    async fn defragment(&self) -> Result<()> {
        let before = self.gateway.status(LOCAL).await?;
        self.gateway.defragment(LOCAL).await?;
        let after = self.gateway.status(LOCAL).await?;
        print(&format!("{} → {} bytes\n", before.size, after.size))
    }

    async fn rejoin(&self, yes: bool) -> Result<()> {
        self.as_service()?;
        let seen = ring::look(&self.gateway, &self.config).await;
        if seen.healthy.is_empty() {
            let story = "the ring has no majority without this member: nothing was done";
            return Err(Error::new(Code::EtcdQuorum, story));
        }
        let name = &self.config.name;
        let ring = seen.ring.unwrap_or_default();
        let others = ring.iter().filter(|member| member.name != *name);
        self.majority_of(&others.collect::<Vec<_>>()).await?;
        let question = format!(
            "The data of {name} will be moved aside, and it gets those of its ring. Go on?"
        );
        confirm(yes, &question)?;
        let lock = self.hold().await?;
        self.stop().await?;
        self.tell_aside(join::set_aside(&self.root, &self.config)?)?;
        let mark = Mark {
            asked: true,
            ..mark::read(&self.root)?
        };
        mark::keep(
            &self.root,
            &Mark {
                left: false,
                ..mark
            },
        )?;
        // knode does the rest, as it does where the data were lost.
        drop(lock);
        self.until_back().await
    }

    async fn leave(&self, yes: bool) -> Result<()> {
        self.as_service()?;
        let own = self.gateway.status(LOCAL).await?.id;
        let members = self.gateway.members(LOCAL).await?;
        let others: Vec<&Member> = members.iter().filter(|one| one.id != own).collect();
        let healthy = self.majority_of(&others).await?;
        let question = format!("{} will leave its ring. Go on?", self.config.name);
        confirm(yes, &question)?;
        let _lock = self.hold().await?;
        self.gateway.remove(ring::url(&healthy), own).await?;
        self.stop().await?;
        self.tell_aside(join::set_aside(&self.root, &self.config)?)?;
        let left = Mark {
            left: true,
            ..Mark::default()
        };
        mark::keep(&self.root, &left)?;
        print("it has left; take the machine out of the settings before it is rendered again\n")
    }

    async fn remove(&self, name: &str, yes: bool) -> Result<()> {
        let members = self.gateway.members(LOCAL).await?;
        let called = |member: &&Member| member.name == name;
        let Some(gone) = members.iter().find(called) else {
            let story = format!("the ring has no member {name}");
            return Err(Error::new(Code::Etcd, story));
        };
        if name == self.config.name {
            let story = "this machine's own member leaves with: knode etcd leave";
            return Err(Error::new(Code::Etcd, story));
        }
        let others: Vec<&Member> = members.iter().filter(|one| one.id != gone.id).collect();
        self.majority_of(&others).await?;
        confirm(
            yes,
            &format!("{name} will be taken out of the ring. Go on?"),
        )?;
        self.gateway.remove(LOCAL, gone.id).await?;
        print(&format!("{name} is out of the ring\n"))
    }

    /// One of these members, if they would be a ring with a majority.
    async fn majority_of(&self, members: &[&Member]) -> Result<Member> {
        let voters = members.iter().filter(|member| !member.learner);
        let voters: Vec<Member> = voters.copied().cloned().collect();
        let healthy = ring::healthy(&self.gateway, &voters).await;
        match healthy.first() {
            Some(first) if healthy.len() > voters.len() / 2 => Ok((*first).clone()),
            _ => {
                let count = (healthy.len(), voters.len());
                let story = format!(
                    "{} of the {} members that would stay are healthy: nothing was done",
                    count.0, count.1
                );
                Err(Error::new(Code::EtcdQuorum, story))
            }
        }
    }

    /// Keeps knode from the member.
    async fn hold(&self) -> Result<Lock> {
        let began = Instant::now();
        loop {
            match join::hold(&self.root) {
                Ok(lock) => return Ok(lock),
                Err(error) if began.elapsed() > HELD => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// What a kubelet runs is not stopped by systemd.
    fn as_service(&self) -> Result<()> {
        let node = run::read_configuration(&self.root)?.1;
        if node.static_pods.contains(&Service::Etcd) {
            let story = "etcd is a static pod here, with which this cannot be done";
            return Err(Error::new(Code::Etcd, story));
        }
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        let doing = || format!("stopping {}", Service::Etcd.unit());
        let bus = Bus::connect().await.context(Code::Bus, doing)?;
        bus.stop(Service::Etcd.unit())
            .await
            .context(Code::Bus, doing)
    }

    fn tell_aside(&self, aside: Option<PathBuf>) -> Result<()> {
        match aside {
            Some(folder) => print(&format!("the old data are in {}\n", folder.display())),
            None => Ok(()),
        }
    }

    /// Until knode has started the member, and it has its vote.
    async fn until_back(&self) -> Result<()> {
        print("waiting for knode to start it\n")?;
        let began = Instant::now();
        loop {
            let own = self.gateway.status(LOCAL).await;
            let error = match own {
                Ok(own) if !own.learner => match self.gateway.healthy(LOCAL).await {
                    Ok(()) => return self.members().await,
                    Err(error) => error,
                },
                Ok(_) => Error::new(Code::Etcd, "it has no vote yet"),
                Err(error) => error,
            };
            if began.elapsed() > BACK {
                let story = "it is not back yet: see knode status".to_owned();
                return Err(Error::new(Code::Etcd, story).because(error.story()));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Goes on where an operator says so.
fn confirm(yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let no = |story: &str| Err(Error::new(Code::Etcd, story));
    if !std::io::stdin().is_terminal() {
        return no("nothing was done: there is nobody to be asked; --yes says it beforehand");
    }
    print(&format!("{question} Type yes: "))?;
    let reading = || "reading the answer".to_owned();
    std::io::stdout().flush().context(Code::Disk, reading)?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.context(Code::Disk, reading)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => no("nothing was done"),
    }
}

/// To standard output.
fn print(text: &str) -> Result<()> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.context(Code::Disk, || "writing to standard output".to_owned())
}

/// etcdutl, which comes with etcd.
fn etcdutl() -> PathBuf {
    Path::new(paths::KUBERNETES_BIN).join("etcdutl")
}
