//! The folder on disk: cluster.yaml, kgen.lock and pki/ → what commands need.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use time::OffsetDateTime;
use units::types::{Arch, NodeName, Role};
use zeroize::Zeroizing;

use crate::artifacts::{self, KnodeSource, Lock, Wanted};
use crate::budget::{self, Target};
use crate::cluster::{Cluster, Machine};
use crate::dialect::{self, Document};
use crate::format::Format;
use crate::lint;
use crate::pki::{Material, Pki};
use crate::plan::{NodePlan, Parts};
use crate::platform::Platform;
use crate::report::{Finding, Report, Source};
use crate::settings;
use crate::system::System;
use crate::yaml;

/// The settings file, where no other is named.
pub const SETTINGS: &str = "cluster.yaml";
/// The lock beside it.
const LOCK: &str = "kgen.lock";

/// Where settings come from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Input<'a> {
    /// The settings file, if one was named.
    pub file: Option<&'a Path>,
    /// What is laid over it: `a.b[0].c=v`.
    pub set: &'a [String],
}

/// What is in the folder.
#[derive(Debug)]
pub struct Workspace {
    /// The folder of the settings file.
    pub folder: PathBuf,
    /// The cluster that is meant.
    pub cluster: Cluster,
    /// Whether there is no settings file, so that everything is assumed.
    pub builtin: bool,
    /// What in the settings is worth a second thought.
    pub warnings: Report,
    /// What machines are given besides Kubernetes.
    pub system: System,
    lock: Lock,
}

impl Workspace {
    /// Reads the settings file and the lock beside it, and tells everything
    /// that is wrong in both. Without a settings file, if none was named, the
    /// cluster is the built-in one with the machines of `fallback`.
    pub fn open(input: Input<'_>, fallback: &[(NodeName, Role)]) -> Result<Self> {
        let Input { file, set } = input;
        let path = file.unwrap_or(Path::new(SETTINGS));
        let folder = folder_of(file);
        let text = read(path)?;
        if let (None, Some(_)) = (&text, file) {
            let finding = Finding::new(format!("{}: there is no such file", path.display()))
                .help("kgen init writes one to begin with");
            return Err(Report::from(finding).into());
        }
        let builtin = text.is_none();
        if builtin && !set.is_empty() {
            let finding = Finding::new("--set changes cluster.yaml, and there is none here");
            return Err(Report::from(finding.help("kgen init writes one to begin with")).into());
        }
        let checked = match text {
            Some(text) => settings::load_with(
                &Source::new(path.display().to_string(), text),
                set,
                Some(&folder),
            ),
            None => Ok(settings::builtin(fallback)),
        };
        let lock = load_lock(&folder)?;
        match (checked, lock) {
            (Ok(checked), Ok(lock)) => {
                let cluster = Cluster::new(&checked);
                let settings = checked.settings();
                let lock = lock.narrowed(&settings.artifacts, &processors(&cluster))?;
                Ok(Self {
                    folder,
                    cluster,
                    builtin,
                    warnings: checked.warnings().clone(),
                    system: settings.system.clone(),
                    lock,
                })
            }
            (checked, lock) => {
                let mut report = checked.err().unwrap_or_default();
                report.extend(lock.err().unwrap_or_default());
                Err(report.into())
            }
        }
    }

    /// The machine that a role and a name mean.
    pub fn machine(&self, role: Option<Role>, name: Option<&NodeName>) -> Result<&Machine, Report> {
        let names = |role: Option<Role>| -> Vec<&str> {
            let machines = self.cluster.machines.iter();
            machines
                .filter(|m| role.is_none_or(|role| m.role == role))
                .map(|m| m.name.as_str())
                .collect()
        };
        let Some(name) = name else {
            let candidates = names(role);
            let role = role.map_or("any role".to_owned(), |r| format!("the role {r}"));
            return match candidates[..] {
                [only] => self.machine_named(only),
                [] => Err(Finding::new(format!("no machine has {role}"))
                    .help(format!(
                        "add one to nodes in cluster.yaml{}",
                        self.other_ways()
                    ))
                    .into()),
                _ => Err(
                    Finding::new(format!("several machines have {role}: say which"))
                        .help(format!(
                            "--name one of {}{}",
                            candidates.join(", "),
                            self.other_ways()
                        ))
                        .into(),
                ),
            };
        };
        let machine = self.machine_named(name.as_str())?;
        match role {
            Some(role) if role != machine.role => Err(Finding::new(format!(
                "{name} has the role {} in cluster.yaml, not {role}",
                machine.role
            ))
            .into()),
            _ => Ok(machine),
        }
    }

    /// What else there are documents for.
    fn other_ways(&self) -> String {
        let pools = self.cluster.pools.iter();
        let flags = pools.map(|pool| match pool.is_pool() {
            true => format!(", or --pool {}", pool.name),
            false => ", or --by-hostname".to_owned(),
        });
        flags.collect()
    }

