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
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use time::OffsetDateTime;
use units::types::Role;

pub use inventory::{Listed, inventory};
pub use issue::Pair;
pub use profile::{AltName, Authority, Leaf, Profile};

use crate::cluster::{Cluster, Machine};
use crate::report::{Finding, Report};
use crate::secret::Secret;
use issue::Key;
use load::Loaded;
use store::Store;

/// The certificates and keys of one machine.
#[derive(Debug)]
pub struct Material {
    /// The authorities it knows, with their keys where it needs them.
    pub authorities: BTreeMap<Authority, (String, Option<Secret>)>,
    /// Its own certificates.
    pub leaves: BTreeMap<Leaf, Pair>,
    /// What only masters have.
    pub master: Option<MasterKeys>,
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

    /// Everything one machine gets, read or made.
    pub fn machine(&mut self, cluster: &Cluster, machine: &Machine) -> Result<Material> {
        let mut authorities = BTreeMap::new();
        for (authority, with_key) in profile::authorities(machine.role) {
            let Some(loaded) = self.authority(*authority)? else {
                continue;
            };
            let certificate = loaded.certificate.clone();
            let key = loaded.key.clone().filter(|_| *with_key);
            if *with_key && key.is_none() {
                self.missing_key(*authority);
            }
            authorities.insert(*authority, (certificate, key));
        }
        let mut leaves = BTreeMap::new();
        for leaf in profile::leaves(cluster, machine) {
            let stem = format!("nodes/{}/{}", machine.name, leaf.stem());
            let profile = profile::of_machine(leaf, cluster, machine);
            if let Some(pair) = self.leaf(leaf.authority(), &stem, &profile)? {
                leaves.insert(leaf, pair);
            }
        }
        let master = match machine.role {
            Role::Master => self.master_keys(cluster)?,
            Role::Node | Role::Etcd => None,
        };
        self.check()?;
        Ok(Material {
            authorities,
            leaves,
            master,
        })
    }

    /// The operator's certificate and the cluster's authority.
    pub fn operator(&mut self, super_admin: bool) -> Result<(String, Pair)> {
        let (leaf, profile) = profile::of_operator(super_admin);
        let pair = self.leaf(leaf.authority(), leaf.stem(), &profile)?;
        let authority = self
            .authority(leaf.authority())?
            .map(|loaded| loaded.certificate.clone());
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
