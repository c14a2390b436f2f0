//! Certificate signing requests (RFC 2986): asking for a certificate, and
//! reading what another asks for.

use std::net::IpAddr;

use rcgen::{CertificateParams, SanType};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer as _;

use super::{private_key, subject};
use crate::error::{Code, Context, Error, Result};
use crate::sys::http::Pem;

/// What stands in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations: groups, in Kubernetes' eyes.
    pub organizations: Vec<String>,
    /// The DNS names it should answer to.
    pub dns: Vec<String>,
    /// The addresses it should answer to.
    pub addresses: Vec<IpAddr>,
}

/// What another asked for, by its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What a certificate for a server may say.
    pub request: Request,
    /// What else the request asks for, and no certificate of ours should say:
    /// other parts of the subject, other kinds of names, other extensions.
    pub besides: Vec<String>,
}

impl Request {
    /// The request in PEM, signed with `key`. Usages are not in it: they are
    /// named beside it, in the CertificateSigningRequest object.
    ///
    /// # Errors
    ///
    /// [`Code::IdentityCert`]: the key is not usable, or a name is none.
    pub fn sign(&self, key: &Pem) -> Result<String> {
        let doing = || format!("asking for a certificate for {}", self.common_name);
        let key = private_key("the machine's own key", &key.0)?;
        let mut params = CertificateParams::default();
        let organization = self.organizations.first().map_or("", String::as_str);
        params.distinguished_name = subject(&self.common_name, organization);
        for name in &self.dns {
            let name = name
                .as_str()
                .try_into()
                .context(Code::IdentityCert, doing)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = self.addresses.iter().copied();
        params
            .subject_alt_names
            .extend(addresses.map(SanType::IpAddress));
        let request = params
            .serialize_request(&key)
            .context(Code::IdentityCert, doing)?;
        request.pem().context(Code::IdentityCert, doing)
    }
}

/// Reads a request and checks that it is signed with the key it is for.
///
/// # Errors
///
/// [`Code::IdentityCert`]: it is none, or signed with another key.
pub fn read_request(pem: &[u8]) -> Result<Asked> {
    let wrong = |problem: &str| Error::new(Code::IdentityCert, format!("the request {problem}"));
    let block = x509_parser::pem::Pem::iter_from_buffer(pem)
        .next()
        .and_then(|block| block.ok())
        .filter(|block| block.label.ends_with("CERTIFICATE REQUEST"))
        .ok_or_else(|| wrong("is not PEM"))?;
    let (rest, parsed) =
        X509CertificationRequest::from_der(&block.contents).map_err(|_| wrong("cannot be read"))?;
    if !rest.is_empty() {
        return Err(wrong("has bytes after its end"));
    }
    parsed
        .verify_signature()
        .map_err(|_| wrong("is not signed with its own key"))?;
    let mut asked = Asked {
        request: Request::default(),
        besides: Vec::new(),
    };
    let Asked { request, besides } = &mut asked;
    for part in parsed.certification_request_info.subject.iter_attributes() {
        let text = part.as_str().unwrap_or_default().to_owned();
        if *part.attr_type() == OID_X509_ORGANIZATION_NAME {
            request.organizations.push(text);
        } else if *part.attr_type() == OID_X509_COMMON_NAME && request.common_name.is_empty() {
            request.common_name = text;
        } else {
            besides.push(format!("{} in the subject", part.attr_type()));
        }
    }
    // Each attribute counts, not only the first of its kind.
    for attribute in parsed.certification_request_info.iter_attributes() {
        use x509_parser::cri_attributes::ParsedCriAttribute;
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => {
                for extension in &requested.extensions {
                    read_extension(extension.parsed_extension(), request, besides);
                }
            }
            _ => besides.push(format!("the attribute {}", attribute.oid)),
        }
    }
    Ok(asked)
}

fn read_extension(
    extension: &ParsedExtension<'_>,
    request: &mut Request,
    besides: &mut Vec<String>,
) {
    match extension {
        ParsedExtension::SubjectAlternativeName(names) => {
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => request.dns.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => match address(bytes) {
                        Some(address) => request.addresses.push(address),
                        None => besides.push("an address that is none".to_owned()),
                    },
                    other => besides.push(format!("the name {other}")),
                }
            }
        }
        // The signer decides on these by the usages beside the request.
        ParsedExtension::KeyUsage(_) | ParsedExtension::ExtendedKeyUsage(_) => {}
        ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
        _ => besides.push("an extension that no kubelet asks for".to_owned()),
    }
}

/// An address as it stands in a certificate: 4 bytes, or 16 (RFC 5280, 4.2.1.6).
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pki::new_key;
    use rcgen::{CustomExtension, DnType, KeyPair};

    fn request() -> Request {
        Request {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            dns: vec!["a".to_owned()],
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_made() {
        let pem = request().sign(&new_key().unwrap()).unwrap();
        let asked = read_request(pem.as_bytes()).unwrap();
        assert_eq!(asked.request, request());
        assert!(asked.besides.is_empty(), "{:?}", asked.besides);
    }

    #[test]
    fn what_else_is_asked_for_is_noticed_and_forgery_refused() {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("system:node:a", "system:nodes");
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "x");
        params.subject_alt_names = vec![
            SanType::Rfc822Name("root@example.com".try_into().unwrap()),
            SanType::URI("https://example.com".try_into().unwrap()),
        ];
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 4, 1, 99999, 1],
            vec![5, 0],
        )];
        let key = KeyPair::generate().unwrap();
        let made = params.serialize_request(&key).unwrap();
        let asked = read_request(made.pem().unwrap().as_bytes()).unwrap();
        assert_eq!(asked.besides.len(), 4, "{:?}", asked.besides);

        let mut der = made.der().to_vec();
        // The common name is somewhere in the first half.
        let at = der.windows(6).position(|w| w == b"node:a").unwrap() + 5;
        der[at] = b'b';
        let forged = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der)
        );
        let error = read_request(forged.as_bytes()).unwrap_err();
        assert!(error.story().contains("its own key"), "{}", error.story());
        assert!(read_request(b"").is_err());
    }
}
