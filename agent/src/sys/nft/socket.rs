//! One question to the kernel and its answers, on a socket of their own.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};

use super::{Error, Result};

/// A message to or from the kernel.
pub(super) type Message = NetlinkMessage<NetfilterMessage>;

/// The kernel answers at once; this is for a kernel that does not follow the protocol.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// `NLM_F_DUMP_INTR`: the tables changed while the kernel was listing them.
const DUMP_INTERRUPTED: u16 = 0x10;
/// What the kernel may say.
pub(super) enum Reply {
    /// The message with this number was accepted.
    Acknowledged(u32),
    /// The list is at its end.
    Done,
    Message(NfTablesMessage),
}

/// One question and its answers, on a socket of their own.
pub(super) struct Conversation {
    action: &'static str,
    socket: TokioSocket,
}

impl Conversation {
    pub(super) async fn begin(action: &'static str, bytes: &[u8]) -> Result<Self> {
        let kernel = |source| Error::Kernel { action, source };
        let socket = TokioSocket::new(NETLINK_NETFILTER).map_err(kernel)?;
        let sent = socket.send(bytes).await.map_err(kernel)?;
        if sent != bytes.len() {
            return Err(kernel(io::ErrorKind::WriteZero.into()));
        }
        Ok(Conversation { action, socket })
    }

    /// Hands replies to `is_last` until it says that one was. An error that the kernel reports
    /// ends the conversation at once.
    pub(super) async fn until(self, mut is_last: impl FnMut(Reply) -> bool) -> Result<()> {
        let action = self.action;
        let kernel = |source| Error::Kernel { action, source };
        loop {
            let received = tokio::time::timeout(ANSWER_TIMEOUT, self.socket.recv_from_full()).await;
            let (bytes, _) = received
                .map_err(|_| Error::NoAnswer { action })?
                .map_err(kernel)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let header =
                    NetlinkBuffer::new_checked(rest).map_err(|_| Error::Malformed { action })?;
                let len = (header.length() as usize)
                    .next_multiple_of(4)
                    .min(rest.len());
                if header.flags() & DUMP_INTERRUPTED != 0 {
                    return Err(kernel(io::ErrorKind::Interrupted.into()));
                }
                // One that cannot be read is of another table, or holds what we never make: both
                // show as a difference, which is what the caller wants to know.
                let message = Message::deserialize(rest);
                rest = &rest[len..];
                let reply = match message.map(|m| (m.header, m.payload)) {
                    Ok((header, NetlinkPayload::Error(e))) => match e.code {
                        Some(_) => return Err(kernel(e.to_io())),
                        None => Reply::Acknowledged(header.sequence_number),
                    },
                    Ok((_, NetlinkPayload::Done(done))) if done.code != 0 => {
                        return Err(kernel(io::Error::from_raw_os_error(
                            done.code.saturating_abs(),
                        )));
                    }
                    Ok((_, NetlinkPayload::Done(_))) => Reply::Done,
                    Ok((_, NetlinkPayload::InnerMessage(m))) => match m.inner {
                        NetfilterMessageInner::NfTables(m) => Reply::Message(m),
                        _ => continue,
                    },
                    _ => continue,
                };
                if is_last(reply) {
                    return Ok(());
                }
            }
        }
    }
}
