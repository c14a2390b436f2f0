//! Keys and certificates are made here and nowhere else.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::pem;
use super::profile::{AltName, Profile};
use crate::cluster::ServiceAccountKey;
use crate::report::{Finding, Report};
use crate::secret::Secret;

/// How long an authority lives: 10 years.
const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// How long other certificates live: a year; the agent renews them before.
const LEAF_LIFE: Duration = Duration::days(365);
/// Certificates begin in the past, for clocks that are behind.
const BACKDATE: Duration = Duration::minutes(5);

/// What to do about a key that nobody can read.
const ENCRYPTED: &str = "the key is encrypted; decrypt it: openssl pkey -in OLD -out NEW";

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: Secret,
}

/// A key that can sign, and say which public key it belongs to.
pub struct Key(KeyPair);

impl Key {
    /// Reads a PEM file with a private key: PKCS#8, PKCS#1 (RSA) or SEC 1 (EC).
    pub fn parse(text: &str) -> Result<Self> {
        // RFC 1421, which PKCS#8 has replaced.
        if text.contains("Proc-Type: 4,ENCRYPTED") {
            bail!(ENCRYPTED);
        }
        let (label, der) = pem::decode(text, |label| label.ends_with("PRIVATE KEY")).context(
            "there is no private key in it; if it is DER: openssl pkey -inform DER -in OLD \
                 -out NEW",
        )?;
        let pkcs8 = match label.as_str() {
            "PRIVATE KEY" => der,
            "RSA PRIVATE KEY" => {
                let key = rsa::KeyPair::from_der(&der).map_err(|_| malformed())?;
                Zeroizing::new(key.as_der().map_err(|_| malformed())?.as_ref().to_vec())
            }
            "EC PRIVATE KEY" => {
                let key = [
                    &ECDSA_P256_SHA256_ASN1_SIGNING,
                    &ECDSA_P384_SHA384_ASN1_SIGNING,
                ]
                .into_iter()
                .find_map(|alg| EcdsaKeyPair::from_private_key_der(alg, &der).ok())
                .ok_or_else(malformed)?;
                Zeroizing::new(key.to_pkcs8v1().map_err(|_| malformed())?.as_ref().to_vec())
            }
            "ENCRYPTED PRIVATE KEY" => bail!(ENCRYPTED),
            other => bail!(
                "a {other:?} is not a kind of key that is supported; RSA, ECDSA P-256 and P-384 \
                 and Ed25519 are: openssl pkey -in OLD -out NEW puts one into PKCS#8"
            ),
        };
        // Errors of the parsers below say nothing of the bytes.
        KeyPair::try_from(pkcs8.as_slice())
            .map(Self)
            .map_err(|_| malformed())
    }

    /// The public key as it stands in a certificate: the bits of
    /// SubjectPublicKeyInfo.
    pub fn public_bits(&self) -> &[u8] {
        self.0.der_bytes()
    }

    /// The public key as PKIX PEM.
    pub fn public_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.0.subject_public_key_info()).to_string()
    }
}

fn malformed() -> anyhow::Error {
    anyhow!(
        "the private key in it is malformed, or of a kind that is not supported: RSA, ECDSA \
         P-256 and P-384 and Ed25519 are; openssl pkey -in OLD -out NEW puts one into PKCS#8"
    )
}

