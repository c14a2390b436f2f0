//! Keys without certificates, which only masters have.

use anyhow::Result;

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
                self.store.put_secret("sa.key", secret.clone());
                secret
            }
        };
        let Some(key) = self.look("sa.key", parse_key(&secret)) else {
            return Ok(None);
        };
        let derived = key.public_pem();
        match public {
            None => self.store.put_public("sa.pub", derived.clone()),
            Some(public) if same_pem(&public, &derived) => return Ok(Some((secret, public))),
            Some(_) => {
                self.mismatch("sa.key", "sa.pub");
                return Ok(None);
            }
        }
        Ok(Some((secret, derived)))
    }

    fn encryption_key(&mut self) -> Result<Option<Secret>> {
        const FILE: &str = "encryption.key";
        let Some(secret) = self.secret(FILE)? else {
            let secret = issue::encryption_key()?;
            self.store.put_secret(FILE, secret.clone());
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
