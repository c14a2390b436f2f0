//! What is sent: a few bytes, or a part of a file while it is read.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::audit::{Asked, Audit, Outcome};

/// So much of a file is read at once.
const CHUNK: usize = 128 << 10;

/// The body of an answer.
pub enum Answer {
    /// These bytes.
    Whole(Option<Bytes>),
    /// A part of a file.
    File(Box<Part>),
}

/// Keys may be in it.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                write!(f, "Whole({length} bytes)")
            }
            Self::File(part) => f.debug_tuple("File").field(part).finish(),
        }
    }
}

/// A part of a file on its way; when it goes, a line of the audit says how far
/// it came.
#[derive(Debug)]
pub struct Part {
    /// The file, at the part's beginning.
    pub file: File,
    /// How many bytes are to be sent.
    pub length: u64,
    /// How many of them are sent.
    pub sent: u64,
    /// Where to tell of it.
    pub audit: Arc<Audit>,
    /// Who asked.
    pub asked: Asked,
    /// The status of the answer.
    pub status: u16,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::File(part) => part.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::File(part) => part.sent == part.length,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::File(part) => part.length - part.sent,
        })
    }
}

impl Part {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let left = self.length - self.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = vec![0; left.min(CHUNK as u64) as usize];
        let mut buffer = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.file).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter");
            return Poll::Ready(Some(Err(error)));
        }
        chunk.truncate(read);
        self.sent += read as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(chunk)))))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let told = match self.sent == self.length {
            true => "sent",
            false => "broken off",
        };
        let outcome = Outcome {
            status: Some(self.status),
            bytes: self.sent,
            told: told.to_owned(),
        };
        self.audit.tell(&self.asked, &outcome);
    }
}