/// Makes an authority that signs itself.
pub fn authority(common_name: &str, now: OffsetDateTime) -> Result<Pair> {
    let (key, pair_key) = new_key()?;
    let mut params = params(now, AUTHORITY_LIFE)?;
    params.distinguished_name = name(common_name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    let certificate = params
        .self_signed(&key)
        .with_context(|| format!("signing the authority {common_name}"))?;
    Ok(Pair {
        certificate: pem::encode("CERTIFICATE", certificate.der()).to_string(),
        key: pair_key,
    })
}

/// Makes a certificate that `issuer` (DER) with `issuer_key` signs.
pub fn leaf(
    profile: &Profile,
    issuer: &[u8],
    issuer_key: &Key,
    now: OffsetDateTime,
) -> Result<Pair> {
    let (_, parsed) = X509Certificate::from_der(issuer).context("reading the issuer")?;
    let expires = parsed.validity().not_after.to_datetime();
    let (key, pair_key) = new_key()?;
    let mut params = params(now, LEAF_LIFE)?;
    // Nothing outlives its issuer.
    params.not_after = params.not_after.min(expires);
    params.distinguished_name = name(&profile.common_name, profile.organization);
    params.subject_alt_names = alt_names(&profile.alt_names)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if profile.server {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if profile.client {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    let signer =
        Issuer::from_ca_cert_der(&issuer.into(), &issuer_key.0).context("reading the issuer")?;
    let certificate = params
        .signed_by(&key, &signer)
        .with_context(|| format!("signing the certificate of {}", profile.common_name))?;
    // rcgen keeps one value for each part of a name: a foreign authority with
    // two of one would be misnamed.
    let (_, made) = X509Certificate::from_der(certificate.der()).context("reading it back")?;
    if made.issuer().as_raw() != parsed.subject().as_raw() {
        let finding = Finding::new(format!(
            "the authority's name {} cannot be written as an issuer unchanged",
            parsed.subject()
        ))
        .help("use an authority whose name has one value of each kind");
        return Err(Report::from(finding).into());
    }
    Ok(Pair {
        certificate: pem::encode("CERTIFICATE", certificate.der()).to_string(),
        key: pair_key,
    })
}

/// Makes the key that signs service account tokens, PEM.
pub fn service_account(kind: ServiceAccountKey) -> Result<Secret> {
    match kind {
        ServiceAccountKey::EcdsaP256 => Ok(new_key()?.1),
        ServiceAccountKey::Rsa2048 => {
            let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048)
                .map_err(|_| anyhow!("making an RSA key failed"))?;
            let der = key
                .as_der()
                .map_err(|_| anyhow!("encoding an RSA key failed"))?;
            Ok(secret_pem(der.as_ref()))
        }
    }
}

/// Makes 32 random bytes in base64, the key that encrypts secrets at rest.
pub fn encryption_key() -> Result<Secret> {
    let mut bytes = Zeroizing::new([0; 32]);
    random(bytes.as_mut_slice())?;
    Ok(Secret::from(STANDARD.encode(bytes.as_slice()) + "\n"))
}

/// Whether `text` is such a key.
pub fn is_encryption_key(text: &str) -> bool {
    STANDARD
        .decode(text.trim_end())
        .is_ok_and(|bytes| Zeroizing::new(bytes).len() == 32)
}

fn new_key() -> Result<(KeyPair, Secret)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
    let pem = secret_pem(key.serialized_der());
    Ok((key, pem))
}

fn secret_pem(pkcs8: &[u8]) -> Secret {
    Secret::new(pem::encode("PRIVATE KEY", pkcs8).as_bytes().to_vec())
}

fn params(now: OffsetDateTime, life: Duration) -> Result<CertificateParams> {
    let mut serial = [0; 16];
    random(&mut serial)?;
    // Positive and not zero, as RFC 5280 (4.1.2.2) demands.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = now - BACKDATE + life;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// Fills `bytes` with what nobody can guess.
pub(super) fn random(bytes: &mut [u8]) -> Result<()> {
    // The kernel's, at once; AWS-LC gathers entropy of its own for 30 ms first.
    getrandom::fill(bytes).map_err(|_| anyhow!("the system has no random bytes"))
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn alt_names(names: &BTreeSet<AltName>) -> Result<Vec<SanType>> {
    names
        .iter()
        .map(|name| match name {
            AltName::Address(address) => Ok(SanType::IpAddress(*address)),
            AltName::Dns(name) => name
                .as_str()
                .try_into()
                .map(SanType::DnsName)
                .with_context(|| format!("writing the name {name}")),
        })
        .collect()
}
