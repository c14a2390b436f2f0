//! From a request to its answer.

use std::fs::{File, Metadata};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::fs;
use tokio::task::spawn_blocking;

use super::audit::{Asked, Audit, Outcome, harmless};
use super::body::{Answer, Part, Told};
use super::keeper::{Clerk, Decided, Unable};
use super::range;
use super::table::{Entry, Kind, Machine, Table};
use crate::secret::Secret;

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// What is served.
    pub table: Table,
    /// Who had its document.
    pub clerk: Clerk,
    /// Where requests are told.
    pub audit: Arc<Audit>,
    /// Whether documents are given over TLS alone.
    pub only_tls: bool,
}

/// Who is at the other end of a connection, and what is on its way there.
#[derive(Debug)]
pub struct Caller {
    /// Its address.
    pub peer: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The document that is on its way, which ends the connection.
    pub pending: Mutex<Option<Pending>>,
}

/// A document on its way.
#[derive(Debug)]
pub struct Pending {
    machine: Machine,
    asked: Asked,
    bytes: u64,
}

impl Caller {
    /// The connection is over; what was on its way is there if all of it was
    /// taken.
    pub fn end(&self, shared: &Shared, taken: bool) {
        let pending = self.pending.lock();
        let pending = pending.unwrap_or_else(PoisonError::into_inner).take();
        let Some(pending) = pending else {
            return;
        };
        if taken {
            shared.clerk.sent(pending.machine.mac);
        }
        let outcome = Outcome {
            status: Some(StatusCode::OK.as_u16()),
            bytes: if taken { pending.bytes } else { 0 },
            told: if taken { "sent" } else { "broken off" }.to_owned(),
        };
        shared.audit.tell(&pending.asked, &outcome);
    }

    /// Whether a document is on its way.
    pub fn awaits(&self) -> bool {
        let pending = self.pending.lock();
        pending.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whose address it is, however it was written down.
    fn address(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }
}

/// Answers a request; what goes wrong is an answer too.
pub async fn answer(
    shared: &Shared,
    caller: &Caller,
    request: &Request<Incoming>,
) -> Response<Answer> {
    let (method, path) = (request.method(), request.uri().path());
    let entry = shared.table.find(path);
    let asked = Asked {
        peer: SocketAddr::new(caller.address(), caller.peer.port()),
        what: harmless(&format!("{method} {path}")),
        machine: entry.and_then(|entry| entry.machine.clone()),
    };
    let refuse = |status: StatusCode, told: String| refused(shared, &asked, status, told);
    if !matches!(*method, Method::GET | Method::HEAD) {
        let told = "only GET and HEAD are answered".to_owned();
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, told);
        set(&mut response, header::ALLOW, "GET, HEAD");
        return response;
    }
    let Some(entry) = entry else {
        return refuse(StatusCode::NOT_FOUND, shared.table.missing(path));
    };
    let head = method == Method::HEAD;
    let answered = match (entry.kind, entry.machine.as_ref()) {
        (Kind::Document, Some(machine)) => {
            if shared.only_tls && !caller.tls {
                let told = "documents are given over TLS only".to_owned();
                return refuse(StatusCode::FORBIDDEN, told);
            }
            match head {
                true => text(shared, entry, &asked, true).await,
                false => document(shared, caller, entry, machine, &asked).await,
            }
        }
        (Kind::Boot, _) => boot(shared, entry, &asked, request, head).await,
        _ => text(shared, entry, &asked, head).await,
    };
    answered.unwrap_or_else(|error| {
        let file = entry.file.display();
        let (status, why) = match error.kind() {
            io::ErrorKind::NotFound => (StatusCode::NOT_FOUND, "is not there"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "cannot be read"),
        };
        // The path on the disk is for the operator alone.
        let outcome = outcome(status, 0, format!("{file}: {error}"));
        shared.audit.tell(&asked, &outcome);
        plain(status, &format!("the file {why} on the server"))
    })
}

