//! Which certificates a machine has, and how each of them is.

use time::{Duration, OffsetDateTime};

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::sys::http::Pem;
use crate::sys::kubeconfig::{Kubeconfig, User};
use crate::sys::pki::{self, Facts};
use crate::sys::store::sha256;
use units::node_config::Service;
use units::paths;

/// How a certificate lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `STEM.crt` and `STEM.key` below /etc/kubernetes/pki.
    Pair,
    /// Within a kubeconfig in /etc/kubernetes.
    Kubeconfig,
}

/// A certificate that is kept valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The file without its ending.
    pub stem: &'static str,
    /// How it lies on the disk.
    pub form: Form,
    /// The authority that signs it: its file without the ending.
    pub authority: &'static str,
    /// The service that reads it at its start alone.
    pub restart: Option<Service>,
}

const fn pair(stem: &'static str, authority: &'static str) -> Kept {
    Kept {
        stem,
        form: Form::Pair,
        authority,
        restart: None,
    }
}

const fn kubeconfig(stem: &'static str, service: Service) -> Kept {
    Kept {
        stem,
        form: Form::Kubeconfig,
        authority: "ca",
        restart: Some(service),
    }
}

/// The kubelet's serving certificate.
pub const KUBELET: Kept = pair("kubelet", "ca");
/// kube-proxy's identity.
pub const KUBE_PROXY: Kept = kubeconfig("kube-proxy", Service::KubeProxy);

/// All that there are, of whatever machine. The kubelet's client certificate is
/// not among them: the kubelet rotates it.
const ALL: [Kept; 11] = [
    pair("etcd/server", "etcd/ca"),
    pair("etcd/peer", "etcd/ca"),
    pair("etcd/healthcheck-client", "etcd/ca"),
    pair("apiserver-etcd-client", "etcd/ca"),
    pair("apiserver", "ca"),
    pair("apiserver-kubelet-client", "ca"),
    pair("front-proxy-client", "front-proxy-ca"),
    kubeconfig("controller-manager", Service::KubeControllerManager),
    kubeconfig("scheduler", Service::KubeScheduler),
    KUBELET,
    KUBE_PROXY,
];

impl Kept {
    /// Those that this machine has.
    ///
    /// # Errors
    ///
    /// A kubeconfig that cannot be read.
    pub fn of(machine: &Machine) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for kept in ALL {
            if machine.root.exists(kept.certificate_path())? && kept.is_brought(machine)? {
                found.push(kept);
            }
        }
        Ok(found)
    }

    /// Whether the certificate is in the file; a kubeconfig may lead to the
    /// kubelet's own.
    fn is_brought(&self, machine: &Machine) -> Result<bool> {
        if self.form == Form::Pair {
            return Ok(true);
        }
        let text = machine.root.read_to_string(self.certificate_path())?;
        Ok(matches!(
            Kubeconfig::parse(&text)?.user,
            User::Embedded { .. }
        ))
    }

    /// A name for messages and files: `etcd-server`.
    pub fn name(&self) -> String {
        self.stem.replace('/', "-")
    }

    /// Where the certificate is.
    pub fn certificate_path(&self) -> String {
        match self.form {
            Form::Pair => format!("{}/{}.crt", paths::PKI, self.stem),
            Form::Kubeconfig => format!("{}/{}.conf", paths::KUBERNETES, self.stem),
        }
    }

    /// Where its key is.
    pub fn key_path(&self) -> String {
        match self.form {
            Form::Pair => format!("{}/{}.key", paths::PKI, self.stem),
            Form::Kubeconfig => self.certificate_path(),
        }
    }

    /// Where the authority's certificate is.
    pub fn authority_path(&self) -> String {
        format!("{}/{}.crt", paths::PKI, self.authority)
    }

    /// Where the authority's key is, on machines that have it.
    pub fn authority_key_path(&self) -> String {
        format!("{}/{}.key", paths::PKI, self.authority)
    }

    /// How it is.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or is no kubeconfig.
    pub fn state(&self, machine: &Machine, now: OffsetDateTime) -> Result<State> {
        let root = &machine.root;
        let path = self.certificate_path();
        let identity = match self.form {
            Form::Pair => {
                let key = root.read_if_exists(self.key_path())?.unwrap_or_default();
                Pem([root.read(&path)?, b"\n".to_vec(), key].concat())
            }
            Form::Kubeconfig => Kubeconfig::parse(&root.read_to_string(&path)?)?.identity(root)?,
        };
        let authority = root.read(self.authority_path())?;
        let what = format!("the certificate in {path}");
        let sound = pki::inspect(&what, &identity.0, &authority)
            .and_then(|facts| pki::matches(&what, &identity.0).map(|()| facts))
            .and_then(|facts| in_time(&what, facts, now));
        Ok(State { identity, sound })
    }
}

/// How a certificate is.
#[derive(Debug)]
pub struct State {
    /// Certificate and key.
    pub identity: Pem,
    /// What it says, or why it cannot be used.
    sound: Result<Facts>,
}

fn in_time(what: &str, facts: Facts, now: OffsetDateTime) -> Result<Facts> {
    let wrong = |how: String| Error::new(crate::error::Code::IdentityCert, format!("{what} {how}"));
    if now < facts.not_before {
        return Err(wrong(format!("begins on {}", facts.not_before.date())));
    }
    if now >= facts.not_after {
        return Err(wrong(format!("expired on {}", facts.not_after.date())));
    }
    Ok(facts)
}

impl State {
    /// Whether it can be used now.
    pub fn is_valid(&self, now: OffsetDateTime) -> bool {
        self.sound
            .as_ref()
            .is_ok_and(|facts| facts.not_before <= now && now < facts.not_after)
    }

    /// When it ends, if it can be used.
    pub fn ends(&self) -> Option<OffsetDateTime> {
        self.sound.as_ref().ok().map(|facts| facts.not_after)
    }

    /// Why it has to be renewed, if it has to.
    pub fn problem(&self, machine: &Machine, now: OffsetDateTime) -> Option<String> {
        match &self.sound {
            Err(error) => Some(error.story()),
            Ok(facts) => (now >= due(facts, machine.name.as_str()))
                .then(|| format!("{} ends on {}", facts.common_name, facts.not_after.date())),
        }
    }
}

/// When a certificate is renewed: at two thirds of its life, and up to a
/// fiftieth of it later, so that masters do not restart their services at one
/// time.
pub fn due(facts: &Facts, machine: &str) -> OffsetDateTime {
    let life = facts.not_after - facts.not_before;
    let spread = f64::from(sha256(machine.as_bytes()).as_bytes()[0]) / 256.0;
    facts.not_before + Duration::seconds_f64(life.as_seconds_f64() * (2.0 / 3.0 + spread / 50.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn certificates_are_due_at_two_thirds_and_not_all_at_once() {
        let facts = Facts {
            common_name: "kube-apiserver".to_owned(),
            not_before: datetime!(2026-01-01 0:00 UTC),
            not_after: datetime!(2026-12-27 0:00 UTC),
        };
        let dates: Vec<OffsetDateTime> = ["m1", "m2", "m3"]
            .iter()
            .map(|name| due(&facts, name))
            .collect();
        for date in &dates {
            let days = (*date - facts.not_before).whole_days();
            assert!((240..=247).contains(&days), "{days}");
        }
        assert!(dates[0] != dates[1] && dates[1] != dates[2]);
    }

    #[test]
    fn every_certificate_has_a_name_of_its_own() {
        let mut names: Vec<String> = ALL.iter().map(Kept::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
