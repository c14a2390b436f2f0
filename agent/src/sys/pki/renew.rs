//! A certificate made anew: a new key and a new life, all else as it was.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT, Oid,
};
use x509_parser::prelude::X509Certificate;

use super::request::address;
use super::{BACKDATE, certificates, parse, signer};
use crate::error::{Code, Context, Error, Result};
use crate::sys::http::Pem;

/// Issues the first certificate of `pem` anew: the same subject, names and
/// usages, a life as long as it was (but within the authority's), a new key.
/// Returns certificate and key, PEM.
///
/// # Errors
///
/// [`Code::IdentityCert`]: the authority cannot sign, or the certificate says
/// something that would be lost.
pub fn reissue(
    what: &str,
    pem: &[u8],
    authority: &[u8],
    authority_key: &Pem,
    now: OffsetDateTime,
) -> Result<(Vec<u8>, Pem)> {
    let doing = || format!("renewing {what}");
    let der = certificates(pem)
        .next()
        .ok_or_else(|| Error::new(Code::IdentityCert, format!("{what} holds no certificate")))?;
    let old = parse(what, &der)?;
    let (issuer, ends) = signer(authority, authority_key)?;
    let validity = old.validity();
    let life = validity.not_after.to_datetime() - validity.not_before.to_datetime();
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = ends.min(now + life);
    params.distinguished_name = subject(&old);
    params.subject_alt_names = names(&old).ok_or_else(|| lost(what, "a kind of name"))?;
    usages(&old, &mut params).ok_or_else(|| lost(what, "a usage"))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().context(Code::IdentityCert, doing)?;
    let certificate = params
        .signed_by(&key, &issuer)
        .context(Code::IdentityCert, doing)?;
    Ok((
        certificate.pem().into_bytes(),
        Pem(key.serialize_pem().into_bytes()),
    ))
}

fn lost(what: &str, part: &str) -> Error {
    Error::new(
        Code::IdentityCert,
        format!("{what} has {part} that knode cannot carry over; renew it by hand"),
    )
}

fn subject(old: &X509Certificate<'_>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for part in old.subject().iter_attributes() {
        name.push(kind(part.attr_type()), part.as_str().unwrap_or_default());
    }
    name
}

fn kind(oid: &Oid<'_>) -> DnType {
    if *oid == OID_X509_COMMON_NAME {
        DnType::CommonName
    } else if *oid == OID_X509_ORGANIZATION_NAME {
        DnType::OrganizationName
    } else if *oid == OID_X509_ORGANIZATIONAL_UNIT {
        DnType::OrganizationalUnitName
    } else {
        DnType::CustomDnType(oid.iter().map(Iterator::collect).unwrap_or_default())
    }
}

fn names(old: &X509Certificate<'_>) -> Option<Vec<SanType>> {
    let Some(extension) = old.subject_alternative_name().ok()? else {
        return Some(Vec::new());
    };
    let names = extension.value.general_names.iter();
    names
        .map(|name| match name {
            GeneralName::DNSName(name) => Some(SanType::DnsName((*name).try_into().ok()?)),
            GeneralName::IPAddress(bytes) => address(bytes).map(SanType::IpAddress),
            GeneralName::RFC822Name(name) => Some(SanType::Rfc822Name((*name).try_into().ok()?)),
            GeneralName::URI(name) => Some(SanType::URI((*name).try_into().ok()?)),
            _ => None,
        })
        .collect()
}

fn usages(old: &X509Certificate<'_>, params: &mut CertificateParams) -> Option<()> {
    if let Some(usage) = old.key_usage().ok()? {
        let known = [
            (1 << 0, KeyUsagePurpose::DigitalSignature),
            (1 << 1, KeyUsagePurpose::ContentCommitment),
            (1 << 2, KeyUsagePurpose::KeyEncipherment),
            (1 << 3, KeyUsagePurpose::DataEncipherment),
            (1 << 4, KeyUsagePurpose::KeyAgreement),
        ];
        let mut left = usage.value.flags;
        for (bit, purpose) in known {
            if left & bit != 0 {
                params.key_usages.push(purpose);
                left &= !bit;
            }
        }
        if left != 0 {
            return None;
        }
    }
    if let Some(usage) = old.extended_key_usage().ok()? {
        let usage = usage.value;
        let others = usage.any
            || usage.code_signing
            || usage.email_protection
            || usage.time_stamping
            || usage.ocsp_signing
            || !usage.other.is_empty();
        if others {
            return None;
        }
        if usage.server_auth {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if usage.client_auth {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pki::{inspect, matches};
    use rcgen::{BasicConstraints, CertifiedIssuer};
    use time::macros::datetime;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = datetime!(2020-01-01 0:00 UTC);
        params.not_after = datetime!(2030-01-01 0:00 UTC);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// B13, P17: what readers look at does not change, the key and the life do.
    #[test]
    fn a_renewed_certificate_says_what_the_old_one_said() {
        let (other, ca) = (authority("old"), authority("new"));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
        params
            .distinguished_name
            .push(DnType::CommonName, "system:node:a");
        params.subject_alt_names = vec![
            SanType::DnsName("a".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("fd00::1".parse().unwrap()),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = datetime!(2026-01-01 0:00 UTC);
        params.not_after = datetime!(2027-01-01 0:00 UTC);
        let key = KeyPair::generate().unwrap();
        let old = params.signed_by(&key, &ca).unwrap();

        // While one authority takes over, both are in the bundle; the key says
        // which of them signs.
        let bundle = [other.pem(), ca.pem()].concat();
        let ca_key = Pem(ca.key().serialize_pem().into_bytes());
        let now = datetime!(2026-09-01 0:00 UTC);
        let renew = |now| reissue("a", old.pem().as_bytes(), bundle.as_bytes(), &ca_key, now);
        let (certificate, new_key) = renew(now).unwrap();
        let facts = inspect("a", &certificate, bundle.as_bytes()).unwrap();
        assert_eq!(facts.common_name, "system:node:a");
        assert_eq!(facts.not_after, now + time::Duration::days(365));
        matches("a", &[certificate.as_slice(), &new_key.0].concat()).unwrap();
        assert!(
            matches("a", &[old.pem().into_bytes(), new_key.0].concat()).is_err(),
            "the key is new"
        );
        let (new, old) = (
            certificates(&certificate).next().unwrap(),
            old.der().to_vec(),
        );
        let (new, old) = (parse("new", &new).unwrap(), parse("old", &old).unwrap());
        assert_eq!(new.subject(), old.subject());
        let names = |c: &X509Certificate<'_>| {
            format!("{:?}", c.subject_alternative_name().unwrap().unwrap().value)
        };
        assert_eq!(names(&new), names(&old));
        let usage = |c: &X509Certificate<'_>| {
            format!(
                "{:?} {:?}",
                c.key_usage().unwrap().unwrap().value,
                c.extended_key_usage().unwrap().unwrap().value
            )
        };
        assert_eq!(usage(&new), usage(&old));

        // Nothing outlives its authority.
        let (late, _) = renew(datetime!(2029-06-01 0:00 UTC)).unwrap();
        let facts = inspect("a", &late, ca.pem().as_bytes()).unwrap();
        assert_eq!(facts.not_after, datetime!(2030-01-01 0:00 UTC));
        let stranger = Pem(KeyPair::generate().unwrap().serialize_pem().into_bytes());
        assert!(reissue("a", late.as_slice(), bundle.as_bytes(), &stranger, now).is_err());
    }
}