/// A document on its way, whose memory is overwritten at its end.
struct Sent(Secret);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// A document, if it is given at all: it is the last thing on its connection,
/// whose end tells whether it was taken.
async fn document(
    shared: &Shared,
    caller: &Caller,
    entry: &Entry,
    machine: &Machine,
    asked: &Asked,
) -> io::Result<Response<Answer>> {
    let refuse = |status, told: String| Ok(refused(shared, asked, status, told));
    let asking = shared.clerk.ask(machine.mac, caller.address(), &entry.file);
    let document = match asking.await {
        Ok(Decided::Given(document)) => document,
        Ok(Decided::Refused(refusal)) => {
            let told = format!(
                "{refusal}; kgen serve --again {} gives it again",
                machine.name
            );
            return refuse(StatusCode::GONE, told);
        }
        Err(Unable::Read(error)) => return Err(error),
        Err(Unable::Write(why)) => return refuse(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let pending = Pending {
        machine: machine.clone(),
        asked: asked.clone(),
        bytes: document.len() as u64,
    };
    *caller
        .pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(pending);
    let mut response = Response::new(Answer::Whole(Some(Bytes::from_owner(Sent(document)))));
    set(&mut response, header::CONNECTION, "close");
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(
        &mut response,
        header::CONTENT_TYPE,
        "text/plain; charset=utf-8",
    );
    Ok(response)
}

/// A few lines, read anew each time.
async fn text(
    shared: &Shared,
    entry: &Entry,
    asked: &Asked,
    head: bool,
) -> io::Result<Response<Answer>> {
    let length = fs::metadata(&entry.file).await?.len();
    let bytes = match head {
        true => Vec::new(),
        false => fs::read(&entry.file).await?,
    };
    let sent = outcome(StatusCode::OK, bytes.len() as u64, "sent".to_owned());
    shared.audit.tell(asked, &sent);
    let body = (!head).then(|| Bytes::from(bytes));
    let mut response = Response::new(Answer::Whole(body));
    if head {
        set_length(&mut response, length);
    }
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(
        &mut response,
        header::CONTENT_TYPE,
        "text/plain; charset=utf-8",
    );
    Ok(response)
}

/// A kernel or an initrd, or a part of it.
async fn boot(
    shared: &Shared,
    entry: &Entry,
    asked: &Asked,
    request: &Request<Incoming>,
    head: bool,
) -> io::Result<Response<Answer>> {
    let path = entry.file.clone();
    let opened = spawn_blocking(move || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok::<_, io::Error>((file, metadata))
    });
    let (file, metadata) = opened.await.map_err(io::Error::other)??;
    if !metadata.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let (length, tag) = (metadata.len(), tag(&metadata));
    let header = |name: HeaderName| request.headers().get(name)?.to_str().ok();
    // A part of another file than the one that was begun is of no use.
    let same = header(header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let wanted = header(header::RANGE).filter(|_| same);
    let (status, first, count) = match range::part(wanted, length) {
        range::Part::Whole => (StatusCode::OK, 0, length),
        range::Part::Bytes(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        range::Part::Unsatisfiable => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let told = format!("the file has {length} bytes");
            let mut response = refused(shared, asked, status, told);
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{length}"),
            );
            return Ok(response);
        }
    };
    let body = if head {
        shared
            .audit
            .tell(asked, &outcome(status, 0, "sent".to_owned()));
        Answer::Whole(None)
    } else {
        let told = Told {
            audit: Arc::clone(&shared.audit),
            asked: asked.clone(),
            status: status.as_u16(),
        };
        Answer::File(Box::new(Part::new(file, first, count, told)))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + count - 1;
        let range = format!("bytes {first}-{last}/{length}");
        set(&mut response, header::CONTENT_RANGE, &range);
    }
    set_length(&mut response, count);
    set(&mut response, header::ETAG, &tag);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(
        &mut response,
        header::CONTENT_TYPE,
        "application/octet-stream",
    );
    Ok(response)
}

/// What tells a file from what was there before.
fn tag(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let nanos = since.map_or(0, |since| since.as_nanos());
    format!("\"{:x}-{nanos:x}\"", metadata.len())
}

fn refused(shared: &Shared, asked: &Asked, status: StatusCode, told: String) -> Response<Answer> {
    let response = plain(status, &told);
    shared.audit.tell(asked, &outcome(status, 0, told));
    response
}

fn outcome(status: StatusCode, bytes: u64, told: String) -> Outcome {
    Outcome {
        status: Some(status.as_u16()),
        bytes,
        told,
    }
}

/// A few words.
fn plain(status: StatusCode, words: &str) -> Response<Answer> {
    let body = Bytes::from(format!("kgen: {words}\n"));
    let mut response = Response::new(Answer::Whole(Some(body)));
    *response.status_mut() = status;
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(
        &mut response,
        header::CONTENT_TYPE,
        "text/plain; charset=utf-8",
    );
    response
}

fn set_length(response: &mut Response<Answer>, length: u64) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}

fn set(response: &mut Response<Answer>, name: HeaderName, value: &str) {
    // Our own words are good headers.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