    fn machine_named(&self, name: &str) -> Result<&Machine, Report> {
        self.cluster.machine(name).ok_or_else(|| {
            let names: Vec<&str> = self
                .cluster
                .machines
                .iter()
                .map(|m| m.name.as_str())
                .collect();
            let help = match yaml::nearest(name, names.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("there are {}", names.join(", ")),
            };
            Finding::new(format!("no machine is called {name}"))
                .help(help)
                .into()
        })
    }

    /// Where the lock is, whether it is there or not.
    pub fn lock_path(&self) -> PathBuf {
        let path = self.folder.join(LOCK);
        path.strip_prefix(".").unwrap_or(&path).to_owned()
    }

    /// Opens `pki/`, waiting for any other kgen that has it.
    pub fn pki(&self) -> Result<Pki> {
        Pki::open(&self.folder, OffsetDateTime::now_utc())
    }

    /// Where machines find knode, and meanwhile what `work` returns: hashing
    /// the knode beside kgen takes as long as all the rest.
    pub fn knode_beside<T>(
        &self,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(Vec<KnodeSource>, T)> {
        thread::scope(|threads| {
            let knode = threads.spawn(|| self.knode());
            let done = work()?;
            let knode = knode
                .join()
                .map_err(|_| anyhow!("hashing knode panicked"))?;
            Ok((knode?, done))
        })
    }

    /// Where machines find knode.
    pub fn knode(&self) -> Result<Vec<KnodeSource>> {
        let needed = processors(&self.cluster);
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.join("knode")));
        artifacts::knode_sources(&self.lock, &needed, beside.as_deref())
    }

    /// Plans a machine with its certificates and keys.
    pub fn plan(
        &self,
        machine: &Machine,
        knode: &[KnodeSource],
        material: &Material,
    ) -> Result<NodePlan> {
        let version = self.cluster.version.to_string();
        let wanted = Wanted {
            role: machine.role,
            etcd: self.cluster.runs_etcd(machine),
            static_pods: self.cluster.static_pods,
            arch: machine.arch,
            kubernetes: &version,
            runtime: self.cluster.runtime_source,
        };
        let artifacts = artifacts::select(&self.lock, wanted)?;
        let etcd = self.lock.newest("etcd", machine.arch);
        let plan = NodePlan::new(Parts {
            cluster: &self.cluster,
            machine,
            material,
            artifacts: &artifacts,
            etcd_version: etcd.map(|entry| entry.version.as_str()),
            knode,
            system: &self.system,
        })?;
        lint::plan(&plan)?;
        Ok(plan)
    }

    /// In which form documents are sent: as asked for, else as set, else the
    /// default.
    pub fn target(&self, asked: Asked) -> Result<Target, Report> {
        let set = &self.cluster;
        let target = Target {
            format: asked.format.or(set.format).unwrap_or_default(),
            platform: asked.platform.or(set.platform).unwrap_or_default(),
            gzip: asked.gzip || set.gzip,
        };
        target.check()
    }
}

/// What flags say of the form of documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// The language.
    pub format: Option<Format>,
    /// What hands them to machines.
    pub platform: Option<Platform>,
    /// Whether they are compressed as a whole.
    pub gzip: bool,
}

/// The bytes that a machine is sent, if its platform takes them.
pub fn user_data(plan: &NodePlan, target: Target) -> Result<Zeroizing<Vec<u8>>> {
    budget::sent(plan, &document(plan, target.format)?, target)
}

/// Writes a plan in a language and looks at the result once more.
pub fn document(plan: &NodePlan, format: Format) -> Result<Document> {
    dialect::check(plan, format)?;
    let document = dialect::render(plan, format)?;
    lint::ours(&document, format)?;
    Ok(document)
}

/// The processors of all machines.
fn processors(cluster: &Cluster) -> Vec<Arch> {
    let mut archs: Vec<Arch> = cluster.documents().map(|m| m.arch).collect();
    archs.sort_unstable();
    archs.dedup();
    archs
}

/// The folder of the settings file.
pub fn folder_of(file: Option<&Path>) -> PathBuf {
    match file.and_then(Path::parent) {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn load_lock(folder: &Path) -> Result<Result<Lock, Report>> {
    let path = folder.join(LOCK);
    let shown = path
        .strip_prefix(".")
        .unwrap_or(&path)
        .display()
        .to_string();
    Ok(match read(&path)? {
        Some(text) => Lock::load(&Source::new(shown, text)),
        None => Lock::builtin(),
    })
}

/// A file that was typed; none if there is no such file.
pub fn source(path: &Path) -> Result<Option<Arc<Source>>> {
    let text = read(path)?;
    Ok(text.map(|text| Source::new(path.display().to_string(), text)))
}

/// The text of a file; none if there is no such file.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let finding = Finding::new(format!("{}: is not text in UTF-8", path.display()));
            Err(Report::from(finding).into())
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
