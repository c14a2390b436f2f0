//! What is sent: a few bytes, or a part of a file while it is read.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::audit::{Asked, Audit, Outcome};

/// So much of a file is read at once; a connection has no more of it in memory.
const CHUNK: usize = 64 << 10;

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
    file: Arc<File>,
    /// Where in the file is what is read next.
    at: u64,
    left: u64,
    sent: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    told: Told,
}

/// How the line is told.
#[derive(Debug)]
pub struct Told {
    /// Where.
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
            Self::File(part) => part.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::File(part) => part.left,
        })
    }
}

impl Part {
    /// So many bytes of a file, from `first` on.
    pub fn new(file: File, first: u64, length: u64, told: Told) -> Self {
        Self {
            file: Arc::new(file),
            at: first,
            left: length,
            sent: 0,
            reading: None,
            told,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (file, at) = (&self.file, self.at);
        let most = self.left.min(CHUNK as u64) as usize;
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(file);
            spawn_blocking(move || read(&file, at, most))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let bytes = read.map_err(io::Error::other)??;
        let count = bytes.len() as u64;
        self.at += count;
        self.left -= count;
        self.sent += count;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// Up to so many bytes of a file, and at least one.
fn read(file: &File, at: u64, most: usize) -> io::Result<Bytes> {
    let mut chunk = vec![0; most];
    loop {
        match file.read_at(&mut chunk, at) {
            Ok(0) => {
                let told = "the file became shorter";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, told));
            }
            Ok(count) => {
                chunk.truncate(count);
                return Ok(Bytes::from(chunk));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let told = match self.left {
            0 => "sent",
            _ => "broken off",
        };
        let outcome = Outcome {
            status: Some(self.told.status),
            bytes: self.sent,
            told: told.to_owned(),
        };
        self.told.audit.tell(&self.told.asked, &outcome);
    }
}
