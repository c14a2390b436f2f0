//! Links, addresses and routes of this machine, by rtnetlink.
//!
//! [`Netlink::snapshot`] observes, the `ensure_…` and `remove_…` calls are the small actions that
//! a plan is made of. Each is idempotent, and each touches only what it names. Routes are marked
//! with [`ROUTE_PROTOCOL`]; one with another mark is never changed or removed.
//!
//! Everything happens in the network namespace of the thread that called [`Netlink::connect`].

mod actions;
mod convert;
mod overlay;
mod types;
mod watch;

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkExtentMask;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};

pub use overlay::{VTEP_PREFIX, is_vtep};
pub use types::{
    Address, Forwarding, InvalidName, Link, LinkName, MacAddress, Neighbour, OwnRoute,
    ROUTE_PROTOCOL, ResolvedRoute, Route, RouteKind, Scope, Snapshot, Vxlan, VxlanFacts,
};
pub use watch::{Changes, Watch, watch};

/// What went wrong, and at what. The kernel's reason is the source, its number [`Error::errno`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket could be had.
    #[error("opening a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("{action}")]
    Kernel {
        /// What was being done, and to what.
        action: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel's answer was none that belongs to the question, or the socket broke.
    #[error("{action}")]
    Protocol {
        /// What was being done, and to what.
        action: String,
        /// What was wrong with the answer.
        source: rtnetlink::Error,
    },
    /// There is no link of this name.
    #[error("there is no network interface {0}")]
    NoSuchLink(LinkName),
    /// The name of the bridge is taken by a link of another kind.
    #[error("the network interface {0} is there, but it is no bridge")]
    NotABridge(LinkName),
    /// The name of the vxlan link is taken by a link of another kind.
    #[error("the network interface {0} is there, but it is no vxlan link")]
    NotAVxlan(LinkName),
    /// Somebody else has a route with this destination and metric; it is left alone.
    #[error(
        "a route to {destination} with metric {metric} belongs to somebody else (protocol {protocol})"
    )]
    ForeignRoute {
        /// Where the route leads.
        destination: IpNet,
        /// Its metric.
        metric: u32,
        /// Its owner's mark.
        protocol: u8,
    },
    /// The watch has ended, because its socket broke.
    #[error("watching for network changes has ended")]
    WatchEnded,
}

impl Error {
    /// The kernel's error number, where it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Kernel { source, .. } | Error::Socket(source) => {
                source.raw_os_error().map(Errno::from_raw)
            }
            _ => None,
        }
    }

    /// Gives the crate's error a context and keeps the kernel's number.
    fn new(action: impl FnOnce() -> String, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(e) => Error::Kernel {
                action: action(),
                source: e.to_io(),
            },
            source => Error::Protocol {
                action: action(),
                source,
            },
        }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// The kernel's number, where the crate's error carries one.
fn errno_of(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(ErrorMessage {
            code: Some(code), ..
        }) => Some(Errno::from_raw(code.get().saturating_abs())),
        _ => None,
    }
}

/// A connection to the kernel. Cheap to clone; ends with its last clone.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens a socket in this thread's network namespace; a task on the current tokio runtime
    /// serves it.
    ///
    /// # Errors
    /// [`Error::Socket`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect() -> Result<Self> {
        // Strict: the kernel filters dumps as asked, instead of sending everything.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// All links, addresses, and routes of the main table.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot {
            links: self
                .links()
                .await?
                .into_iter()
                .map(|link| (link.index, link))
                .collect(),
            addresses: self.addresses().await?,
            routes: self.routes(None).await?,
        })
    }

    /// All links.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let request = self.handle.link().get();
        request
            .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
            .execute()
            .map_ok(convert::link)
            .try_collect()
            .await
            .map_err(|e| Error::new(|| "listing network interfaces".to_owned(), e))
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn link(&self, name: &LinkName) -> Result<Option<Link>> {
        let found = self
            .handle
            .link()
            .get()
            .match_name(name.as_str())
            .execute()
            .try_next()
            .await;
        match found {
            Ok(message) => Ok(message.map(convert::link)),
            Err(e) if errno_of(&e) == Some(Errno::ENODEV) => Ok(None),
            Err(e) => Err(Error::new(
                || format!("looking for the network interface {name}"),
                e,
            )),
        }
    }

    /// All addresses, IPv4 and IPv6.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| Error::new(|| "listing addresses".to_owned(), e))?;
        Ok(messages.iter().filter_map(convert::address).collect())
    }

    /// The routes of the main table, IPv4 and IPv6; only those with a certain mark, if one is
    /// given ([`ROUTE_PROTOCOL`] for our own).
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn routes(&self, protocol: Option<u8>) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.table = RouteHeader::RT_TABLE_MAIN;
            filter.header.protocol = protocol.unwrap_or(0).into();
            let found: std::result::Result<Vec<_>, _> = self
                .handle
                .route()
                .get(filter)
                .execute()
                .try_collect()
                .await;
            match found {
                Ok(messages) => routes.extend(messages.iter().filter_map(convert::route)),
                // The table comes into being with its first route; IPv6 may be off altogether.
                Err(e)
                    if matches!(
                        errno_of(&e),
                        Some(Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)
                    ) => {}
                Err(e) => return Err(Error::new(|| "listing routes".to_owned(), e)),
            }
        }
        // Older kernels do not filter.
        routes.retain(|route| protocol.is_none_or(|protocol| route.protocol == protocol));
        Ok(routes)
    }

    /// By which link and with which source address the kernel would send a packet to
    /// `destination` now; `None` when it knows no way there. Nothing is sent.
    ///
    /// # Errors
    /// When the kernel refuses for another reason, e.g. `EACCES` for a `prohibit` route.
    pub async fn resolve(&self, destination: IpAddr) -> Result<Option<ResolvedRoute>> {
        let mut question = RouteMessage::default();
        (
            question.header.address_family,
            question.header.destination_prefix_length,
        ) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        question
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        match self.handle.route().get(question).execute().try_next().await {
            Ok(answer) => Ok(answer.as_ref().and_then(convert::resolved)),
            Err(e) if matches!(errno_of(&e), Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH)) => {
                Ok(None)
            }
            Err(e) => Err(Error::new(
                || format!("asking for the way to {destination}"),
                e,
            )),
        }
    }
}
