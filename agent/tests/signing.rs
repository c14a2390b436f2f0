//! Asking a cluster for a certificate, against a server that answers as the
//! API server does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use knode::error::Code;
use knode::signing::{self, KUBELET_CLIENT, Question, REQUESTS};
use knode::sys::api::Api;
use knode::sys::kubeconfig::Kubeconfig;
use knode::sys::pki::{self, Request};
use knode::sys::root::Root;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair,
};
use serde_json::{Value, json};

const TOKEN: &str = "abcdef.0123456789abcdef";

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Pending,
    Approves,
    Denies,
}

struct Cluster {
    authority: CertifiedIssuer<'static, KeyPair>,
    mood: Mutex<Mood>,
    requests: Mutex<BTreeMap<String, Value>>,
}

impl Cluster {
    async fn start() -> (Arc<Self>, String) {
        // Another test may have been first; either way there is one provider.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cluster = Arc::new(Self {
            authority: CertifiedIssuer::self_signed(params, key).unwrap(),
            mood: Mutex::new(Mood::Pending),
            requests: Mutex::default(),
        });
        let app = Router::new()
            .route(REQUESTS, post(create))
            .route(&format!("{REQUESTS}/{{name}}"), get(read))
            .with_state(Arc::clone(&cluster));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        (cluster, format!("http://{address}"))
    }

    fn api(&self, server: &str, token: &str) -> Api {
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: '{server}', \
             certificate-authority-data: {}}}}}]\nusers: [{{name: u, user: {{token: {token}}}}}]\n",
            BASE64.encode(self.authority.pem())
        );
        Kubeconfig::parse(&text)
            .unwrap()
            .api(&Root::new("/nowhere"))
            .unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.requests.lock().unwrap().keys().cloned().collect()
    }
}

fn allowed(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .is_some_and(|v| v.to_str().unwrap() == format!("Bearer {TOKEN}"))
}

async fn create(
    State(cluster): State<Arc<Cluster>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    if !allowed(&headers) {
        return (
            StatusCode::UNAUTHORIZED,
            json!({"message": "Unauthorized"}).to_string(),
        );
    }
    let object: Value = serde_json::from_str(&body).unwrap();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let mut requests = cluster.requests.lock().unwrap();
    if requests.contains_key(&name) {
        return (
            StatusCode::CONFLICT,
            json!({"message": "already exists"}).to_string(),
        );
    }
    requests.insert(name, object.clone());
    (StatusCode::CREATED, object.to_string())
}

async fn read(
    State(cluster): State<Arc<Cluster>>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> (StatusCode, String) {
    if !allowed(&headers) {
        return (
            StatusCode::UNAUTHORIZED,
            json!({"message": "Unauthorized"}).to_string(),
        );
    }
    let Some(mut object) = cluster.requests.lock().unwrap().get(&name).cloned() else {
        return (
            StatusCode::NOT_FOUND,
            json!({"message": "not found"}).to_string(),
        );
    };
    match *cluster.mood.lock().unwrap() {
        Mood::Pending => {}
        Mood::Denies => {
            object["status"] =
                json!({"conditions": [{"type": "Denied", "reason": "No", "message": "not you"}]});
        }
        Mood::Approves => {
            let pem = BASE64
                .decode(object["spec"]["request"].as_str().unwrap())
                .unwrap();
            let request = String::from_utf8(pem).unwrap();
            let request = CertificateSigningRequestParams::from_pem(&request).unwrap();
            let certificate = request.signed_by(&cluster.authority).unwrap().pem();
            object["status"] = json!({"certificate": BASE64.encode(certificate)});
        }
    }
    (StatusCode::OK, object.to_string())
}

fn question() -> Question {
    Question {
        signer: KUBELET_CLIENT,
        usage: "client auth",
        request: Request {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..Request::default()
        },
    }
}

/// P15: a knode that is killed while it waits goes on with its own request.
#[tokio::test]
async fn a_request_is_made_once_and_answered_later() {
    let (cluster, server) = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new(folder.path());
    let told = Mutex::new(Vec::new());
    let ask = |api: Api| {
        let (root, told) = (&root, &told);
        async move {
            let tell = |text: String| told.lock().unwrap().push(text);
            signing::obtain(root, &api, &question(), tell).await
        }
    };
    let waiting = ask(cluster.api(&server, TOKEN));
    let killed = tokio::time::timeout(Duration::from_millis(700), waiting).await;
    assert!(killed.is_err(), "nobody has approved it");
    assert_eq!(cluster.names().len(), 1);
    assert!(told.lock().unwrap()[0].contains("approve node-csr-"));
    let object = cluster
        .requests
        .lock()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .clone();
    assert_eq!(object["spec"]["signerName"], KUBELET_CLIENT);
    assert_eq!(
        object["spec"]["usages"],
        json!(["digital signature", "client auth"])
    );

    *cluster.mood.lock().unwrap() = Mood::Approves;
    let signed = ask(cluster.api(&server, TOKEN)).await.unwrap();
    let identity = signed.identity();
    assert_eq!(cluster.names().len(), 1, "asked twice");
    pki::matches("it", &identity.0).unwrap();
    let facts = pki::inspect("it", &identity.0, cluster.authority.pem().as_bytes()).unwrap();
    assert_eq!(facts.common_name, "system:node:a");
}

#[tokio::test]
async fn refusals_have_their_codes_and_tell_no_secret() {
    let (cluster, server) = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new(folder.path());
    let wrong = cluster.api(&server, "abcdef.fedcba9876543210");
    assert!(!format!("{wrong:?}").contains("fedcba"), "{wrong:?}");
    let error = signing::obtain(&root, &wrong, &question(), |_| ())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::BootstrapToken);
    assert!(!error.story().contains("fedcba"), "{}", error.story());

    *cluster.mood.lock().unwrap() = Mood::Denies;
    let api = cluster.api(&server, TOKEN);
    for count in 1..=2 {
        let error = signing::obtain(&root, &api, &question(), |_| ())
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::ApiRefused);
        assert!(error.story().contains("not you"), "{}", error.story());
        assert_eq!(
            cluster.names().len(),
            count,
            "a refused key is not used again"
        );
    }
}
