//! The container runtime's own interface, CRI: gRPC on a unix socket.
//!
//! One call is enough to know that the runtime serves: Version. Its request
//! is empty, so no gRPC library is needed: a frame of five zero bytes on
//! HTTP/2 is the whole request.
//! Source: Kubernetes `cri-api` (runtime.v1), "gRPC over HTTP2".

use std::path::Path;
use std::time::Duration;

use reqwest::header;

use crate::error::{Code, Context, Error, Result};
use crate::sys::http;

/// An uncompressed gRPC message of no bytes.
const EMPTY: [u8; 5] = [0; 5];
/// The fields of VersionResponse that are told.
const RUNTIME_NAME: u8 = 2;
const RUNTIME_VERSION: u8 = 3;

/// Asks the runtime for its name and version: `containerd 2.1.0`.
///
/// # Errors
///
/// [`Code::Runtime`]: it does not answer, or not with a version.
pub async fn version(socket: &Path) -> Result<String> {
    let doing = || format!("asking {} for its version", socket.display());
    let reply = http::unix_client(socket)?
        .post("http://localhost/runtime.v1.RuntimeService/Version")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .timeout(Duration::from_secs(5))
        .body(EMPTY.to_vec())
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .context(Code::Runtime, doing)?;
    if let Some(reason) = reply.headers().get("grpc-message") {
        let reason = String::from_utf8_lossy(reason.as_bytes()).into_owned();
        return Err(Error::new(Code::Runtime, doing()).because(reason));
    }
    let body = reply.bytes().await.context(Code::Runtime, doing)?;
    let message = body.get(EMPTY.len()..).unwrap_or_default();
    let field = |number| string_field(message, number);
    match (field(RUNTIME_NAME), field(RUNTIME_VERSION)) {
        (Some(name), Some(version)) => Ok(format!("{name} {version}")),
        _ => Err(Error::new(Code::Runtime, doing()).because("the answer holds no version")),
    }
}

/// A short string field of a protocol buffer message whose fields are all
/// short strings, as VersionResponse's are.
fn string_field(mut message: &[u8], wanted: u8) -> Option<String> {
    /// The wire type of strings.
    const LENGTH_DELIMITED: u8 = 2;
    while let [tag, length, rest @ ..] = message {
        let (value, after) = rest.split_at_checked(usize::from(*length))?;
        if tag & 7 != LENGTH_DELIMITED || *length >= 0x80 {
            return None;
        }
        if tag >> 3 == wanted {
            return String::from_utf8(value.to_vec()).ok();
        }
        message = after;
    }
    None
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
}
