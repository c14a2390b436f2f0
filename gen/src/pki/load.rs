//! Authorities and leaves: read where they are, made where they are not.

use anyhow::Result;

use super::issue::{Key, Pair};
use super::profile::{Authority, Profile};
use super::{Pki, certificate, issue, parse_key};
use crate::report::Finding;
use crate::secret::Secret;

/// An authority in memory.
pub(super) struct Loaded {
    pub certificate: String,
    der: Vec<u8>,
    /// As it stands in the file; absent where the file is.
    pub key: Option<Secret>,
    signer: Option<Key>,
}

impl Pki {
    /// An authority, read or made; a finding gives none.
    pub(super) fn authority(&mut self, authority: Authority) -> Result<Option<&mut Loaded>> {
        if !self.authorities.contains_key(&authority) {
            let Some(loaded) = self.load_authority(authority)? else {
                return Ok(None);
            };
            self.authorities.insert(authority, loaded);
        }
        Ok(self.authorities.get_mut(&authority))
    }

    /// Reads an authority, or makes it where there is nothing of it. A finding
    /// gives none.
    fn load_authority(&mut self, authority: Authority) -> Result<Option<Loaded>> {
        let stem = authority.stem();
        let (crt, key) = (format!("{stem}.crt"), format!("{stem}.key"));
        let certificate = self.store.text(&crt)?;
        let secret = self.secret(&key)?;
        let Some(certificate) = certificate else {
            if secret.is_some() {
                let finding =
                    Finding::new(format!("{}: is missing", self.shown(&crt))).help(format!(
                        "put the certificate of {} there, or remove the key for a new authority",
                        self.shown(&key)
                    ));
                self.report.add(finding);
                return Ok(None);
            }
            let pair = issue::authority(authority, self.now)?;
            self.store
                .put_pair(stem, pair.certificate.clone(), pair.key.clone());
            self.notes
                .push(format!("made the authority {}", self.shown(&crt)));
            return Ok(Some(Loaded {
                der: certificate::der(&pair.certificate)?,
                certificate: pair.certificate,
                key: Some(pair.key),
                signer: None,
            }));
        };
        let Some(der) = self.look(&crt, certificate::der(&certificate)) else {
            return Ok(None);
        };
        let parsed = certificate::parse(&der)?;
        if let Some(why) = certificate::unfit_authority(&parsed, self.now) {
            let finding = Finding::new(format!("{}: {why}", self.shown(&crt)));
            self.report.add(finding);
            return Ok(None);
        }
        let mut signer = None;
        if let Some(secret) = &secret {
            let Some(parsed_key) = self.look(&key, parse_key(secret)) else {
                return Ok(None);
            };
            if parsed_key.public_bits() != &*parsed.public_key().subject_public_key.data {
                self.mismatch(&key, &crt);
                return Ok(None);
            }
            signer = Some(parsed_key);
        }
        Ok(Some(Loaded {
            certificate,
            der,
            key: secret,
            signer,
        }))
    }

    /// Reads a certificate, or makes it where there is none or it no longer
    /// fits. A finding gives none.
    pub(super) fn leaf(
        &mut self,
        authority: Authority,
        stem: &str,
        profile: &Profile,
    ) -> Result<Option<Pair>> {
        let (crt, key) = (format!("{stem}.crt"), format!("{stem}.key"));
        let certificate = self.store.text(&crt)?;
        let secret = self.secret(&key)?;
        let now = self.now;
        let mut reason = None;
        if let (Some(certificate), Some(secret)) = (certificate, secret) {
            let der = self.look(&crt, certificate::der(&certificate));
            let parsed_key = self.look(&key, parse_key(&secret));
            let (Some(der), Some(parsed_key)) = (der, parsed_key) else {
                return Ok(None);
            };
            let parsed = certificate::parse(&der)?;
            if parsed_key.public_bits() != &*parsed.public_key().subject_public_key.data {
                self.mismatch(&key, &crt);
                return Ok(None);
            }
            let Some(issuer) = self.authority(authority)? else {
                return Ok(None);
            };
            let issuer = certificate::parse(&issuer.der)?;
            let unfit = certificate::unfit_leaf(&parsed, &issuer, profile, now);
            let asked = self.renewing.contains(stem).then(|| "as asked".to_owned());
            match unfit.or(asked) {
                None => {
                    let key = secret;
                    return Ok(Some(Pair { certificate, key }));
                }
                why => reason = why,
            }
        }
        let pair = self.issue(authority, stem, profile)?;
        if let (Some(_), Some(why)) = (&pair, reason) {
            self.notes
                .push(format!("made {} anew: {why}", self.shown(&crt)));
        }
        Ok(pair)
    }

    fn issue(
        &mut self,
        authority: Authority,
        stem: &str,
        profile: &Profile,
    ) -> Result<Option<Pair>> {
        let now = self.now;
        let Some(issuer) = self.authority(authority)? else {
            return Ok(None);
        };
        let signer = match (issuer.signer.take(), &issuer.key) {
            (Some(signer), _) => signer,
            (None, Some(key)) => parse_key(key)?,
            (None, None) => {
                self.missing_key(authority);
                return Ok(None);
            }
        };
        let (pair, signer) = issue::leaf(profile, &issuer.der, signer, now)?;
        issuer.signer = Some(signer);
        self.store
            .put_pair(stem, pair.certificate.clone(), pair.key.clone());
        Ok(Some(pair))
    }
}
