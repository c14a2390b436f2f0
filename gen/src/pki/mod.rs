//! The cluster's certificates and keys: made once, kept in `pki/`, used again,
//! so that the same input gives the same bytes.
//!
//! [`profile`] says what there is, [`issue`] makes it, [`store`] keeps it.
//! Nothing is written before [`Pki::commit`]; until then everything made is in
//! memory, and whatever is wrong leaves the folder as it was.

mod certificate;
mod inventory;
mod issue;
mod load;
mod master;
mod pem;
mod profile;
mod renew;
mod rotate;
mod stage;
mod store;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use time::OffsetDateTime;
use units::types::Role;

pub use inventory::{Kind, Listed, inventory};
pub use issue::Pair;
pub use profile::{AltName, Authority, Leaf, Profile, leaves as leaves_of, of_machine};
pub use stage::{Rotation, Stage, command as rotate_command, rotations};
pub use token::Token;

use crate::cluster::{Cluster, Machine};
use crate::report::{Finding, Report};
use crate::secret::Secret;
use issue::Key;
use load::Loaded;
use store::Store;

/// The certificates and keys of one machine.
#[derive(Debug)]
pub struct Material {
    /// The authorities it knows, PEM, and their keys where it needs them. While
    /// one is replaced, both are there; the key is that of the first.
    pub authorities: BTreeMap<Authority, (String, Option<Secret>)>,
    /// The cluster's signing certificate alone, where its authority has more
    /// than that and the machine signs.
    pub signing: Option<String>,
    /// Its own certificates.
    pub leaves: BTreeMap<Leaf, Pair>,
    /// What only masters have.
    pub master: Option<MasterKeys>,
    /// Bootstrap tokens: the one that machines with this document come by; on
    /// masters all.
    pub tokens: Vec<Token>,
}

/// Keys without certificates, all masters' alike.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    /// Signs service account tokens, PEM.
    pub service_account: Secret,
    /// Its public key, PKIX PEM.
    pub service_account_public: String,
    /// Encrypts secrets at rest: 32 bytes in base64.
    pub encryption: Secret,
}

/// The folder `pki/` and what was read from it or made for it.
pub struct Pki {
    store: Store,
    now: OffsetDateTime,
    authorities: BTreeMap<Authority, Loaded>,
    master: Option<MasterKeys>,
    report: Report,
    notes: Vec<String>,
    tokens: BTreeMap<String, Token>,
    /// Leaves that are made anew although they fit.
    renewing: BTreeSet<String>,
}

impl Pki {
    /// Opens `pki/` in `workspace`, which need not be there yet.
    pub fn open(workspace: &Path, now: OffsetDateTime) -> Result<Self> {
        Ok(Self {
            store: Store::open(workspace)?,
            now,
            authorities: BTreeMap::new(),
            master: None,
            report: Report::default(),
            notes: Vec::new(),
            tokens: BTreeMap::new(),
            renewing: BTreeSet::new(),
        })
    }

    /// Where everything is kept.
    pub fn folder(&self) -> &Path {
        self.store.folder()
    }

    /// What the operator should hear: what was made, and why.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The same folder for another thread: what it makes is joined to this one
    /// again. Authorities and keys that all machines of the cluster share are
    /// read or made first, so that each is made once.
    pub fn fork(&mut self, cluster: &Cluster) -> Result<Self> {
        for role in Role::ALL {
            if cluster.of_role(role).next().is_some() {
                for (authority, _) in profile::authorities(role) {
                    self.authority(*authority)?;
                }
            }
        }
        if cluster.of_role(Role::Master).next().is_some() {
            self.master_keys(cluster)?;
        }
        self.all_tokens(cluster)?;
        if cluster.docker_port.is_some() {
            self.authority(Authority::Docker)?;
        }
        self.check()?;
        Ok(Self {
            store: self.store.fork(),
            now: self.now,
            authorities: self.authorities.clone(),
            master: self.master.clone(),
            tokens: self.tokens.clone(),
            report: Report::default(),
            notes: Vec::new(),
            renewing: self.renewing.clone(),
        })
    }

    /// Takes over what a fork made.
    pub fn join(&mut self, fork: Self) -> Result<()> {
        self.notes.extend(fork.notes);
        self.report.extend(fork.report);
        self.store.join(fork.store)
    }

