//! Reading certificates, and telling whether one still fits.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::pem;
use super::profile::{AltName, Profile};

/// The DER bytes of the first certificate in a PEM file.
pub fn der(text: &str) -> Result<Vec<u8>> {
    let (_, der) = pem::decode(text, |label| label == "CERTIFICATE")
        .context("there is no certificate in it")?;
    parse(&der)?;
    Ok(der.to_vec())
}

/// The DER bytes of every certificate in a PEM file; there is at least one.
pub fn chain(text: &str) -> Result<Vec<Vec<u8>>> {
    let all = pem::decode_all(text, "CERTIFICATE").context("a certificate in it is no base64")?;
    if all.is_empty() {
        // Says what is wrong with the first.
        der(text)?;
    }
    for der in &all {
        parse(der)?;
    }
    Ok(all)
}

/// Whether `issuer` has signed a certificate.
pub fn is_signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}

/// Whether an authority may sign for some names only (RFC 5280, 4.2.1.10).
pub fn is_constrained(certificate: &X509Certificate<'_>) -> bool {
    !matches!(certificate.name_constraints(), Ok(None))
}

/// The certificate in `der`.
pub fn parse(der: &[u8]) -> Result<X509Certificate<'_>> {
    let (_, certificate) =
        X509Certificate::from_der(der).context("the certificate in it is malformed")?;
    Ok(certificate)
}

/// Why an authority cannot be used, if it cannot.
pub fn unfit_authority(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Option<String> {
    let may_sign = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        // Without the extension every usage is allowed (RFC 5280, 4.2.1.3).
        Ok(None) => true,
        Err(_) => false,
    };
    if !certificate.is_ca() {
        return Some("is not the certificate of an authority (basicConstraints CA)".to_owned());
    }
    if !may_sign {
        return Some("may not sign certificates (keyUsage keyCertSign)".to_owned());
    }
    let expires = certificate.validity().not_after.to_datetime();
    if expires <= now {
        return Some(format!("has expired on {}", date(expires)));
    }
    let begins = certificate.validity().not_before.to_datetime();
    if begins > now {
        return Some(format!("is not valid before {}", date(begins)));
    }
    // An authority's own usages bound those of what it signs, to most readers.
    let usages = certificate.extended_key_usage();
    let may_both = |u: &ExtendedKeyUsage<'_>| u.any || (u.server_auth && u.client_auth);
    if !matches!(&usages, Ok(None)) && !matches!(&usages, Ok(Some(u)) if may_both(u.value)) {
        return Some(
            "may not sign certificates of servers and of clients (extendedKeyUsage)".to_owned(),
        );
    }
    if let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed()
        && key.key_size() < 2048
    {
        return Some(format!(
            "has an RSA key of {} bits; 2048 are needed",
            key.key_size()
        ));
    }
    None
}

/// Why a certificate has to be made anew, if it has to.
pub fn unfit_leaf(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    profile: &Profile,
    now: OffsetDateTime,
) -> Option<String> {
    if !is_signed_by(certificate, issuer) {
        return Some("another authority had signed it".to_owned());
    }
    if let Some(why) = misfit(certificate, profile) {
        return Some(why.to_owned());
    }
    let begins = certificate.validity().not_before.to_datetime();
    let expires = certificate.validity().not_after.to_datetime();
    if expires <= now {
        return Some(format!("it had expired on {}", date(expires)));
    }
    // What lives exactly as long as its issuer cannot live longer.
    let issuer_expires = issuer.validity().not_after.to_datetime();
    if now >= begins + (expires - begins) * 2 / 3 && expires < issuer_expires {
        return Some(format!("it expires on {}", date(expires)));
    }
    None
}

fn misfit(certificate: &X509Certificate<'_>, profile: &Profile) -> Option<&'static str> {
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next();
    let organization = subject.iter_organization().next();
    if common_name.and_then(|n| n.as_str().ok()) != Some(profile.common_name.as_str())
        || organization.and_then(|n| n.as_str().ok()) != profile.organization
    {
        return Some("its subject has changed");
    }
    match alt_names(certificate) {
        Some(names) if names == profile.alt_names => {}
        _ => return Some("its names or addresses have changed"),
    }
    let (server, client) = match certificate.extended_key_usage() {
        Ok(Some(usage)) => (usage.value.server_auth, usage.value.client_auth),
        _ => (false, false),
    };
    if (server, client) != (profile.server, profile.client) || certificate.is_ca() {
        return Some("its usage has changed");
    }
    None
}

/// The names a certificate answers to; none if there are some of other kinds.
pub fn alt_names(certificate: &X509Certificate<'_>) -> Option<BTreeSet<AltName>> {
    let mut names = BTreeSet::new();
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(sans) = extension.parsed_extension() else {
            continue;
        };
        for name in &sans.general_names {
            names.insert(match name {
                GeneralName::DNSName(name) => AltName::Dns((*name).to_owned()),
                GeneralName::IPAddress(bytes) => AltName::Address(address(bytes)?),
                _ => return None,
            });
        }
    }
    Some(names)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A day, as people write it.
pub fn date(when: OffsetDateTime) -> String {
    when.format(format_description!("[year]-[month]-[day]"))
        .unwrap_or_else(|_| when.to_string())
}
