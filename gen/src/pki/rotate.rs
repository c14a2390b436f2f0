//! Authorities and the key of service accounts replaced in three stages, so
//! that at no time somebody is asked to trust what he does not know yet.
//!
//! | Stage | signs | is trusted | in `pki/` |
//! |---|---|---|---|
//! | before | old | old | `ca.*` |
//! | prepare | old | both | `ca.*`, `ca-next.*` |
//! | switch | new | both | `ca-previous.*`, `ca.*` |
//! | finish | new | new | `ca.*` |
//!
//! Each stage is complete when every machine has been made anew from its
//! documents. The files alone say which stage it is.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::issue::{Pair, service_account};
use super::load::Loaded;
use super::profile::{self, Authority};
use super::stage::{NEXT, PREVIOUS, Stage, command};
use super::{Pki, certificate, issue, parse_key};
use crate::cluster::Cluster;
use crate::report::Finding;

/// So long machines are given to be made anew, unless the operator knows.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

impl Pki {
    /// Takes authorities one stage further. `hasty`: whether machines have
    /// been made anew is the operator's knowledge, and not waited for. Says
    /// whose documents have changed.
    pub fn rotate_authorities(
        &mut self,
        cluster: &Cluster,
        which: &[Authority],
        stage: Stage,
        hasty: bool,
    ) -> Result<Vec<String>> {
        for authority in which {
            self.in_order(authority.stem(), "crt", authority.name(), stage, hasty)?;
        }
        self.check()?;
        for authority in which {
            match stage {
                Stage::Prepare => self.prepare(*authority)?,
                Stage::Switch => self.switch(*authority)?,
                Stage::Finish => self.finish(authority.stem(), "crt"),
            }
        }
        self.check()?;
        let concerns = |machine: &&crate::cluster::Machine| {
            let known = profile::authorities(machine.role);
            known.iter().any(|(known, _)| which.contains(known))
        };
        let machines: Vec<_> = cluster.machines.iter().filter(concerns).collect();
        if stage == Stage::Switch {
            for machine in &machines {
                for leaf in profile::leaves(cluster, machine) {
                    let stem = format!("nodes/{}/{}", machine.name, leaf.stem());
                    if which.contains(&leaf.authority()) && self.is_there(&stem) {
                        let profile = profile::of_machine(leaf, cluster, machine);
                        self.leaf(leaf.authority(), &stem, &profile)?;
                    }
                }
            }
            for (leaf, profile) in profile::of_operators() {
                if which.contains(&leaf.authority()) && self.is_there(leaf.stem()) {
                    self.leaf(leaf.authority(), leaf.stem(), &profile)?;
                }
            }
            self.check()?;
        }
        Ok(machines.iter().map(|m| m.name.to_string()).collect())
    }

    /// Takes the key of service accounts one stage further.
    pub fn rotate_service_account(
        &mut self,
        cluster: &Cluster,
        stage: Stage,
        hasty: bool,
    ) -> Result<()> {
        self.in_order("sa", "pub", "sa", stage, hasty)?;
        self.check()?;
        match stage {
            Stage::Prepare => {
                let key = service_account(cluster.service_account_key)?;
                let public = parse_key(&key)?.public_pem();
                self.store.put_secret(&format!("sa{NEXT}.key"), &key)?;
                self.store.put_public(&format!("sa{NEXT}.pub"), public)?;
            }
            Stage::Switch => {
                let text = self.store.text(&format!("sa{NEXT}.pub"))?;
                let key = self.secret(&format!("sa{NEXT}.key"))?;
                let (Some(public), Some(key)) = (text, key) else {
                    self.lacks(&format!("sa{NEXT}.key"));
                    return self.check();
                };
                // Where it was stopped half-way, the old one is there already.
                if self.store.text(&format!("sa{PREVIOUS}.pub"))?.is_none() {
                    let old = self.store.text("sa.pub")?.unwrap_or_default();
                    if let Some(key) = self.secret("sa.key")? {
                        self.store.put_secret(&format!("sa{PREVIOUS}.key"), &key)?;
                    }
                    self.store.put_public(&format!("sa{PREVIOUS}.pub"), old)?;
                }
                self.store.remove("sa.pub");
                self.store.put_secret("sa.key", &key)?;
                self.store.put_public("sa.pub", public)?;
                self.store.remove(&format!("sa{NEXT}.pub"));
                self.store.remove(&format!("sa{NEXT}.key"));
            }
            Stage::Finish => self.finish("sa", "pub"),
        }
        self.master = None;
        self.check()
    }

