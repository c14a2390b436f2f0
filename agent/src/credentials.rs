//! Which identity this machine has towards the API server.
//!
//! The user-data brings a certificate that is good for a year; the kubelet
//! rotates it long before. Whichever of the two is for this node, of this
//! cluster and valid now is used, the rotated one first (F6, F7, F24).

use time::OffsetDateTime;

use crate::error::{Code, Error, Result};
use crate::sys::api::Kubeconfig;
use crate::sys::http::Pem;
use crate::sys::pki::{self, Facts};
use crate::sys::root::Root;
use units::paths;
use units::types::NodeName;

/// A usable identity, and where to use it.
#[derive(Debug)]
pub struct Credentials {
    /// `https://HOST:PORT`.
    pub server: String,
    /// The only authority that is trusted, PEM.
    pub authority: Vec<u8>,
    /// Certificate and key.
    pub identity: Pem,
    /// What the certificate says.
    pub facts: Facts,
}

/// The kubelet's identity.
///
/// # Errors
///
/// [`Code::IdentityCert`] and [`Code::Clock`]: neither certificate can be used, with the
/// reason of the one that the user-data brought; [`Code::Disk`].
pub fn kubelet(root: &Root, node: &NodeName, now: OffsetDateTime) -> Result<Credentials> {
    let authority = root.read(paths::CA_CERT)?;
    let config = Kubeconfig::parse(&root.read_to_string(paths::KUBELET_KUBECONFIG)?)?;
    let expected = format!("system:node:{node}");
    let inspect = |path: &str, certificate: &[u8]| {
        let facts = pki::inspect(
            &format!("the certificate in {path}"),
            certificate,
            &authority,
        )?;
        judge(&facts, &expected, now)?;
        Ok(facts)
    };
    if let Some(rotated) = root.read_if_exists(paths::KUBELET_ROTATED)? {
        match inspect(paths::KUBELET_ROTATED, &rotated) {
            Ok(facts) => {
                return Ok(Credentials {
                    server: config.server,
                    authority,
                    identity: Pem(rotated),
                    facts,
                });
            }
            Err(error) => tracing::debug!("not used: {}", Error::story(&error)),
        }
    }
    let facts = inspect(paths::KUBELET_KUBECONFIG, &config.certificate)?;
    Ok(Credentials {
        server: config.server,
        authority,
        identity: Pem([config.certificate, b"\n".to_vec(), config.key.0].concat()),
        facts,
    })
}

/// Is it for this node, and valid now?
fn judge(facts: &Facts, expected: &str, now: OffsetDateTime) -> Result<()> {
    if facts.common_name != expected {
        return Err(Error::new(
            Code::IdentityCert,
            format!(
                "the kubelet's certificate is for {:?}, this node is {expected:?}",
                facts.common_name
            ),
        ));
    }
    if now < facts.not_before {
        let behind = facts.not_before - now;
        return Err(Error::new(
            Code::Clock,
            format!(
                "the clock says {}, at least {} h {} min before the kubelet's certificate begins",
                now.date(),
                behind.whole_hours(),
                behind.whole_minutes() % 60
            ),
        ));
    }
    if now > facts.not_after {
        return Err(Error::new(
            Code::IdentityCert,
            format!(
                "the kubelet's certificate expired on {}",
                facts.not_after.date()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use time::macros::datetime;

    fn params(name: &str, years: std::ops::Range<i32>) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        params
    }

    /// A node's folder with a certificate of 2026 in kubelet.conf.
    struct Fixture {
        folder: tempfile::TempDir,
        authority: CertifiedIssuer<'static, KeyPair>,
    }

    impl Fixture {
        fn new() -> Self {
            let mut ca = params("kubernetes", 2020..2040);
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let authority = CertifiedIssuer::self_signed(ca, key).unwrap();
            let fixture = Self {
                folder: tempfile::tempdir().unwrap(),
                authority,
            };
            fixture.write(paths::CA_CERT, &fixture.authority.pem());
            let (certificate, key) = fixture.issue("system:node:a", 2026..2027);
            let base64 = |text: &str| {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(text)
            };
            fixture.write(
                paths::KUBELET_KUBECONFIG,
                &format!(
                    "clusters: [{{name: c, cluster: {{server: 'https://10.0.0.1:6443', \
                     certificate-authority-data: {}}}}}]\n\
                     users: [{{name: u, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
                    base64(&fixture.authority.pem()),
                    base64(&certificate),
                    base64(&key)
                ),
            );
            fixture
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.folder.path().join(&path[1..]);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn issue(&self, name: &str, years: std::ops::Range<i32>) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let certificate = params(name, years)
                .signed_by(&key, &self.authority)
                .unwrap();
            (certificate.pem(), key.serialize_pem())
        }

        fn rotate(&self, name: &str, years: std::ops::Range<i32>) {
            let (certificate, key) = self.issue(name, years);
            self.write(paths::KUBELET_ROTATED, &(certificate + &key));
        }

        /// The year in which the chosen certificate ends, or why there is none.
        fn chosen(&self, node: &str, now: OffsetDateTime) -> Result<i32, (Code, String)> {
            kubelet(&Root::new(self.folder.path()), &node.parse().unwrap(), now)
                .map(|credentials| credentials.facts.not_after.year())
                .map_err(|error| (error.code(), error.story()))
        }
    }

    #[test]
    fn wrong_name_wrong_clock_and_expiry_are_told_apart() {
        let fixture = Fixture::new();
        assert_eq!(
            fixture.chosen("a", datetime!(2026-06-01 0:00 UTC)),
            Ok(2027)
        );
        let (code, _) = fixture
            .chosen("b", datetime!(2026-06-01 0:00 UTC))
            .unwrap_err();
        assert_eq!(code, Code::IdentityCert);
        let early = datetime!(2025-12-31 20:48 UTC);
        let (code, story) = fixture.chosen("a", early).unwrap_err();
        assert_eq!(code, Code::Clock);
        assert!(story.contains("3 h 12 min"), "{story}");
        let (code, story) = fixture
            .chosen("a", datetime!(2027-06-01 0:00 UTC))
            .unwrap_err();
        assert_eq!(code, Code::IdentityCert);
        assert!(story.contains("expired on 2027-01-01"), "{story}");
    }

    /// F24: a machine that was off while the first certificate expired.
    #[test]
    fn f24_what_the_kubelet_rotated_is_used_while_it_is_good() {
        let fixture = Fixture::new();
        fixture.rotate("system:node:a", 2026..2028);
        assert_eq!(
            fixture.chosen("a", datetime!(2027-06-01 0:00 UTC)),
            Ok(2028)
        );
        // Another node's, from a disk that was cloned: the user-data's is used.
        fixture.rotate("system:node:z", 2026..2028);
        assert_eq!(
            fixture.chosen("a", datetime!(2026-06-01 0:00 UTC)),
            Ok(2027)
        );
        fixture.write(paths::KUBELET_ROTATED, "");
        assert_eq!(
            fixture.chosen("a", datetime!(2026-06-01 0:00 UTC)),
            Ok(2027)
        );
    }

    /// F7: the cluster was made anew, and this machine has an old document.
    #[test]
    fn f7_a_certificate_of_another_authority_is_named() {
        let fixture = Fixture::new();
        let other = Fixture::new();
        fixture.write(paths::CA_CERT, &other.authority.pem());
        let (code, story) = fixture
            .chosen("a", datetime!(2026-06-01 0:00 UTC))
            .unwrap_err();
        assert_eq!(code, Code::IdentityCert);
        assert!(story.contains("not this cluster's authority"), "{story}");
    }
}
