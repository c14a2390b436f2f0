//! A snapshot of etcd's database, into a file that is whole or not there.
//! Source: etcd, client/v3/snapshot/v3_snapshot.go: the SHA-256 of all that
//! comes before is the stream's end, and the file's.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Gateway, answered, number};
use crate::error::{Code, Context, Error, Result};

/// Bytes of the checksum at the end.
const TRAILER: usize = 32;
/// The database's file is a multiple of this: how to tell that there is a
/// checksum behind it.
const PAGE: u64 = 512;
/// How long a whole snapshot may take.
const LIMIT: Duration = Duration::from_secs(3600);

impl Gateway {
    /// Writes the member's snapshot to `path`, for root alone, once its
    /// checksum was verified; tells how many bytes there are, of how many.
    /// Returns the file's size.
    ///
    /// # Errors
    ///
    /// [`Code::EtcdSnapshot`]: the stream ended early or is not what its
    /// checksum says; [`Code::Etcd`], [`Code::Disk`], [`Code::DiskFull`].
    pub async fn save(
        &self,
        url: &str,
        path: &Path,
        mut tell: impl FnMut(u64, u64),
    ) -> Result<u64> {
        const ASKED: &str = "maintenance/snapshot";
        let mut reply = self.send(url, ASKED, &json!({}), LIMIT).await?;
        if !reply.status().is_success() {
            answered(reply, ASKED).await?;
            return Err(cut(0));
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".snapshot-").suffix(".knode-tmp");
        let writing = || format!("writing {}", path.display());
        // 0600 by itself.
        let mut file = builder.tempfile_in(folder).map_err(|e| disk(e, writing))?;
        let mut sum = Sum::default();
        let mut pending = Vec::new();
        while let Some(chunk) = reply.chunk().await.context(Code::EtcdSnapshot, || {
            format!("reading etcd's snapshot after {} bytes", sum.length)
        })? {
            pending.extend_from_slice(&chunk);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let (blob, left) = part(&line)?;
                file.write_all(&blob).map_err(|e| disk(e, writing))?;
                sum.add(&blob);
                tell(sum.length, sum.length + left);
            }
        }
        if !pending.is_empty() {
            let (blob, _) = part(&pending)?;
            file.write_all(&blob).map_err(|e| disk(e, writing))?;
            sum.add(&blob);
        }
        let length = sum.length;
        if !sum.holds() {
            return Err(cut(length));
        }
        let path = path.to_owned();
        let kept = tokio::task::spawn_blocking(move || {
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            match path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        });
        let kept = kept
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        kept.map_err(|error| disk(error, || "keeping the snapshot".to_owned()))?;
        Ok(length)
    }
}

/// One line of the stream: bytes, and how many are left.
fn part(line: &[u8]) -> Result<(Vec<u8>, u64)> {
    let doing = || "reading etcd's snapshot".to_owned();
    let said: Value = serde_json::from_slice(line).context(Code::EtcdSnapshot, doing)?;
    let result = &said["result"];
    let Some(blob) = result["blob"].as_str() else {
        let reason = said["error"]["message"].as_str().unwrap_or("no data");
        return Err(Error::new(Code::EtcdSnapshot, doing()).because(reason.to_owned()));
    };
    let blob = STANDARD.decode(blob).context(Code::EtcdSnapshot, doing)?;
    Ok((blob, number(&result["remaining_bytes"])))
}

/// A checksum over all but the last bytes, which it is compared with.
#[derive(Default)]
struct Sum {
    digest: Sha256,
    tail: Vec<u8>,
    length: u64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        let before = self.tail.len().saturating_sub(TRAILER);
        self.digest.update(&self.tail[..before]);
        self.tail.drain(..before);
    }

    fn holds(self) -> bool {
        self.length % PAGE == TRAILER as u64 && self.digest.finalize()[..] == self.tail[..]
    }
}

/// A snapshot's file is whole: what its checksum says.
///
/// # Errors
///
/// [`Code::EtcdSnapshot`]: it is not; [`Code::Disk`]: it cannot be read.
pub fn verify(file: &mut File) -> Result<u64> {
    let mut sum = Sum::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer);
        match read.map_err(|e| disk(e, || "reading the snapshot".to_owned()))? {
            0 => break,
            count => sum.add(&buffer[..count]),
        }
    }
    let length = sum.length;
    if sum.holds() {
        return Ok(length);
    }
    Err(cut(length))
}

fn cut(length: u64) -> Error {
    let story = format!("the snapshot's {length} bytes are not what its checksum says");
    Error::new(Code::EtcdSnapshot, story)
}

fn disk(error: io::Error, doing: impl FnOnce() -> String) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::Disk,
    };
    Error::new(code, doing()).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, SeekFrom};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    #[test]
    fn a_snapshot_is_what_its_end_says() {
        let mut whole = vec![7; 70_000 - 70_000 % 512];
        let digest = Sha256::digest(&whole);
        whole.extend_from_slice(&digest);
        let length = whole.len() as u64;
        assert_eq!(verify(&mut file(&whole)).unwrap(), length);
        let mut altered = whole.clone();
        altered[69_000] = 8;
        for bad in [&altered[..], &whole[..whole.len() - 1], &whole[..1024], &[]] {
            let error = verify(&mut file(bad)).unwrap_err();
            assert_eq!(error.code(), Code::EtcdSnapshot);
        }
    }

    /// As etcd 3.5.16 answers.
    #[test]
    fn a_part_of_the_stream_has_bytes_or_a_reason() {
        let line = br#"{"result":{"remaining_bytes":"20480","blob":"AAEC"}}"#;
        assert_eq!(part(line).unwrap(), (vec![0, 1, 2], 20480));
        let line = br#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#;
        let error = part(line).unwrap_err();
        assert!(error.story().contains("no leader"), "{}", error.story());
    }
}
