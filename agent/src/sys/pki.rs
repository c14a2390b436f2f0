//! Certificates: what one says, and a master's own short-lived identity.
//!
//! Beneath: rcgen to issue, x509-parser to read.

use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Code, Context, Error, Result};
use crate::sys::http::Pem;

/// What an agent has to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The subject's common name; empty when it has none.
    pub common_name: String,
    /// The first second at which it is valid, in UTC.
    pub not_before: OffsetDateTime,
    /// The last second at which it is valid, in UTC.
    pub not_after: OffsetDateTime,
}

/// Reads the first certificate of `pem` and checks that `authority` (PEM)
/// signed it.
///
/// # Errors
///
/// [`Code::IdentityCert`]: not PEM, not a certificate, or of another
/// authority. `what` names the certificate in the message.
pub fn inspect(what: &str, pem: &[u8], authority: &[u8]) -> Result<Facts> {
    let wrong = |problem: &str| Error::new(Code::IdentityCert, format!("{what} {problem}"));
    let der = certificate_der(pem).ok_or_else(|| wrong("holds no PEM certificate"))?;
    let (_, certificate) = X509Certificate::from_der(&der)
        .context(Code::IdentityCert, || format!("reading {what}"))?;
    let authority_der =
        certificate_der(authority).ok_or_else(|| wrong("has no readable authority"))?;
    let (_, authority) = X509Certificate::from_der(&authority_der)
        .context(Code::IdentityCert, || {
            format!("reading the authority of {what}")
        })?;
    if certificate.issuer().as_raw() != authority.subject().as_raw()
        || certificate
            .verify_signature(Some(authority.public_key()))
            .is_err()
    {
        return Err(wrong(&format!(
            "is signed by {}, which is not this cluster's authority",
            certificate.issuer()
        )));
    }
    let common_name = certificate
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    Ok(Facts {
        common_name,
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
    })
}

fn certificate_der(pem: &[u8]) -> Option<Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(pem)
        .flatten()
        .find(|block| block.label == "CERTIFICATE")
        .map(|block| block.contents)
}

/// Issues a client identity that is never stored: certificate and key, valid
/// from five minutes ago for `life`.
///
/// # Errors
///
/// [`Code::IdentityCert`]: the authority's certificate or key is not usable.
pub fn short_lived_identity(
    authority: &str,
    authority_key: &str,
    common_name: &str,
    organization: &str,
    life: Duration,
) -> Result<Pem> {
    let doing = || format!("issuing a short-lived certificate for {common_name}");
    let authority_key = KeyPair::from_pem(authority_key).context(Code::IdentityCert, doing)?;
    let issuer =
        Issuer::from_ca_cert_pem(authority, authority_key).context(Code::IdentityCert, doing)?;
    let now = OffsetDateTime::now_utc();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = now - Duration::from_secs(300);
    params.not_after = now + life;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().context(Code::IdentityCert, doing)?;
    let certificate = params
        .signed_by(&key, &issuer)
        .context(Code::IdentityCert, doing)?;
    Ok(Pem([certificate.pem(), key.serialize_pem()]
        .concat()
        .into_bytes()))
}
