//! Passing bytes on between two connections, both ways.
//!
//! What comes in small pieces, as requests and answers do, is read into a
//! buffer and written again: that is the fewest system calls. What comes in
//! large ones is moved within the kernel, through a pipe, and never copied
//! (splice(2)). Either way a side that does not take what is sent stops the
//! other one: nothing more is read than could be kept.
//!
//! An idle connection has neither a buffer nor a pipe. Connections of one
//! thread share one buffer and a few pipes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use socket2::SockRef;
use tokio::io::{AsyncRead as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

/// Bytes that are read at once; a read that fills them has more behind it.
const BUFFER: usize = 64 * 1024;
/// Bytes that are moved at once.
const MOVED: usize = 1024 * 1024;
/// Pieces below this are copied: cheaper than the pages' bookkeeping.
const SMALL: usize = 32 * 1024;
/// Empty pipes that are kept for the next who needs one.
const PIPES: usize = 8;

/// What the connections of one thread share.
#[derive(Debug, Clone)]
pub(super) struct Tools(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The thread reads for one connection at a time.
    buffer: RefCell<Vec<u8>>,
    /// Empty ones.
    pipes: RefCell<Vec<Pipe>>,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// What came of a read.
enum Read {
    /// The other end has said all that it will.
    End,
    /// So many bytes, and those of them that could not be sent on yet.
    Some(usize, Vec<u8>),
}

impl Tools {
    pub(super) fn new() -> Self {
        Self(Rc::new(Shared {
            buffer: RefCell::new(vec![0; BUFFER]),
            pipes: RefCell::default(),
        }))
    }

    /// An empty pipe; none where the process has no files left.
    fn pipe(&self) -> Option<Pipe> {
        if let Some(pipe) = self.0.pipes.borrow_mut().pop() {
            return Some(pipe);
        }
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        // One that stays smaller moves less at once, and no worse.
        let _size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(MOVED as i32));
        Some(Pipe { read, write })
    }

    /// Takes an empty pipe back.
    fn put_back(&self, pipe: Pipe) {
        let mut pipes = self.0.pipes.borrow_mut();
        if pipes.len() < PIPES {
            pipes.push(pipe);
        }
    }
}

/// Both ways, until both have ended or one has failed.
pub(super) async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    tools: &Tools,
) -> io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        one_way(from_client, to_server.as_ref(), tools),
        one_way(from_server, to_client.as_ref(), tools)
    )?;
    Ok(())
}

/// Everything that comes, and then the end.
async fn one_way(mut from: ReadHalf<'_>, to: &TcpStream, tools: &Tools) -> io::Result<()> {
    loop {
        let Read::Some(count, rest) = copy(&mut from, to, tools).await? else {
            break;
        };
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            to.writable().await?;
            rest = &rest[send(to, rest)?..];
        }
        if count == BUFFER && !move_on(from.as_ref(), to, tools).await? {
            break;
        }
    }
    SockRef::from(to).shutdown(Shutdown::Write)
}

/// Copies one piece as soon as there is one.
async fn copy(from: &mut ReadHalf<'_>, to: &TcpStream, tools: &Tools) -> io::Result<Read> {
    poll_fn(|context| {
        let mut buffer = tools.0.buffer.borrow_mut();
        let mut room = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *from).poll_read(context, &mut room) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(outcome) => outcome?,
        }
        let came = room.filled();
        if came.is_empty() {
            return Poll::Ready(Ok(Read::End));
        }
        // What the other end does not take yet is kept; nothing is otherwise.
        let sent = send(to, came)?;
        Poll::Ready(Ok(Read::Some(came.len(), came[sent..].to_vec())))
    })
    .await
}

/// As much as the socket takes now.
fn send(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match to.try_write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

/// Moves pieces while they are large; `false` at the end of all.
async fn move_on(from: &TcpStream, to: &TcpStream, tools: &Tools) -> io::Result<bool> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    loop {
        from.readable().await?;
        let Some(pipe) = tools.pipe() else {
            return Ok(true);
        };
        let into = || splice(from, None, &pipe.write, None, MOVED, flags);
        let count = match from.try_io(Interest::READABLE, || into().map_err(io::Error::from)) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tools.put_back(pipe);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut left = count;
        while left > 0 {
            let out = || splice(&pipe.read, None, to, None, left, flags);
            match to.try_io(Interest::WRITABLE, || out().map_err(io::Error::from)) {
                Ok(moved) => left -= moved,
                Err(error) if error.kind() == ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        // One that was dropped with bytes in it is closed.
        tools.put_back(pipe);
        match count {
            0 => return Ok(false),
            count if count < SMALL => return Ok(true),
            // Others have their turn, however much there is.
            _ => tokio::task::consume_budget().await,
        }
    }
}
