//! Authorities and leaves: read where they are, made where they are not.

use std::sync::Arc;

use anyhow::Result;

use super::issue::{Key, Pair};
use super::profile::{Authority, Profile};
use super::stage::{NEXT, PREVIOUS};
use super::{Pki, certificate, issue, parse_key, pem};
use crate::report::Finding;
use crate::secret::Secret;

/// An authority in memory.
#[derive(Clone)]
pub(super) struct Loaded {
    /// What is trusted, PEM: the signing certificate first, then what is not
    /// signed with yet or no longer.
    pub bundle: String,
    /// The signing certificate alone, PEM.
    pub signing: String,
    der: Vec<u8>,
    /// As it stands in the file; absent where the file is.
    pub key: Option<Secret>,
    signer: Option<Arc<Key>>,
}

impl Loaded {
    /// An authority that takes another one's place: PEM.
    pub fn replacing(pair: &Pair, previous: &str) -> Result<Self> {
        let der = certificate::der(&pair.certificate)?;
        let signing = encode(&der);
        Ok(Self {
            bundle: signing.clone() + &encode(&certificate::der(previous)?),
            signing,
            der,
            key: Some(pair.key.clone()),
            signer: None,
        })
    }
}

fn encode(der: &[u8]) -> String {
    pem::encode("CERTIFICATE", der).to_string()
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
            let pair = issue::authority(authority.common_name(), self.now)?;
            self.store
                .put_pair(stem, pair.certificate.clone(), &pair.key)?;
            self.notes
                .push(format!("made the authority {}", self.shown(&crt)));
            return Ok(Some(Loaded {
                der: certificate::der(&pair.certificate)?,
                bundle: pair.certificate.clone(),
                signing: pair.certificate,
                key: Some(pair.key),
                signer: None,
            }));
        };
        let Some(chain) = self.look(&crt, certificate::chain(&certificate)) else {
            return Ok(None);
        };
        if !self.is_usable(authority, &crt, &chain)? {
            return Ok(None);
        }
        let parsed = certificate::parse(&chain[0])?;
        let mut signer = None;
        if let Some(secret) = &secret {
            let Some(parsed_key) = self.look(&key, parse_key(secret)) else {
                return Ok(None);
            };
            if parsed_key.public_bits() != &*parsed.public_key().subject_public_key.data {
                self.mismatch(&key, &crt);
                return Ok(None);
            }
            signer = Some(Arc::new(parsed_key));
        }
        let Some(others) = self.others(authority)? else {
            return Ok(None);
        };
        let der = chain[0].clone();
        // What the operator wrote is left as it is where it says all there is.
        let signing = match chain.len() {
            1 => certificate,
            _ => encode(&der),
        };
        let mut bundle = signing.clone();
        for other in others.iter().filter(|other| **other != der) {
            if !bundle.ends_with('\n') {
                bundle.push('\n');
            }
            bundle.push_str(&encode(other));
        }
        Ok(Some(Loaded {
            bundle,
            signing,
            der,
            key: secret,
            signer,
        }))
    }

    /// Whether an authority may be used: its certificate, with those above it
    /// behind it or not.
    fn is_usable(&mut self, authority: Authority, crt: &str, chain: &[Vec<u8>]) -> Result<bool> {
        let first = certificate::parse(&chain[0])?;
        if let Some(why) = certificate::unfit_authority(&first, self.now) {
            let finding = Finding::new(format!("{}: {why}", self.shown(crt)));
            self.report.add(finding);
            return Ok(false);
        }
        for pair in chain.windows(2) {
            let (below, above) = (certificate::parse(&pair[0])?, certificate::parse(&pair[1])?);
            if !certificate::is_signed_by(&below, &above) {
                let (below, above) = (below.subject(), above.subject());
                let finding = Finding::new(format!(
                    "{}: {below} is not signed by {above}, which stands behind it",
                    self.shown(crt)
                ))
                .help("the signing certificate is the first, and each is signed by the next one");
                self.report.add(finding);
                return Ok(false);
            }
        }
        if certificate::is_constrained(&first) {
            self.notes.push(format!(
                "{} has name constraints: certificates of {} for other names are made, and \
                 believed by nobody",
                self.shown(crt),
                authority.name()
            ));
        }
        Ok(true)
    }

    /// What is trusted beside the signing authority, while it is replaced; a
    /// finding gives none.
    fn others(&mut self, authority: Authority) -> Result<Option<Vec<Vec<u8>>>> {
        let mut others = Vec::new();
        for which in [NEXT, PREVIOUS] {
            let file = format!("{}{which}.crt", authority.stem());
            let Some(text) = self.store.text(&file)? else {
                continue;
            };
            let Some(chain) = self.look(&file, certificate::chain(&text)) else {
                return Ok(None);
            };
            if which == NEXT && !self.is_usable(authority, &file, &chain)? {
                return Ok(None);
            }
            others.extend(chain.into_iter().next());
        }
        Ok(Some(others))
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
        let signer = match (&issuer.signer, &issuer.key) {
            (Some(signer), _) => Arc::clone(signer),
            (None, Some(key)) => Arc::new(parse_key(key)?),
            (None, None) => {
                self.missing_key(authority);
                return Ok(None);
            }
        };
        issuer.signer = Some(Arc::clone(&signer));
        let pair = issue::leaf(profile, &issuer.der, &signer, now)?;
        self.store
            .put_pair(stem, pair.certificate.clone(), &pair.key)?;
        Ok(Some(pair))
    }
}
