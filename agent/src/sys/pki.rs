//! Certificates: what one says, whether a key is its key, and issuing them.
//!
//! Beneath: rcgen to issue, x509-parser to read, rustls to compare keys.

mod renew;
mod request;

use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::error::{Code, Context, Error, Result};
use crate::sys::http::Pem;
pub use renew::reissue;
pub use request::{Asked, Request, read_request};

/// Certificates begin in the past, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(300);

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

/// Reads the first certificate of `pem` and checks that one of the authorities
/// in `authority` (PEM; several while one takes over from another) signed it.
///
/// # Errors
///
/// [`Code::IdentityCert`]: not PEM, not a certificate, or of another
/// authority. `what` names the certificate in the message.
pub fn inspect(what: &str, pem: &[u8], authority: &[u8]) -> Result<Facts> {
    let wrong = |problem: &str| Error::new(Code::IdentityCert, format!("{what} {problem}"));
    let der = certificates(pem)
        .next()
        .ok_or_else(|| wrong("holds no PEM certificate"))?;
    let certificate = parse(what, &der)?;
    let mut known = false;
    for der in certificates(authority) {
        known = true;
        if signed_by(
            &certificate,
            &parse(&format!("the authority of {what}"), &der)?,
        ) {
            return Ok(facts(&certificate));
        }
    }
    Err(if known {
        wrong(&format!(
            "is signed by {}, which is not this cluster's authority",
            certificate.issuer()
        ))
    } else {
        wrong("has no readable authority")
    })
}

/// Checks that the private key in `pem` is that of the first certificate in
/// it, as it is not when a file was cut.
///
/// # Errors
///
/// [`Code::IdentityCert`], without anything of the key.
pub fn matches(what: &str, pem: &[u8]) -> Result<()> {
    let wrong = |problem: &str| Error::new(Code::IdentityCert, format!("{what} {problem}"));
    let der = certificates(pem)
        .next()
        .ok_or_else(|| wrong("holds no PEM certificate"))?;
    // The reader's errors may tell of the bytes.
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| wrong("has no whole private key"))
        .and_then(|key| {
            any_supported_type(&key).map_err(|_| wrong("has a private key that cannot be read"))
        })?;
    CertifiedKey::new(vec![CertificateDer::from(der)], key)
        .keys_match()
        .map_err(|_| wrong("has the private key of another certificate"))
}

/// What stands in the first certificate of `pem`, whoever signed it; `None`
/// where there is none.
pub fn read(pem: &[u8]) -> Option<Facts> {
    let der = certificates(pem).next()?;
    X509Certificate::from_der(&der).ok().map(|(_, c)| facts(&c))
}

fn parse<'a>(what: &str, der: &'a [u8]) -> Result<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .context(Code::IdentityCert, || format!("reading {what}"))
}

fn signed_by(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && certificate
            .verify_signature(Some(authority.public_key()))
            .is_ok()
}

fn facts(certificate: &X509Certificate<'_>) -> Facts {
    Facts {
        common_name: common_name(certificate.subject()),
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
    }
}

fn common_name(name: &X509Name<'_>) -> String {
    let first = name.iter_common_name().next();
    first
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// The certificates in a PEM text, DER.
fn certificates(pem: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    x509_parser::pem::Pem::iter_from_buffer(pem)
        .map_while(|block| block.ok())
        .filter(|block| block.label == "CERTIFICATE")
        .map(|block| block.contents)
}

/// A new private key, PEM: ECDSA on P-256.
///
/// # Errors
///
/// [`Code::IdentityCert`]: the machine has no randomness.
pub fn new_key() -> Result<Pem> {
    let key = KeyPair::generate().context(Code::IdentityCert, || "making a key".to_owned())?;
    Ok(Pem(key.serialize_pem().into_bytes()))
}

/// The public key of a private key (PEM), as its bits stand in a certificate.
///
/// # Errors
///
/// [`Code::IdentityCert`]: it is not readable.
pub fn public_key(key: &Pem) -> Result<Vec<u8>> {
    Ok(private_key("the machine's own key", &key.0)?
        .public_key_raw()
        .to_vec())
}

/// Reads a private key, PEM; nothing of it reaches an error.
fn private_key(what: &str, pem: &[u8]) -> Result<KeyPair> {
    let text = std::str::from_utf8(pem).unwrap_or_default();
    KeyPair::from_pem(text).map_err(|_| {
        Error::new(
            Code::IdentityCert,
            format!("{what} is not a private key that can be used (PKCS#8)"),
        )
    })
}

/// The one of the authorities in `authority` (PEM) whose key this is.
fn signer(authority: &[u8], key: &Pem) -> Result<(Issuer<'static, KeyPair>, OffsetDateTime)> {
    let key = private_key("the authority's key", &key.0)?;
    for der in certificates(authority) {
        let certificate = parse("an authority", &der)?;
        if *certificate.public_key().subject_public_key.data == *key.public_key_raw() {
            let ends = certificate.validity().not_after.to_datetime();
            let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(der.as_slice()), key)
                .context(Code::IdentityCert, || "reading an authority".to_owned())?;
            return Ok((issuer, ends));
        }
    }
    Err(Error::new(
        Code::IdentityCert,
        "the authority's key belongs to none of the authority's certificates",
    ))
}

/// Issues a client identity: certificate and key in one PEM text, valid from
/// five minutes ago for `life`, and no longer than its authority.
///
/// # Errors
///
/// [`Code::IdentityCert`]: the authority's certificate or key is not usable.
pub fn client_identity(
    authority: &[u8],
    authority_key: &Pem,
    common_name: &str,
    organization: &str,
    life: Duration,
) -> Result<Pem> {
    let doing = || format!("issuing a certificate for {common_name}");
    let (issuer, ends) = signer(authority, authority_key)?;
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name, organization);
    params.not_before = now - BACKDATE;
    params.not_after = ends.min(now + life);
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

fn subject(common_name: &str, organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    name.push(DnType::CommonName, common_name);
    name
}
