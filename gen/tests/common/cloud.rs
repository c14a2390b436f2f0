//! Keystone and a Neutron with one router, that do as they are told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What there is, and what was asked.
pub struct Shelf {
    /// The router's routes.
    pub routes: Vec<Value>,
    /// How often it was changed.
    pub revision: u64,
    /// Whether Neutron changes routes one by one.
    pub atomic: bool,
    /// The router's own address.
    pub address: &'static str,
    /// Answers to changes that are given first, and with them what somebody
    /// else does to the routes meanwhile.
    pub faults: VecDeque<(u16, Option<Value>)>,
    /// The same for everything that only looks.
    pub sulks: VecDeque<u16>,
    /// Endpoints of Neutron by region.
    pub regions: Vec<&'static str>,
    /// The bodies with which somebody logged in.
    pub logins: Vec<Value>,
    /// Every request: method and path.
    pub asked: Vec<String>,
    url: String,
}

/// A server on loopback, for as long as the test runs.
pub struct Cloud {
    pub url: String,
    shelf: Arc<Mutex<Shelf>>,
}

/// A listener of TLS; whoever does not come through the handshake is gone.
struct Secured {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Cloud {
    pub fn new() -> Self {
        Self::start(None)
    }

    /// One that is reached over TLS.
    pub fn secured(config: ServerConfig) -> Self {
        Self::start(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let shelf = Arc::new(Mutex::new(Shelf {
            routes: Vec::new(),
            revision: 1,
            atomic: true,
            address: "10.0.0.1",
            faults: VecDeque::new(),
            sulks: VecDeque::new(),
            regions: vec!["here"],
            logins: Vec::new(),
            asked: Vec::new(),
            url: String::new(),
        }));
        let (send, receive) = std::sync::mpsc::channel();
        let state = Arc::clone(&shelf);
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                let router = Router::new().fallback(answer).with_state(state);
                match acceptor {
                    None => axum::serve(listener, router).await.unwrap(),
                    Some(acceptor) => {
                        let secured = Secured { listener, acceptor };
                        axum::serve(secured, router).await.unwrap();
                    }
                }
            });
        });
        let url = format!("{scheme}://{}", receive.recv().unwrap());
        shelf.lock().unwrap().url = url.clone();
        Self { url, shelf }
    }

    /// Looks at it, or makes it different.
    pub fn with<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> T {
        work(&mut self.shelf.lock().unwrap())
    }
}

fn reply(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn fault(status: u16) -> Response {
    let message = format!("fault {status}");
    reply(
        status,
        json!({"NeutronError": {"message": message, "type": "A", "detail": ""}}),
    )
}

async fn answer(
    State(shelf): State<Arc<Mutex<Shelf>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut shelf = shelf.lock().unwrap();
    let path = uri.path().to_owned();
    shelf.asked.push(format!("{method} {path}"));
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path == "/identity/v3/auth/tokens" {
        return login(&mut shelf, body);
    }
    if headers
        .get("x-auth-token")
        .is_none_or(|token| token != "a-token")
    {
        return reply(401, json!({"error": {"message": "no such token"}}));
    }
    if method == Method::GET
        && let Some(status) = shelf.sulks.pop_front()
    {
        return fault(status);
    }
    match (method.as_str(), path.as_str()) {
        ("GET", "/network/v2.0/extensions/extraroute-atomic") if shelf.atomic => {
            reply(200, json!({"extension": {"alias": "extraroute-atomic"}}))
        }
        ("GET", "/network/v2.0/routers") => {
            let ours = uri
                .query()
                .is_some_and(|q| q == "name=small" || q == "id=r1");
            let routers = if ours {
                vec![router(&shelf)]
            } else {
                Vec::new()
            };
            reply(200, json!({"routers": routers}))
        }
        ("GET", "/network/v2.0/routers/r1") => reply(200, json!({"router": router(&shelf)})),
        ("GET", "/network/v2.0/ports") => {
            let fixed = json!([{"subnet_id": "s1", "ip_address": shelf.address}]);
            reply(200, json!({"ports": [{"fixed_ips": fixed}]}))
        }
        ("GET", "/network/v2.0/subnets") => reply(
            200,
            json!({"subnets": [{"id": "s1", "cidr": "10.0.0.0/24"}]}),
        ),
        ("PUT", path) if path.starts_with("/network/v2.0/routers/r1") => {
            change(&mut shelf, path, &headers, &body)
        }
        _ => reply(404, json!({"NeutronError": {"message": "no such thing"}})),
    }
}

fn router(shelf: &Shelf) -> Value {
    json!({"id": "r1", "name": "small", "routes": shelf.routes, "revision_number": shelf.revision})
}

fn change(shelf: &mut Shelf, path: &str, headers: &HeaderMap, body: &Value) -> Response {
    if let Some((status, meanwhile)) = shelf.faults.pop_front() {
        if let Some(route) = meanwhile {
            shelf.routes.push(route);
            shelf.revision += 1;
        }
        return fault(status);
    }
    let routes = body["router"]["routes"].as_array().unwrap().clone();
    match path.rsplit('/').next().unwrap() {
        "add_extraroutes" => shelf.routes.extend(routes),
        "remove_extraroutes" => shelf.routes.retain(|route| !routes.contains(route)),
        _ => {
            let wanted = format!("revision_number={}", shelf.revision);
            if headers
                .get("if-match")
                .is_none_or(|value| *value != *wanted)
            {
                return fault(412);
            }
            shelf.routes = routes;
        }
    }
    shelf.revision += 1;
    reply(200, json!({"router": router(shelf)}))
}

fn login(shelf: &mut Shelf, body: Value) -> Response {
    shelf.logins.push(body.clone());
    let identity = &body["auth"]["identity"];
    let known = identity.pointer("/password/user/password") == Some(&json!("hunter2"))
        || identity.pointer("/application_credential/secret") == Some(&json!("hunter3"))
        || identity.pointer("/token/id") == Some(&json!("an-older-token"));
    if !known {
        return reply(
            401,
            json!({"error": {"message": "requires authentication", "code": 401}}),
        );
    }
    let endpoints: Vec<Value> = shelf
        .regions
        .iter()
        .map(|region| {
            json!({"interface": "public", "region_id": region, "url": format!("{}/network", shelf.url)})
        })
        .collect();
    let catalog = json!([{"type": "network", "endpoints": endpoints}]);
    let token = json!({"token": {"catalog": catalog}});
    ([("x-subject-token", "a-token")], reply(201, token)).into_response()
}
