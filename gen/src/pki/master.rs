//! Keys without certificates, which only masters have.

use anyhow::Result;

use super::stage::{NEXT, PREVIOUS};
use super::{MasterKeys, Pki, issue, parse_key, pem};
use crate::cluster::Cluster;
use crate::report::Finding;
use crate::secret::Secret;

impl Pki {
    /// What only masters have, read or made; a finding gives none.
    pub(super) fn master_keys(&mut self, cluster: &Cluster) -> Result<Option<MasterKeys>> {
        if self.master.is_none() {
            let service_account = self.service_account(cluster)?;
            let encryption = self.encryption_key()?;
            if let (Some((key, public)), Some(encryption)) = (service_account, encryption) {
                self.master = Some(MasterKeys {
                    service_account: key,
                    service_account_public: public,
                    encryption,
                });
            }
        }
        Ok(self.master.clone())
    }

    fn service_account(&mut self, cluster: &Cluster) -> Result<Option<(Secret, String)>> {
        let public = self.store.text("sa.pub")?;
        let secret = match (self.secret("sa.key")?, &public) {
            (Some(secret), _) => secret,
            (None, Some(_)) => {
                let finding = Finding::new(format!("{}: is missing", self.shown("sa.key")))
                    .help("put it beside sa.pub, or remove sa.pub for a new key");
                self.report.add(finding);
                return Ok(None);
            }
            (None, None) => {
                let secret = issue::service_account(cluster.service_account_key)?;
                self.store.put_secret("sa.key", &secret)?;
                secret
            }
        };
        let Some(key) = self.look("sa.key", parse_key(&secret)) else {
            return Ok(None);
        };
        let derived = key.public_pem();
        let own = match public {
            None => {
                self.store.put_public("sa.pub", derived.clone())?;
                derived
            }
            Some(public) if same_pem(&public, &derived) => public,
            Some(_) => {
                self.mismatch("sa.key", "sa.pub");
                return Ok(None);
            }
        };
        Ok(Some((secret, self.verifying(own)?)))
    }

    /// The keys that tokens are verified with: the one that signs first, then,
    /// while it is replaced, the other. The API server reads several from one
    /// file. Source: kube-apiserver --help, --service-account-key-file.
    fn verifying(&mut self, own: String) -> Result<String> {
        let mut all = own.clone();
        for which in [NEXT, PREVIOUS] {
            let other = self.store.text(&format!("sa{which}.pub"))?;
            for other in other.iter().filter(|other| !same_pem(&own, other)) {
                if !all.ends_with('\n') {
                    all.push('\n');
                }
                all.push_str(other);
            }
        }
        Ok(all)
    }

    fn encryption_key(&mut self) -> Result<Option<Secret>> {
        const FILE: &str = "encryption.key";
        let Some(secret) = self.secret(FILE)? else {
            let secret = issue::encryption_key()?;
            self.store.put_secret(FILE, &secret)?;
            return Ok(Some(secret));
        };
        if secret.expose_text().is_some_and(issue::is_encryption_key) {
            return Ok(Some(secret));
        }
        let finding = Finding::new(format!("{}: is not 32 bytes in base64", self.shown(FILE)));
        self.report.add(finding);
        Ok(None)
    }
}

/// Whether two PEM files hold the same, whatever their line ends.
fn same_pem(a: &str, b: &str) -> bool {
    let content = |text| pem::decode(text, |_| true);
    content(a).is_some() && content(a) == content(b)
}
