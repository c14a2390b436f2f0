//! `kgen openstack routes` where the cloud has an authority of its own. (P50)

mod common;

use std::path::Path;

use common::Folder;
use common::cloud::Cloud;
use common::openstack::{routes, small};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority's certificate, and a server that has one of it for this name.
fn authority(name: &str) -> (String, ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "a cloud");
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.into()], private)
        .unwrap();
    (root.pem(), config)
}

fn folder() -> Folder {
    Folder::with(&small("", "network: {mode: routed}\n"))
}

fn plan(folder: &Folder, cloud: &Cloud, authority: Option<&Path>) -> (i32, String, String) {
    let url = format!("{}/identity", cloud.url);
    let file = authority.map(|file| file.to_str().unwrap());
    let mut variables = vec![
        ("OS_AUTH_URL", url.as_str()),
        ("OS_USERNAME", "ops"),
        ("OS_PASSWORD", "hunter2"),
        ("OS_PROJECT_NAME", "demo"),
    ];
    variables.extend(file.map(|file| ("OS_CACERT", file)));
    routes(folder, &variables, &["plan"])
}

#[test]
fn the_authority_that_is_named_is_trusted() {
    let folder = folder();
    let (root, config) = authority("127.0.0.1");
    folder.write("ca.crt", &root);
    let cloud = Cloud::secured(config);
    let (status, out, err) = plan(&folder, &cloud, Some(&folder.path("ca.crt")));
    assert_eq!(status, 3, "{err}");
    assert!(out.contains("10.244.0.0/24"), "{out}");
    // The same in clouds.yaml; others may be beside it in the file.
    let (other, _) = authority("127.0.0.1");
    folder.write("ca.crt", &(other + &root));
    let clouds = format!(
        "clouds:\n  own:\n    cacert: {}\n    auth: {{auth_url: '{}/identity', username: ops, \
         password: hunter2, project_name: demo}}\n",
        folder.path("ca.crt").display(),
        cloud.url
    );
    folder.write("clouds.yaml", &clouds);
    let (status, _, err) = routes(&folder, &[("OS_CLOUD", "own")], &["plan"]);
    assert_eq!(status, 3, "{err}");
    assert_eq!(cloud.with(|shelf| shelf.logins.len()), 2);
}

/// Nobody is told a password, nor asked again and again.
#[test]
fn others_are_not() {
    let folder = folder();
    let (root, config) = authority("127.0.0.1");
    let (other, _) = authority("127.0.0.1");
    let (of_another_name, elsewhere) = authority("cloud.example.com");
    folder.write("ca.crt", &root);
    folder.write("other.crt", &other);
    folder.write("elsewhere.crt", &of_another_name);
    folder.write("nonsense.crt", "nonsense\n");
    let [cloud, misnamed] = [config, elsewhere].map(Cloud::secured);
    for (cloud, file, part) in [
        (&cloud, None, "invalid peer certificate"),
        (&cloud, Some("other.crt"), "invalid peer certificate"),
        (&misnamed, Some("elsewhere.crt"), "not valid for name"),
    ] {
        let file = file.map(|file| folder.path(file));
        let (status, _, err) = plan(&folder, cloud, file.as_deref());
        let told = err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(status, 1, "{told}");
        for part in [part, "OS_CACERT"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("tried"), "{told}");
        assert_eq!(cloud.with(|shelf| shelf.asked.len()), 0);
    }
    for (file, part) in [
        ("nonsense.crt", "is no certificate"),
        ("nowhere.crt", "the cloud's authority"),
    ] {
        let (status, _, err) = plan(&folder, &cloud, Some(&folder.path(file)));
        assert_ne!(status, 0, "{err}");
        assert!(err.contains(file) && err.contains(part), "{err}");
    }
}
