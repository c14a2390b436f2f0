//! Which identity this machine has towards the API server.
//!
//! The user-data brings a certificate that is good for a year, or a token by
//! which the machine asks for one; the kubelet rotates it long before its end.
//! Whichever is for this node, of this cluster, valid now and whole is used,
//! the machine's own first (F6, F7, F24).

use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::{Code, Context as _, Error, Result};
use crate::sys::http::Pem;
use crate::sys::kubeconfig::{Kubeconfig, User};
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
    /// Whether the machine got it by itself; else the user-data brought it.
    pub own: bool,
}

/// The kubelet's identity.
///
/// # Errors
///
/// [`Code::IdentityCert`] and [`Code::Clock`]: no certificate can be used, with the
/// reason of the one that the user-data brought, or of the one that the machine
/// got by itself where the user-data brings none; [`Code::Disk`].
pub fn kubelet(root: &Root, node: &NodeName, now: OffsetDateTime) -> Result<Credentials> {
    let authority = root.read(paths::CA_CERT)?;
    let config = Kubeconfig::parse(&root.read_to_string(paths::KUBELET_KUBECONFIG)?)?;
    let expected = format!("system:node:{node}");
    let usable = |path: &str, identity: Pem| {
        let what = format!("the certificate in {path}");
        let facts = pki::inspect(&what, &identity.0, &authority)?;
        judge(&facts, &expected, now)?;
        pki::matches(&what, &identity.0)?;
        Ok(Credentials {
            server: config.server.clone(),
            authority: authority.clone(),
            identity,
            facts,
            own: path == paths::KUBELET_ROTATED,
        })
    };
    let own = match root.read_if_exists(paths::KUBELET_ROTATED)? {
        Some(rotated) => usable(paths::KUBELET_ROTATED, Pem(rotated)),
        None => Err(Error::new(
            Code::IdentityCert,
            "this machine has no certificate yet",
        )),
    };
    match (own, &config.user) {
        (Ok(own), _) => Ok(own),
        (Err(error), User::Files { certificate, .. }) if certificate == paths::KUBELET_ROTATED => {
            Err(error)
        }
        (Err(error), _) => {
            tracing::debug!("not used: {}", Error::story(&error));
            usable(paths::KUBELET_KUBECONFIG, config.identity(root)?)
        }
    }
}

/// Sees to it that the kubelet goes by the identity that was chosen: one of its
/// own that cannot be used would come before the document's (F7). Whether there
/// was such a one.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn settle(root: &Root, chosen: &Credentials, now: OffsetDateTime) -> Result<bool> {
    let in_the_way = !chosen.own && root.stat(paths::KUBELET_ROTATED)?.is_some();
    if in_the_way {
        keep(root, &chosen.identity, now)?;
    }
    Ok(in_the_way)
}

/// Keeps the kubelet's certificate and key where the kubelet itself keeps what
/// it rotates, under the names it gives: so it goes on rotating this one.
/// Source: client-go, util/certificate/certificate_store.go.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn keep(root: &Root, identity: &Pem, now: OffsetDateTime) -> Result<()> {
    let (folder, _) = paths::KUBELET_ROTATED.rsplit_once('/').unwrap_or_default();
    if !root.exists(folder)? {
        root.create_dir(folder, 0o700)?;
    }
    let date = now
        .format(format_description!(
            "[year]-[month]-[day]-[hour]-[minute]-[second]"
        ))
        .context(Code::Clock, || "naming the certificate's file".to_owned())?;
    let file = format!("kubelet-client-{date}.pem");
    root.write_atomic(format!("{folder}/{file}"), &identity.0, 0o600)?;
    root.symlink_atomic(file, paths::KUBELET_ROTATED)?;
    Ok(())
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
    use crate::sys::kubeconfig::with_user;
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

        /// What a pooled machine's document brings: no certificate.
        fn pooled(&self) {
            let path = paths::KUBELET_ROTATED;
            let config = self
                .root()
                .read_to_string(paths::KUBELET_KUBECONFIG)
                .unwrap();
            let files = User::Files {
                certificate: path.to_owned(),
                key: path.to_owned(),
            };
            let config = with_user(&config, &files).unwrap();
            self.write(
                paths::KUBELET_KUBECONFIG,
                &String::from_utf8(config.0).unwrap(),
            );
        }

        fn root(&self) -> Root {
            Root::new(self.folder.path())
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
        let now = datetime!(2026-06-01 0:00 UTC);
        assert_eq!(fixture.chosen("a", now), Ok(2027));
        // The kubelet would take it, or stumble over it.
        let root = fixture.root();
        let chosen = || kubelet(&root, &"a".parse().unwrap(), now).unwrap();
        assert!(settle(&root, &chosen(), now).unwrap());
        assert!(chosen().own);
        assert!(!settle(&root, &chosen(), now).unwrap());
    }

    /// F24, P15: a file that was cut is no identity, and what a machine got by
    /// itself is kept as the kubelet keeps it.
    #[test]
    fn f24_a_pooled_machine_has_what_it_got_itself_or_nothing() {
        let fixture = Fixture::new();
        fixture.pooled();
        let now = datetime!(2026-06-01 0:00 UTC);
        let (code, story) = fixture.chosen("a", now).unwrap_err();
        assert_eq!(code, Code::IdentityCert);
        assert!(story.contains("no certificate yet"), "{story}");

        let (certificate, key) = fixture.issue("system:node:a", 2026..2028);
        let whole = Pem((certificate.clone() + &key).into_bytes());
        keep(&fixture.root(), &whole, now).unwrap();
        assert_eq!(fixture.chosen("a", now), Ok(2028));
        let link = fixture.root().read_link(paths::KUBELET_ROTATED).unwrap();
        assert_eq!(
            link.unwrap().to_str().unwrap(),
            "kubelet-client-2026-06-01-00-00-00.pem"
        );
        let file = "/var/lib/kubelet/pki/kubelet-client-2026-06-01-00-00-00.pem";
        let stat = fixture.root().stat(file).unwrap().unwrap();
        assert_eq!(stat.mode, 0o600);

        let half = &key[..key.len() / 2];
        for cut in [certificate.clone() + half, certificate, half.to_owned()] {
            fixture.write(file, &cut);
            let (code, story) = fixture.chosen("a", now).unwrap_err();
            assert_eq!(code, Code::IdentityCert);
            assert!(!story.contains("PRIVATE"), "{story}");
        }
        // A key of another certificate.
        let (_, stranger) = fixture.issue("system:node:a", 2026..2028);
        let (certificate, _) = fixture.issue("system:node:a", 2026..2028);
        fixture.write(file, &(certificate + &stranger));
        let (_, story) = fixture.chosen("a", now).unwrap_err();
        assert!(story.contains("another certificate"), "{story}");
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
