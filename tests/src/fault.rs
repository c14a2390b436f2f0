//! What can go wrong with a download, and the sending that does it.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, sleep_until};

const CHUNK: u64 = 16 * 1024;

/// A way in which a server treats a path badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and no file: 404, 503.
    Status(StatusCode),
    /// Accepts the request and never answers.
    Silence,
    /// Sends this many bytes of a body, then nothing more; the connection stays open.
    StallAfter(u64),
    /// Sends this many bytes of a body, then closes the connection.
    CutAfter(u64),
    /// Sends as many bytes as promised, one of them wrong.
    WrongBytes,
    /// Sends this many bytes in a second.
    Throttle(u64),
    /// Sends the whole file whatever range was asked for.
    NoRange,
}

/// Sends a part of a file as the fault wants it. Ends when it is done, when the reader
/// is gone, or never.
pub(crate) async fn send(
    mut file: File,
    start: u64,
    length: u64,
    fault: Option<Fault>,
    mut sink: DuplexStream,
) -> Result<()> {
    file.seek(std::io::SeekFrom::Start(start))
        .await
        .context("seeking")?;
    let (sent_at_most, chunk) = match fault {
        Some(Fault::StallAfter(limit) | Fault::CutAfter(limit)) => (limit.min(length), CHUNK),
        Some(Fault::Throttle(rate)) => (length, rate.div_ceil(20).clamp(1, CHUNK)),
        _ => (length, CHUNK),
    };
    let began = Instant::now();
    let mut sent = 0;
    let mut buffer = vec![0; usize::try_from(chunk)?];
    while sent < sent_at_most {
        let part = usize::try_from(chunk.min(sent_at_most - sent))?;
        let part = &mut buffer[..part];
        file.read_exact(part).await.context("reading the file")?;
        if fault == Some(Fault::WrongBytes) && sent == 0 {
            part[0] ^= 1;
        }
        if let Some(Fault::Throttle(rate)) = fault {
            sleep_until(began + Duration::from_secs_f64(sent as f64 / rate as f64)).await;
        }
        sink.write_all(part).await.context("sending")?;
        sent += part.len() as u64;
    }
    match fault {
        Some(Fault::StallAfter(_)) => for_ever().await,
        // hyper drops what it has not yet written when a body ends before its time.
        Some(Fault::CutAfter(_)) => sleep(Duration::from_millis(300)).await,
        _ => {}
    }
    Ok(())
}

pub(crate) async fn for_ever() {
    loop {
        sleep(Duration::from_secs(3600)).await;
    }
}
