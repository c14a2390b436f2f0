//! Hearing that our table has changed: whoever flushes it finds it put back at once.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};
use nix::errno::Errno;
use tokio::task::AbortHandle;

use super::{Error, Result, TABLE};
use crate::sys::pulse::Pulse;

/// `NFNLGRP_NFTABLES`: a message for every table, chain, rule or set that comes or goes.
const GROUP: u32 = 7;
/// `NFPROTO_INET`, the family of our table.
const INET: u8 = 1;
/// Lengths of `nlmsghdr` and `nfgenmsg`, which come before a message's attributes.
const NLMSGHDR: usize = 16;
const NFGENMSG: usize = 4;
/// The attribute with the table's name: the same number for tables, chains, rules and sets.
const TABLE_NAME: u16 = 1;

const CHANGED: u8 = 1;
const ENDED: u8 = 2;

/// An ear on our table, from [`watch`]. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    pulse: Pulse,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens for changes of our table in this thread's network namespace; everything after the
/// return is heard, our own changes included. Others' tables, which may change all the time, are
/// passed over.
///
/// # Errors
/// When there is no such socket.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn watch() -> Result<Watch> {
    let action = "listening for changes of nftables";
    let kernel = |source| Error::Kernel { action, source };
    let mut socket = TokioSocket::new(NETLINK_NETFILTER).map_err(kernel)?;
    socket
        .socket_mut()
        .bind_auto()
        .and_then(|_| socket.socket_mut().add_membership(GROUP))
        .map_err(kernel)?;
    let pulse = Pulse::default();
    let raiser = pulse.clone();
    let task = tokio::spawn(async move {
        loop {
            match socket.recv_from_full().await {
                Ok((bytes, _)) if concerns_us(&bytes) => raiser.raise(CHANGED),
                Ok(_) => {}
                // The kernel had to drop messages while we were busy: ours may be among them.
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => raiser.raise(CHANGED),
                Err(_) => break,
            }
        }
        raiser.raise(ENDED);
    });
    Ok(Watch {
        pulse,
        task: task.abort_handle(),
    })
}

impl Watch {
    /// Waits until our table has changed since the last call; returns at once, for ever, when the
    /// watch has ended. May be dropped and called again without losing anything.
    ///
    /// # Errors
    /// The socket broke; then make a new one.
    pub async fn next(&mut self) -> Result<()> {
        if self.pulse.take().await & ENDED == 0 {
            return Ok(());
        }
        self.pulse.raise(ENDED);
        Err(Error::NoAnswer {
            action: "listening for changes of nftables",
        })
    }
}

/// Whether one of the messages names our table. The attributes are read as they are: a typed
/// reader refuses messages of others that it does not know, and costs more.
fn concerns_us(mut bytes: &[u8]) -> bool {
    while bytes.len() >= NLMSGHDR + NFGENMSG {
        let length = usize::try_from(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .unwrap_or(usize::MAX);
        let Some(message) = bytes.get(NLMSGHDR..length) else {
            return false;
        };
        if message.first() == Some(&INET)
            && names_our_table(&message[NFGENMSG.min(message.len())..])
        {
            return true;
        }
        let next = length.next_multiple_of(4).min(bytes.len());
        bytes = &bytes[next..];
    }
    false
}

fn names_our_table(mut attributes: &[u8]) -> bool {
    while let [a, b, c, d, ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let kind = u16::from_ne_bytes([*c, *d]) & 0x3fff;
        let Some(value) = attributes.get(4..length) else {
            return false;
        };
        if kind == TABLE_NAME {
            return value.strip_suffix(&[0]) == Some(TABLE.as_bytes());
        }
        let next = length.next_multiple_of(4).min(attributes.len());
        attributes = &attributes[next..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: u8, table: &str) -> Vec<u8> {
        let mut attributes = vec![8, 0, 2, 0, 1, 2, 3, 4];
        let length = u16::try_from(table.len() + 5).unwrap();
        attributes.extend(length.to_ne_bytes());
        attributes.extend([1, 0]);
        attributes.extend(table.as_bytes());
        attributes.push(0);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        let length = u32::try_from(NLMSGHDR + NFGENMSG + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.resize(NLMSGHDR, 0);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn only_our_table_is_news() {
        assert!(concerns_us(&message(INET, TABLE)));
        assert!(concerns_us(
            &[message(2, "nat"), message(INET, TABLE)].concat()
        ));
        assert!(!concerns_us(&message(2, TABLE)), "another family");
        assert!(!concerns_us(&message(INET, "knode2")));
        assert!(!concerns_us(&message(INET, "kube-proxy")));
    }

    #[test]
    fn damaged_messages_end_the_reading() {
        for end in 0..message(INET, TABLE).len() {
            let cut = &message(INET, TABLE)[..end];
            assert!(!concerns_us(cut), "{end}");
        }
        let mut endless = message(INET, "x");
        endless[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert!(!concerns_us(&endless));
    }
}