    /// Whether it is this stage's turn; a finding says what is instead.
    fn in_order(
        &mut self,
        stem: &str,
        ending: &str,
        name: &str,
        stage: Stage,
        hasty: bool,
    ) -> Result<()> {
        let file = |which: &str| format!("{stem}{which}.{ending}");
        let there = |pki: &Self, which: &str| pki.store.path(&file(which)).exists();
        let (next, previous) = (there(self, NEXT), there(self, PREVIOUS));
        if !next && !previous && !there(self, "") {
            let finding = Finding::new(format!("{}: is missing", self.shown(&file(""))))
                .help("there is nothing to replace yet: kgen render makes what is needed");
            self.report.add(finding);
            return Ok(());
        }
        let (waits, done) = match (stage, next, previous) {
            (Stage::Prepare, false, false) => return Ok(()),
            (Stage::Switch, true, _) => (NEXT, Stage::Prepare),
            (Stage::Finish, false, true) => (PREVIOUS, Stage::Switch),
            (_, next, previous) => {
                let (is, turn) = match (next, previous) {
                    (true, _) => ("is prepared", Stage::Switch),
                    (false, true) => ("was switched", Stage::Finish),
                    (false, false) => ("is not being replaced", Stage::Prepare),
                };
                let finding = Finding::new(format!("{name} {is}: it is not the turn of {stage}"))
                    .help(command(name, turn));
                self.report.add(finding);
                return Ok(());
            }
        };
        let path = self.store.path(&file(waits));
        let made = path.metadata().and_then(|meta| meta.modified());
        let made = made.with_context(|| format!("looking at {}", path.display()))?;
        // A clock that was set back tells no age.
        let age = SystemTime::now().duration_since(made).unwrap_or_default();
        if age < PATIENCE && !hasty {
            let hours = age.as_secs() / 3600;
            let finding = Finding::new(format!(
                "{name}: the stage {done} is {hours} hours old: machines that do not have its \
                 documents yet would be cut off"
            ))
            .help("wait a day; or, when every machine has been made anew from them: --now");
            self.report.add(finding);
        }
        Ok(())
    }

    fn prepare(&mut self, authority: Authority) -> Result<()> {
        let Some(text) = self.store.text(&format!("{}.crt", authority.stem()))? else {
            return Ok(());
        };
        let der = certificate::der(&text).context("reading the authority")?;
        let old = certificate::parse(&der)?;
        let old = old.subject().iter_common_name().next();
        let old = old.and_then(|name| name.as_str().ok()).unwrap_or_default();
        let pair = issue::authority(&following(authority.common_name(), old), self.now)?;
        let stem = format!("{}{NEXT}", authority.stem());
        let file = self.shown(&format!("{stem}.crt"));
        self.store.put_pair(&stem, pair.certificate, &pair.key)?;
        self.notes.push(format!("made the authority {file}"));
        Ok(())
    }

    fn switch(&mut self, authority: Authority) -> Result<()> {
        let stem = authority.stem();
        let (next, previous) = (format!("{stem}{NEXT}"), format!("{stem}{PREVIOUS}"));
        let certificate = self.store.text(&format!("{next}.crt"))?;
        let key = self.secret(&format!("{next}.key"))?;
        let (Some(certificate), Some(key)) = (certificate, key) else {
            self.lacks(&format!("{next}.key"));
            return Ok(());
        };
        // Where it was stopped half-way, the old one is there already, and
        // ca.crt may be neither of the two.
        let old = match self.store.text(&format!("{previous}.crt"))? {
            Some(old) => old,
            None => {
                let Some(old) = self
                    .authority(authority)?
                    .map(|l| (l.signing.clone(), l.key.clone()))
                else {
                    return Ok(());
                };
                if let Some(key) = old.1 {
                    self.store.put_secret(&format!("{previous}.key"), &key)?;
                }
                self.store
                    .put_public(&format!("{previous}.crt"), old.0.clone())?;
                old.0
            }
        };
        let crt = format!("{next}.crt");
        let Some(der) = self.look(&crt, certificate::der(&certificate)) else {
            return Ok(());
        };
        let parsed = certificate::parse(&der)?;
        if let Some(why) = certificate::unfit_authority(&parsed, self.now) {
            let finding = Finding::new(format!("{}: {why}", self.shown(&crt)));
            self.report.add(finding);
            return Ok(());
        }
        let Some(parsed_key) = self.look(&format!("{next}.key"), parse_key(&key)) else {
            return Ok(());
        };
        if parsed_key.public_bits() != &*parsed.public_key().subject_public_key.data {
            self.mismatch(&format!("{next}.key"), &crt);
            return Ok(());
        }
        let pair = Pair { certificate, key };
        let loaded = Loaded::replacing(&pair, &old)?;
        self.store.put_pair(stem, pair.certificate, &pair.key)?;
        self.store.remove(&crt);
        self.store.remove(&format!("{next}.key"));
        self.authorities.insert(authority, loaded);
        Ok(())
    }

    fn finish(&mut self, stem: &str, ending: &str) {
        self.store.remove(&format!("{stem}{PREVIOUS}.{ending}"));
        self.store.remove(&format!("{stem}{PREVIOUS}.key"));
    }

    fn is_there(&self, stem: &str) -> bool {
        self.store.path(&format!("{stem}.crt")).exists()
    }

    fn lacks(&mut self, file: &str) {
        let finding = Finding::new(format!("{}: is missing", self.shown(file)))
            .help("it signs from this stage on; bring it from where the stage before was done");
        self.report.add(finding);
    }
}

/// A common name that differs from the one before: readers find an issuer by
/// its name. `kubernetes`, `kubernetes-2`, `kubernetes-3`, …
fn following(base: &str, old: &str) -> String {
    let number = old
        .strip_prefix(base)
        .and_then(|rest| rest.strip_prefix('-'));
    let number: u32 = number.and_then(|n| n.parse().ok()).unwrap_or(1);
    format!("{base}-{}", number.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_authorities_are_numbered() {
        for (old, new) in [
            ("kubernetes", "kubernetes-2"),
            ("kubernetes-2", "kubernetes-3"),
            ("kubernetes-9", "kubernetes-10"),
            ("Example CA", "kubernetes-2"),
        ] {
            assert_eq!(following("kubernetes", old), new);
        }
    }
}
