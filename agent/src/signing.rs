//! A certificate by a CertificateSigningRequest: a key that never leaves the
//! machine, a request, and waiting until the masters sign it.
//!
//! The key is kept from before the request until after the answer, so a knode
//! that was killed in between goes on with the same request.
//! Source: Kubernetes documentation, "Certificates and Certificate Signing Requests".

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::error::{Code, Error, Result};
use crate::retry::Backoff;
use crate::sys::api::Api;
use crate::sys::http::Pem;
use crate::sys::pki::{self, Request};
use crate::sys::root::Root;
use crate::sys::store::sha256;
use units::paths;

/// The collection of requests.
pub const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// The signer of what kubelets prove themselves with towards the API server.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of what kubelets serve with.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// What is asked for.
#[derive(Debug)]
pub struct Question {
    /// Who signs: one of Kubernetes' signers.
    pub signer: &'static str,
    /// What the certificate is for, beside digital signatures.
    pub usage: &'static str,
    /// What stands in it.
    pub request: Request,
}

/// A certificate and the key it is for, both PEM.
#[derive(Debug)]
pub struct Signed {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Pem,
}

impl Signed {
    /// Both in one text, the certificate first.
    pub fn identity(&self) -> Pem {
        Pem([self.certificate.as_slice(), b"\n", &self.key.0].concat())
    }
}

/// Asks for a certificate and waits for it, for as long as it takes. `tell`
/// hears what is being waited for. The caller keeps both, then calls
/// [`forget`].
///
/// # Errors
///
/// As every request ([`Api::get`]); [`Code::ApiRefused`] when the request was
/// denied or the certificate is for another key: the next attempt has a new
/// one. [`Code::Disk`].
pub async fn obtain(
    root: &Root,
    api: &Api,
    question: &Question,
    tell: impl Fn(String),
) -> Result<Signed> {
    let key = pending_key(root, question)?;
    let name = name(question, &pki::public_key(&key)?);
    let path = format!("{REQUESTS}/{name}");
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let Some(found) = api.get(&path).await? else {
            // Not asked yet, or forgotten by the cluster, as old ones are.
            let object = object(&name, question, &question.request.sign(&key)?);
            api.create(REQUESTS, &object).await?;
            continue;
        };
        match answer(&found) {
            Answer::Certificate(certificate) => {
                let signed = Signed { certificate, key };
                let what = format!("the certificate of {name}");
                if let Err(error) = pki::matches(&what, &signed.identity().0) {
                    forget(root, question)?;
                    return Err(Error::new(Code::ApiRefused, error.story()));
                }
                return Ok(signed);
            }
            Answer::Refused(reason) => {
                forget(root, question)?;
                return Err(Error::new(
                    Code::ApiRefused,
                    format!("the request {name} was refused: {reason}"),
                ));
            }
            Answer::Approved => tell(format!("{name} is approved, and waits to be signed")),
            Answer::Pending => tell(format!("waiting for the masters to approve {name}")),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Removes the key of a question that was answered.
///
/// # Errors
///
/// [`Code::Disk`].
pub fn forget(root: &Root, question: &Question) -> Result<()> {
    root.remove(key_path(question))?;
    Ok(())
}

fn key_path(question: &Question) -> String {
    let kind = question.signer.rsplit('/').next().unwrap_or_default();
    format!("{}/{kind}.key", paths::STATE_DIR)
}

/// The key of a question that was asked before, or a new one.
fn pending_key(root: &Root, question: &Question) -> Result<Pem> {
    let path = key_path(question);
    if let Some(kept) = root.read_if_exists(&path)? {
        let kept = Pem(kept);
        if pki::public_key(&kept).is_ok() {
            return Ok(kept);
        }
    }
    root.create_dir(paths::STATE_DIR, 0o700)?;
    let key = pki::new_key()?;
    root.write_atomic(&path, &key.0, 0o600)?;
    Ok(key)
}

/// The same question with the same key has the same name.
fn name(question: &Question, public_key: &[u8]) -> String {
    let asked = format!("{question:?}");
    let digest = sha256(&[asked.as_bytes(), public_key].concat()).hex();
    format!("node-csr-{}", &digest[..32])
}

fn object(name: &str, question: &Question, request: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": BASE64.encode(request),
            "signerName": question.signer,
            // Our keys are ECDSA, for which there is no key encipherment.
            "usages": ["digital signature", question.usage],
        },
    })
}

/// How far a request has come.
#[derive(Debug, PartialEq)]
enum Answer {
    Certificate(Vec<u8>),
    Approved,
    Refused(String),
    Pending,
}

fn answer(found: &Value) -> Answer {
    let status = &found["status"];
    let signed = status["certificate"]
        .as_str()
        .and_then(|text| BASE64.decode(text).ok())
        .filter(|bytes| !bytes.is_empty());
    if let Some(certificate) = signed {
        return Answer::Certificate(certificate);
    }
    let conditions = || status["conditions"].as_array().into_iter().flatten();
    let refused = conditions().find(|c| c["type"] == "Denied" || c["type"] == "Failed");
    if let Some(refused) = refused {
        let reason = [&refused["reason"], &refused["message"]];
        let reason: Vec<&str> = reason.into_iter().filter_map(Value::as_str).collect();
        return Answer::Refused(reason.join(": "));
    }
    if conditions().any(|c| c["type"] == "Approved") {
        return Answer::Approved;
    }
    Answer::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(node: &str) -> Question {
        Question {
            signer: KUBELET_CLIENT,
            usage: "client auth",
            request: Request {
                common_name: format!("system:node:{node}"),
                organizations: vec!["system:nodes".to_owned()],
                ..Request::default()
            },
        }
    }

    /// P15: killed at any moment, the machine asks on with the same key.
    #[test]
    fn the_key_is_kept_until_the_answer_and_mended_when_cut() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let public =
            |question: &Question| pki::public_key(&pending_key(&root, question).unwrap()).unwrap();
        let first = public(&question("a"));
        assert_eq!(public(&question("a")), first);
        assert_eq!(name(&question("a"), &first), name(&question("a"), &first));
        assert_ne!(name(&question("a"), &first), name(&question("b"), &first));
        let path = key_path(&question("a"));
        assert_eq!(root.stat(&path).unwrap().unwrap().mode, 0o600);
        let whole = root.read(&path).unwrap();
        root.write_atomic(&path, &whole[..whole.len() / 2], 0o600)
            .unwrap();
        let second = public(&question("a"));
        assert_ne!(second, first);
        forget(&root, &question("a")).unwrap();
        assert_ne!(public(&question("a")), second);
    }

    #[test]
    fn answers_are_told_apart() {
        let condition = |kind: &str| {
            json!({"status": {"conditions": [
                {"type": kind, "status": "True", "reason": "Because", "message": "of this"},
            ]}})
        };
        assert_eq!(answer(&json!({})), Answer::Pending);
        assert_eq!(answer(&condition("Approved")), Answer::Approved);
        let refused = Answer::Refused("Because: of this".to_owned());
        assert_eq!(answer(&condition("Denied")), refused);
        assert_eq!(answer(&condition("Failed")), refused);
        let signed = json!({"status": {"certificate": BASE64.encode("PEM")}});
        assert_eq!(answer(&signed), Answer::Certificate(b"PEM".to_vec()));
    }
}
