//! The container runtime's own interface, CRI: gRPC on a unix socket.
//!
//! A few calls are enough to know that the runtime serves, how its containers
//! are, to stop one, and to remove pods. Their requests are empty or two fields long, so no
//! gRPC library is needed: a frame of five bytes and the message on HTTP/2 is
//! the whole request.
//! Source: Kubernetes `cri-api` (runtime.v1), "gRPC over HTTP2", Protocol
//! Buffers' "Encoding".

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, header};

use crate::error::{Code, Context, Error, Result};
use crate::sys::http;

/// Bytes before a gRPC message: whether it is compressed, and its length.
const FRAME: usize = 5;
/// The fields of VersionResponse that are told.
const RUNTIME_NAME: u64 = 2;
const RUNTIME_VERSION: u64 = 3;
/// Seconds that a container has to end by itself.
const GRACE: u8 = 30;

/// A runtime at its socket; the connection is kept between two calls.
#[derive(Debug)]
pub struct Runtime {
    client: Client,
    socket: PathBuf,
}

impl Runtime {
    /// The runtime that listens at `socket`; nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`Code::Tls`], which cannot happen without TLS.
    pub fn at(socket: PathBuf) -> Result<Self> {
        let client = http::unix_client(&socket)?;
        Ok(Self { client, socket })
    }

    /// Asks the runtime for its name and version: `containerd 2.1.0`.
    ///
    /// # Errors
    ///
    /// [`Code::Runtime`]: it does not answer, or not with a version.
    pub async fn version(&self) -> Result<String> {
        let message = self.call("Version", &[]).await?;
        let field = |number| string_field(&message, number);
        match (field(RUNTIME_NAME), field(RUNTIME_VERSION)) {
            (Some(name), Some(version)) => Ok(format!("{name} {version}")),
            _ => Err(Error::new(
                Code::Runtime,
                format!("the answer of {} holds no version", self.socket.display()),
            )),
        }
    }

    /// All containers, the youngest first.
    ///
    /// # Errors
    ///
    /// [`Code::Runtime`]: it does not answer.
    pub async fn containers(&self) -> Result<Vec<Container>> {
        let message = self.call("ListContainers", &[]).await?;
        let mut containers: Vec<Container> = fields(&message)
            .filter(|(number, _)| *number == 1)
            .map(|(_, value)| container(value.bytes()))
            .collect();
        containers.sort_by_key(|container| std::cmp::Reverse(container.created));
        Ok(containers)
    }

    /// Ends a container; the kubelet starts it anew.
    ///
    /// # Errors
    ///
    /// [`Code::Runtime`]: it does not answer, or refuses.
    pub async fn stop(&self, id: &str) -> Result<()> {
        self.call("StopContainer", &stop_request(id)).await?;
        Ok(())
    }

    /// All pods, those that ended among them.
    ///
    /// # Errors
    ///
    /// [`Code::Runtime`]: it does not answer.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let message = self.call("ListPodSandbox", &[]).await?;
        let pods = fields(&message).filter(|(number, _)| *number == 1);
        Ok(pods.map(|(_, value)| pod(value.bytes())).collect())
    }

    /// Ends what still runs of a pod, gives back its network, and removes it.
    ///
    /// # Errors
    ///
    /// [`Code::Runtime`]: it does not answer, or refuses.
    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        self.call("StopPodSandbox", &id_request(id)).await?;
        self.call("RemovePodSandbox", &id_request(id)).await?;
        Ok(())
    }

    /// Calls a method of the runtime with a message; returns the answer's.
    async fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>> {
        let doing = || format!("asking {} ({method})", self.socket.display());
        let length = u8::try_from(message.len()).context(Code::Runtime, doing)?;
        let frame = [&[0, 0, 0, 0, length], message].concat();
        let reply = self
            .client
            .post(format!(
                "http://localhost/runtime.v1.RuntimeService/{method}"
            ))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .timeout(Duration::from_secs(5 + u64::from(GRACE)))
            .body(frame)
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .context(Code::Runtime, doing)?;
        if let Some(reason) = reply.headers().get("grpc-message") {
            let reason = String::from_utf8_lossy(reason.as_bytes()).into_owned();
            return Err(Error::new(Code::Runtime, doing()).because(reason));
        }
        let body = reply.bytes().await.context(Code::Runtime, doing)?;
        Ok(body.get(FRAME..).unwrap_or_default().to_vec())
    }
}

/// A container of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What the runtime calls it.
    pub id: String,
    /// Its name in its pod.
    pub name: String,
    /// The namespace of its pod.
    pub namespace: String,
    /// How often it was made before.
    pub attempt: u64,
    /// Whether it runs.
    pub running: bool,
    /// When it was made, nanoseconds since 1970.
    created: u64,
}

