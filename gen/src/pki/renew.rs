//! Leaves made anew before their time. Authorities stay: they are the cluster.

use anyhow::Result;
use units::types::Role;

use super::Pki;
use super::inventory::{Kind, inventory};
use super::profile::{self, Authority};
use crate::cluster::Cluster;
use crate::report::{Finding, Report};
use crate::yaml::nearest;

impl Pki {
    /// Makes leaves anew that are there: all, or those that `names` mean. A
    /// name is a certificate's (`nodes/master/apiserver`, `admin`), a
    /// machine's (`master`), a kind's (`apiserver`, `etcd/server`), or a token's
    /// (`pools/workers`). Says which machines' documents have changed.
    pub fn renew(&mut self, cluster: &Cluster, names: &[String]) -> Result<Vec<String>> {
        self.renewing = self.chosen(names)?.into_iter().collect();
        let mut changed = Vec::new();
        for machine in &cluster.machines {
            let prefix = format!("nodes/{}/", machine.name);
            if !self.renewing.iter().any(|stem| stem.starts_with(&prefix)) {
                continue;
            }
            for leaf in profile::leaves(cluster, machine) {
                let stem = format!("{prefix}{}", leaf.stem());
                if self.renewing.contains(&stem) {
                    let profile = profile::of_machine(leaf, cluster, machine);
                    self.leaf(leaf.authority(), &stem, &profile)?;
                    self.renewing.remove(&stem);
                }
            }
            changed.push(machine.name.to_string());
        }
        for (leaf, profile) in profile::of_operators() {
            if self.renewing.contains(leaf.stem()) {
                self.leaf(leaf.authority(), leaf.stem(), &profile)?;
                self.renewing.remove(leaf.stem());
            }
        }
        for pool in &cluster.pools {
            let Some(stem) = pool.token().filter(|s| self.renewing.contains(s)) else {
                continue;
            };
            self.token(pool)?;
            self.renewing.remove(&stem);
            let masters = cluster.of_role(Role::Master).map(|m| m.name.to_string());
            for name in masters.chain([pool.name.to_string()]) {
                if !changed.contains(&name) {
                    changed.push(name);
                }
            }
        }
        for stem in std::mem::take(&mut self.renewing) {
            let token = self.store.path(&format!("{stem}.token")).exists();
            let ending = if token { "token" } else { "crt" };
            let file = self.shown(&format!("{stem}.{ending}"));
            self.notes.push(format!(
                "left {file} as it is: cluster.yaml does not ask for it"
            ));
        }
        self.check()?;
        Ok(changed)
    }

    /// The stems of the leaves that are meant.
    fn chosen(&self, names: &[String]) -> Result<Vec<String>> {
        let workspace = self.folder().parent().unwrap_or(self.folder());
        let all = inventory(workspace, self.now)?;
        let leaves = || all.iter().filter(|l| !l.authority);
        if names.is_empty() {
            // Tokens are made anew by themselves.
            let leaves = leaves().filter(|l| l.kind == Kind::Certificate);
            return Ok(leaves.map(|l| l.name.clone()).collect());
        }
        let mut report = Report::default();
        let mut chosen = Vec::new();
        for name in names {
            let before = chosen.len();
            let meant = leaves().filter(|l| means(name, &l.name));
            chosen.extend(meant.map(|l| l.name.clone()));
            if chosen.len() > before {
                continue;
            }
            let authority = Authority::ALL.into_iter().find(|a| a.stem() == name);
            report.add(if let Some(authority) = authority {
                Finding::new(format!("{name} is an authority, and is kept")).help(format!(
                    "kgen certs rotate-ca {} replaces it, in stages",
                    authority.name()
                ))
            } else {
                let finding =
                    Finding::new(format!("no certificate or token in pki/ is called {name}"));
                let known = leaves().map(|l| l.name.as_str());
                finding.help(match nearest(name, known) {
                    Some(nearest) => format!("did you mean {nearest}?"),
                    None => "kgen certs list names them".to_owned(),
                })
            });
        }
        report.into_result()?;
        Ok(chosen)
    }
}

/// Whether `name` means the certificate `stem`.
fn means(name: &str, stem: &str) -> bool {
    if name == stem {
        return true;
    }
    let within = stem.strip_prefix("nodes/").and_then(|s| s.split_once('/'));
    within.is_some_and(|(machine, kind)| name == machine || name == kind)
}
