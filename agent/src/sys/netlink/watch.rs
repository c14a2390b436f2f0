//! Hearing that the network configuration has changed, without polling (failure mode F9).

use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use tokio::task::AbortHandle;

use super::{Error, Result, overlay};
use crate::sys::pulse::Pulse;

const LINKS: u8 = 1;
const ADDRESSES: u8 = 2;
const ROUTES: u8 = 4;
const NEIGHBOURS: u8 = 8;
const ENDED: u8 = 16;

/// What has changed since the last look. Several changes are folded into one event; which link or
/// route it was is not said: take a new [`Snapshot`](super::Snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// A link came, went or changed.
    pub links: bool,
    /// An address came, went or changed.
    pub addresses: bool,
    /// A route came, went or changed.
    pub routes: bool,
    /// A neighbour or forwarding entry of our overlay came, went or changed.
    pub neighbours: bool,
}

/// An ear on this machine's network configuration, from [`watch`]. Dropping it ends it.
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

/// Listens for changes of links, addresses, routes and our overlay's entries, IPv4 and IPv6, in this thread's network
/// namespace; everything after the return is heard, our own changes included.
///
/// Take the snapshot after this call: then nothing falls between the two.
///
/// # Errors
/// [`Error::Socket`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn watch() -> Result<Watch> {
    let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Neigh,
    ])
    .map_err(Error::Socket)?;
    let pulse = Pulse::default();
    let raiser = pulse.clone();
    let task = tokio::spawn(async move {
        let listen = async {
            while let Some((message, _)) = messages.next().await {
                // Others' neighbours come and go all the time, and are no news.
                match bits(&message.payload) {
                    0 => {}
                    bits => raiser.raise(bits),
                }
            }
        };
        // The connection ends when its socket breaks; the messages end with it.
        tokio::select! {
            () = connection => {}
            () = listen => {}
        }
        raiser.raise(ENDED);
    });
    Ok(Watch {
        pulse,
        task: task.abort_handle(),
    })
}

/// Which changes a message tells of. An overrun means that the kernel had to drop messages while
/// we were busy: anything may have changed.
fn bits(payload: &NetlinkPayload<Message>) -> u8 {
    match payload {
        NetlinkPayload::InnerMessage(Message::NewLink(_) | Message::DelLink(_)) => LINKS,
        NetlinkPayload::InnerMessage(Message::NewAddress(_) | Message::DelAddress(_)) => ADDRESSES,
        NetlinkPayload::InnerMessage(Message::NewRoute(_) | Message::DelRoute(_)) => ROUTES,
        NetlinkPayload::InnerMessage(Message::NewNeighbour(m) | Message::DelNeighbour(m))
            if overlay::concerns_us(m) =>
        {
            NEIGHBOURS
        }
        NetlinkPayload::Overrun(_) => LINKS | ADDRESSES | ROUTES | NEIGHBOURS,
        _ => 0,
    }
}

impl Watch {
    /// Waits until something has changed since the last call. May be dropped and called again
    /// without losing anything.
    ///
    /// # Errors
    /// [`Error::WatchEnded`]; then make a new one.
    pub async fn next(&mut self) -> Result<Changes> {
        let bits = self.pulse.take().await;
        if bits & ENDED != 0 {
            // Stays ended, however often one asks.
            self.pulse.raise(ENDED);
            return Err(Error::WatchEnded);
        }
        Ok(Changes {
            links: bits & LINKS != 0,
            addresses: bits & ADDRESSES != 0,
            routes: bits & ROUTES != 0,
            neighbours: bits & NEIGHBOURS != 0,
        })
    }
}
