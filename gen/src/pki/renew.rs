//! Leaves made anew before their time. Authorities stay: they are the cluster.

use anyhow::Result;

use super::profile::{self, Authority};
use super::{Pki, inventory};
use crate::cluster::Cluster;
use crate::report::{Finding, Report};
use crate::yaml::nearest;

impl Pki {
    /// Makes leaves anew that are there: all, or those that `names` mean. A
    /// name is a certificate's (`nodes/master/apiserver`, `admin`), a
    /// machine's (`master`), or a kind's (`apiserver`, `etcd/server`). Says
    /// which machines' documents have changed.
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
        for super_admin in [false, true] {
            let (leaf, profile) = profile::of_operator(super_admin);
            if self.renewing.contains(leaf.stem()) {
                self.leaf(leaf.authority(), leaf.stem(), &profile)?;
                self.renewing.remove(leaf.stem());
            }
        }
        for stem in std::mem::take(&mut self.renewing) {
            let file = self.shown(&format!("{stem}.crt"));
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
            return Ok(leaves().map(|l| l.name.clone()).collect());
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
            let authorities = [Authority::Cluster, Authority::FrontProxy, Authority::Etcd];
            report.add(if authorities.iter().any(|a| a.stem() == name) {
                Finding::new(format!("{name} is an authority, and is kept"))
                    .help("everything it has signed would have to be replaced at once")
            } else {
                let finding = Finding::new(format!("no certificate in pki/ is called {name}"));
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