/// A pod of the runtime: what holds the namespaces of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What the runtime calls it.
    pub id: String,
    /// `NAMESPACE/NAME`.
    pub name: String,
}

/// A request whose first field is an ID, and that is all.
fn id_request(id: &str) -> Vec<u8> {
    let mut request = vec![0x0a, u8::try_from(id.len()).unwrap_or(u8::MAX) & 0x7f];
    request.extend(id.as_bytes());
    request
}

/// StopContainerRequest: the container, and how long it may take.
fn stop_request(id: &str) -> Vec<u8> {
    let mut request = id_request(id);
    request.extend([0x10, GRACE]);
    request
}

/// runtime.v1.Container. Source: cri-api, api.proto.
fn container(message: &[u8]) -> Container {
    const RUNNING: u64 = 1;
    let mut found = Container {
        id: String::new(),
        name: String::new(),
        namespace: String::new(),
        attempt: 0,
        running: false,
        created: 0,
    };
    for (number, value) in fields(message) {
        match (number, value) {
            (1, Value::Bytes(id)) => found.id = text(id),
            (3, Value::Bytes(metadata)) => {
                for (number, value) in fields(metadata) {
                    match (number, value) {
                        (1, Value::Bytes(name)) => found.name = text(name),
                        (2, Value::Number(attempt)) => found.attempt = attempt,
                        _ => {}
                    }
                }
            }
            (6, Value::Number(state)) => found.running = state == RUNNING,
            (7, Value::Number(created)) => found.created = created,
            (8, Value::Bytes(label))
                if string_field(label, 1).as_deref() == Some("io.kubernetes.pod.namespace") =>
            {
                found.namespace = string_field(label, 2).unwrap_or_default();
            }
            _ => {}
        }
    }
    found
}

/// runtime.v1.PodSandbox. Source: cri-api, api.proto.
fn pod(message: &[u8]) -> Pod {
    let metadata = fields(message).find(|(number, _)| *number == 2);
    let metadata = metadata.map_or(&[][..], |(_, value)| value.bytes());
    let part = |number| string_field(metadata, number).unwrap_or_default();
    Pod {
        id: string_field(message, 1).unwrap_or_default(),
        name: format!("{}/{}", part(3), part(1)),
    }
}

/// A field's value, of the wire types that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

impl<'m> Value<'m> {
    fn bytes(self) -> &'m [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

/// The fields of a protocol buffer message by their numbers, up to the first
/// that is cut or of another wire type.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        let tag = varint(&mut message)?;
        let number = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(number),
            2 => {
                let (value, rest) = message.split_at_checked(usize::try_from(number).ok()?)?;
                message = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    })
}

/// A number of seven bits a byte, the least first.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A string field of a message.
fn string_field(message: &[u8], wanted: u64) -> Option<String> {
    let found = fields(message).find(|(number, _)| *number == wanted);
    found.map(|(_, value)| text(value.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_version_response_are_found() {
        let message = b"\x0a\x050.1.0\x12\x0acontainerd\x1a\x062.1.0x\x22\x02v1";
        assert_eq!(
            string_field(message, RUNTIME_NAME).as_deref(),
            Some("containerd")
        );
        assert_eq!(
            string_field(message, RUNTIME_VERSION).as_deref(),
            Some("2.1.0x")
        );
        assert_eq!(string_field(message, 9), None);
        assert_eq!(string_field(b"\x0a\x7fx", 1), None, "cut short");
    }

    #[test]
    fn containers_are_told_by_name_namespace_and_state() {
        let label = b"\x0a\x1bio.kubernetes.pod.namespace\x12\x0bkube-system";
        let mut message = b"\x0a\x02c1\x12\x02s1\x1a\x09\x0a\x04etcd\x10\x83\x02".to_vec();
        message.extend(b"\x30\x02\x38\x07\x42");
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label);
        assert_eq!(
            container(&message),
            Container {
                id: "c1".to_owned(),
                name: "etcd".to_owned(),
                namespace: "kube-system".to_owned(),
                attempt: 259,
                running: false,
                created: 7,
            }
        );
        message[20] = 1;
        assert!(container(&message).running);
        for cut in 0..message.len() {
            container(&message[..cut]);
        }
    }

    #[test]
    fn pods_are_told_by_namespace_and_name() {
        let message = b"\x0a\x02s1\x12\x11\x0a\x03web\x12\x01u\x1a\x05shop1\x18\x00";
        let found = pod(message);
        assert_eq!(
            (found.id.as_str(), found.name.as_str()),
            ("s1", "shop1/web")
        );
        for cut in 0..message.len() {
            pod(&message[..cut]);
        }
        assert_eq!(id_request("ab"), b"\x0a\x02ab");
    }

    #[test]
    fn a_container_is_stopped_by_its_name_with_grace() {
        assert_eq!(stop_request("ab"), b"\x0a\x02ab\x10\x1e");
    }
}