    /// Everything one machine gets, read or made.
    pub fn machine(&mut self, cluster: &Cluster, machine: &Machine) -> Result<Material> {
        let mut authorities = BTreeMap::new();
        let mut signing = None;
        let docker = cluster
            .docker_on(machine)
            .map(|_| (Authority::Docker, false));
        for (authority, with_key) in profile::authorities(machine.role).iter().chain(&docker) {
            let Some(loaded) = self.authority(*authority)? else {
                continue;
            };
            let certificate = loaded.bundle.clone();
            if *authority == Authority::Cluster && *with_key && loaded.signing != loaded.bundle {
                signing = Some(loaded.signing.clone());
            }
            let key = loaded.key.clone().filter(|_| *with_key);
            if *with_key && key.is_none() {
                self.missing_key(*authority);
            }
            authorities.insert(*authority, (certificate, key));
        }
        let mut leaves = BTreeMap::new();
        for leaf in leaves_of(cluster, machine) {
            let stem = format!("nodes/{}/{}", machine.name, leaf.stem());
            let profile = of_machine(leaf, cluster, machine);
            if let Some(pair) = self.leaf(leaf.authority(), &stem, &profile)? {
                leaves.insert(leaf, pair);
            }
        }
        let master = match machine.role {
            Role::Master => self.master_keys(cluster)?,
            Role::Node | Role::Etcd => None,
        };
        let tokens = self.tokens(cluster, machine)?;
        self.check()?;
        Ok(Material {
            authorities,
            signing,
            leaves,
            master,
            tokens,
        })
    }

    /// The operator's certificate and the cluster's authority.
    pub fn operator(&mut self, super_admin: bool) -> Result<(String, Pair)> {
        self.of_operator(profile::of_operator(super_admin))
    }

    /// The operator's certificate for Docker daemons, and their authority.
    pub fn docker_client(&mut self) -> Result<(String, Pair)> {
        self.of_operator(profile::of_docker_client())
    }

    fn of_operator(&mut self, (leaf, profile): (Leaf, Profile)) -> Result<(String, Pair)> {
        let pair = self.leaf(leaf.authority(), leaf.stem(), &profile)?;
        let authority = self
            .authority(leaf.authority())?
            .map(|loaded| loaded.bundle.clone());
        self.check()?;
        match (authority, pair) {
            (Some(authority), Some(pair)) => Ok((authority, pair)),
            _ => bail!("the operator's certificate could not be made"),
        }
    }

    /// Writes what was made.
    pub fn commit(&mut self) -> Result<()> {
        self.check()?;
        self.store.commit()
    }

    fn check(&mut self) -> Result<()> {
        std::mem::take(&mut self.report).into_result()?;
        Ok(())
    }

    /// A key's file; one that others may read is told.
    fn secret(&mut self, file: &str) -> Result<Option<Secret>> {
        let Some((secret, exposed)) = self.store.secret(file)? else {
            return Ok(None);
        };
        if exposed {
            let path = self.shown(file);
            self.notes
                .push(format!("others than you may read {path}: chmod 600 {path}"));
        }
        Ok(Some(secret))
    }

    /// An error about a file becomes a finding.
    fn look<T>(&mut self, file: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let finding = Finding::new(format!("{}: {error:#}", self.shown(file)));
                self.report.add(finding);
                None
            }
        }
    }

    fn mismatch(&mut self, key: &str, other: &str) {
        let finding = Finding::new(format!(
            "{} does not belong to {}",
            self.shown(key),
            self.shown(other)
        ))
        .help("put the right one of the two back, or remove both to have them made anew");
        self.report.add(finding);
    }

    fn missing_key(&mut self, authority: Authority) {
        let file = format!("{}.key", authority.stem());
        let finding = Finding::new(format!("{}: is missing", self.shown(&file)))
            .help("it is needed to sign; bring it from where the cluster was first generated");
        self.report.add(finding);
    }

    fn shown(&self, file: &str) -> String {
        self.store.path(file).display().to_string()
    }
}

fn parse_key(secret: &Secret) -> Result<Key> {
    Key::parse(secret.expose_text().unwrap_or_default())
}
