//! Collections of any length, read page by page, from a server that pages as
//! the API server does. (The real one gives its Nodes to every test with
//! several machines; it takes hundreds of them to make two pages.)

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use knode::error::Code;
use knode::sys::api::Api;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// A parameter of a URL's query.
fn parameter<'u>(uri: &'u Uri, name: &str) -> Option<&'u str> {
    let parameters = uri.query().unwrap_or_default().split('&');
    let mut parameters = parameters.filter_map(|pair| pair.split_once('='));
    parameters
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// How many objects there are, and after how many the place is forgotten.
struct Objects {
    count: usize,
    forgets: usize,
    pages: Mutex<usize>,
}

/// Tokens are base64url, as etcd's keys in them are; here a number will do.
async fn list(State(objects): State<Arc<Objects>>, uri: Uri) -> (StatusCode, String) {
    let limit: usize = parameter(&uri, "limit").unwrap().parse().unwrap();
    let token = parameter(&uri, "continue").unwrap_or_default();
    let first: usize = token.trim_end_matches('=').parse().unwrap_or_default();
    if first > objects.forgets {
        let expired = json!({"kind": "Status", "code": 410, "reason": "Expired",
            "message": "The provided continue parameter is too old"});
        return (StatusCode::GONE, expired.to_string());
    }
    *objects.pages.lock().unwrap() += 1;
    let end = objects.count.min(first + limit);
    let items: Vec<Value> = (first..end)
        .map(|n| json!({"metadata": {"name": format!("n-{n}")}}))
        .collect();
    let mut metadata = json!({"resourceVersion": "77"});
    if end < objects.count {
        metadata["continue"] = json!(format!("{end}=="));
    }
    let body = json!({"kind": "NodeList", "metadata": metadata, "items": items});
    (StatusCode::OK, body.to_string())
}

async fn serve(count: usize, forgets: usize) -> (Api, Arc<Objects>) {
    // Another test may have been first; either way there is one provider.
    drop(rustls::crypto::ring::default_provider().install_default());
    let objects = Arc::new(Objects {
        count,
        forgets,
        pages: Mutex::default(),
    });
    let app = Router::new()
        .route("/api/v1/nodes", get(list))
        .with_state(Arc::clone(&objects));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let key = KeyPair::generate().unwrap();
    let authority = CertificateParams::default().self_signed(&key).unwrap();
    let api = Api::new(
        &format!("http://{address}"),
        authority.pem().as_bytes(),
        None,
    )
    .unwrap();
    (api, objects)
}

#[tokio::test]
async fn every_object_of_every_page_is_seen_once() {
    for count in [0, 1, 250, 251, 1234] {
        let (api, objects) = serve(count, usize::MAX).await;
        let mut names = Vec::new();
        let version = api
            .list("/api/v1/nodes", |node| {
                names.push(node["metadata"]["name"].as_str().unwrap().to_owned());
            })
            .await
            .unwrap();
        assert_eq!(version, "77");
        let expected: Vec<String> = (0..count).map(|n| format!("n-{n}")).collect();
        assert_eq!(names, expected);
        assert_eq!(*objects.pages.lock().unwrap(), count.div_ceil(250).max(1));
    }
}

/// Half a list is none: the error says why, and whoever asked lists again.
#[tokio::test]
async fn a_place_that_the_server_forgot_is_an_error() {
    let (api, _) = serve(1234, 600).await;
    let error = api.list("/api/v1/nodes", |_| {}).await.unwrap_err();
    assert_eq!(error.code(), Code::ApiRefused);
    assert!(error.story().contains("too old"), "{}", error.story());
}
