//! The ways to a new certificate.

use std::time::Duration;

use time::OffsetDateTime;

use super::kept::{Form, KUBE_PROXY, KUBELET, Kept, State};
use crate::credentials;
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::renewals::{Renewal, RenewedFile};
use crate::signing::{self, KUBELET_SERVING, Question};
use crate::sys::http::Pem;
use crate::sys::kubeconfig::{User, with_user};
use crate::sys::pki;
use units::paths;
use units::types::FileMode;

/// How long an answer to a request is waited for in one round.
const PATIENCE: Duration = Duration::from_secs(60);
/// A new certificate that ends no later than this after the old one is no gain:
/// then it is the authority that comes to its end.
const GAIN: time::Duration = time::Duration::hours(1);

/// Renews a certificate; whether there was anything to gain.
///
/// # Errors
///
/// Why it could not be renewed; the old one is then as it was.
pub async fn renew(
    machine: &Machine,
    kept: &Kept,
    state: &State,
    now: OffsetDateTime,
) -> Result<bool> {
    let root = &machine.root;
    if root.exists(kept.authority_key_path())? {
        return sign(machine, kept, state, now);
    }
    if *kept == KUBELET {
        ask(machine, kept).await
    } else if *kept == KUBE_PROXY {
        change_over(machine, kept).await
    } else {
        Err(Error::new(
            Code::IdentityCert,
            format!(
                "{} is not on this machine; generate its user-data again",
                kept.authority_key_path()
            ),
        ))
    }
}

/// Signs it here, with the authority's key.
fn sign(machine: &Machine, kept: &Kept, state: &State, now: OffsetDateTime) -> Result<bool> {
    let root = &machine.root;
    let authority = root.read(kept.authority_path())?;
    if let Some(facts) = pki::read(&authority)
        && now < facts.not_before
    {
        return Err(Error::new(
            Code::Clock,
            format!(
                "the clock says {}, before the authority {} begins",
                now.date(),
                facts.common_name
            ),
        ));
    }
    let what = format!("the certificate in {}", kept.certificate_path());
    let key = Pem(root.read(kept.authority_key_path())?);
    let (certificate, key) = pki::reissue(&what, &state.identity.0, &authority, &key, now)?;
    let new_end = pki::read(&certificate).map(|facts| facts.not_after);
    let gained = match (state.ends(), new_end) {
        (Some(old), Some(new)) => new - old > GAIN,
        (None, Some(new)) => new > now,
        _ => false,
    };
    if !gained {
        return Err(Error::new(
            Code::IdentityCert,
            format!("the authority {} itself comes to its end", kept.authority),
        ));
    }
    install(machine, kept, &certificate, &key)?;
    Ok(true)
}

/// Asks the masters for the kubelet's serving certificate: for its Node's name
/// and the machine's addresses.
async fn ask(machine: &Machine, kept: &Kept) -> Result<bool> {
    let api = machine.kubelet_api()?;
    let addresses = crate::machine::known(&machine.addresses).await;
    let question = Question {
        signer: KUBELET_SERVING,
        usage: "server auth",
        request: pki::Request {
            common_name: format!("system:node:{}", machine.name),
            organizations: vec!["system:nodes".to_owned()],
            dns: vec![machine.name.to_string()],
            addresses,
        },
    };
    let tell = |told: String| tracing::debug!("{told}");
    let asked = signing::obtain(&machine.root, &api, &question, tell);
    let signed = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| {
        Error::new(
            Code::WaitTimeout,
            "no master has approved the request for the kubelet's serving certificate",
        )
    })??;
    install(machine, kept, &signed.certificate, &signed.key)?;
    signing::forget(&machine.root, &question)?;
    Ok(true)
}

/// kube-proxy goes by the kubelet's certificate from now on, if the cluster
/// lets it.
async fn change_over(machine: &Machine, kept: &Kept) -> Result<bool> {
    let own = credentials::kubelet(&machine.root, &machine.name, OffsetDateTime::now_utc())?;
    if !machine.root.exists(paths::KUBELET_ROTATED)? {
        credentials::keep(&machine.root, &own.identity, OffsetDateTime::now_utc())?;
    }
    let api = machine.kubelet_api()?;
    for needed in [
        "/api/v1/nodes?limit=1",
        "/api/v1/services?limit=1",
        "/apis/discovery.k8s.io/v1/endpointslices?limit=1",
    ] {
        api.get(needed).await?;
    }
    let path = kept.certificate_path();
    let user = User::Files {
        certificate: paths::KUBELET_ROTATED.to_owned(),
        key: paths::KUBELET_ROTATED.to_owned(),
    };
    let text = with_user(&machine.root.read_to_string(&path)?, &user)?;
    keep(machine, kept, vec![(path, FileMode::SECRET, text.0)])?;
    Ok(true)
}

/// Puts certificate and key where they belong.
fn install(machine: &Machine, kept: &Kept, certificate: &[u8], key: &Pem) -> Result<()> {
    let (path, key_path) = (kept.certificate_path(), kept.key_path());
    let files = match kept.form {
        Form::Pair => vec![
            (key_path, FileMode::SECRET, key.0.clone()),
            (path, FileMode::PUBLIC, certificate.to_vec()),
        ],
        Form::Kubeconfig => {
            let user = User::Embedded {
                certificate: certificate.to_vec(),
                key: key.clone(),
            };
            let text = with_user(&machine.root.read_to_string(&path)?, &user)?;
            vec![(path, FileMode::SECRET, text.0)]
        }
    };
    keep(machine, kept, files)
}

fn keep(machine: &Machine, kept: &Kept, files: Vec<(String, FileMode, Vec<u8>)>) -> Result<()> {
    let manifest = &machine.config.manifest;
    let files = files.into_iter().map(|(path, mode, bytes)| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        RenewedFile::new(manifest, &path, mode, text)
    });
    let renewal = Renewal {
        name: kept.name(),
        files: files.collect(),
        restart: kept.restart,
    };
    renewal.install(&machine.root)?;
    tracing::info!("renewed {}", renewal.name);
    Ok(())
}
