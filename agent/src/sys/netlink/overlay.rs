//! Overlay links: a vxlan device, what it forwards where, and the neighbours behind it.
//!
//! The device learns nothing and asks nobody: it has one forwarding entry for each other end, and
//! a permanent neighbour for each gateway behind it. Entries of ours are told by their Ethernet
//! address ([`is_vtep`]); others on the same device stay as they are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use super::types::{Forwarding, Link, MacAddress, Neighbour, Vxlan, VxlanFacts};
use super::{Error, Netlink, Result, errno_of};
use crate::sys::Changed;

/// The first two bytes of the Ethernet address of every overlay end that we make: locally
/// administered, and our mark on forwarding entries and neighbours, which have no other.
pub const VTEP_PREFIX: [u8; 2] = [0x0a, 0x59];

/// Whether an Ethernet address is that of an overlay end of ours.
#[must_use]
pub fn is_vtep(mac: MacAddress) -> bool {
    mac.0.starts_with(&VTEP_PREFIX)
}

impl Netlink {
    /// A vxlan link of this name exists as described, learns nothing, and is up. One with another
    /// number, port or local address is made anew, since the kernel changes none of these; what
    /// hung on it (addresses, forwarding entries, neighbours, routes) goes with the old one.
    ///
    /// # Errors
    /// [`Error::NotAVxlan`], or when the kernel refuses (`EEXIST`: another link has the same
    /// number and port).
    pub async fn ensure_vxlan(&self, want: &Vxlan) -> Result<Changed> {
        let name = &want.name;
        let facts = VxlanFacts {
            vni: want.vni,
            port: want.port,
            local: Some(want.local),
            learning: false,
        };
        let mut changed = Changed::No;
        if let Some(Link { kind, vxlan, .. }) = self.link(name).await? {
            if kind.as_deref() != Some("vxlan") {
                return Err(Error::NotAVxlan(name.clone()));
            }
            if vxlan != Some(facts) {
                changed = self.remove_link(name).await?;
            }
        }
        if self.link(name).await?.is_none() {
            let mut link = LinkMessageBuilder::<LinkVxlan>::new(name.as_str())
                .id(want.vni)
                .port(want.port)
                .learning(false)
                .address(want.mac.0.to_vec());
            link = match want.local {
                IpAddr::V4(local) => link.local(local),
                IpAddr::V6(local) => link.local6(local),
            };
            let result = self.handle.link().add(link.build()).execute().await;
            result.map_err(|e| Error::new(|| format!("making the vxlan link {name}"), e))?;
            changed = Changed::Yes;
        }
        changed = changed.or(self.ensure_mac(name, want.mac).await?);
        if let Some(mtu) = want.mtu {
            changed = changed.or(self.ensure_mtu(name, mtu).await?);
        }
        Ok(changed.or(self.ensure_up(name).await?))
    }

    /// To which address this vxlan link sends frames for which Ethernet address; ours only.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn forwardings(&self, link: u32) -> Result<BTreeSet<Forwarding>> {
        let entries = self.entries(link, AddressFamily::Bridge).await?;
        Ok(entries
            .iter()
            .filter_map(|entry| {
                let (mac, destination) = parts(entry)?;
                Some(Forwarding { mac, destination })
            })
            .collect())
    }

    /// The permanent neighbours on this link, IPv4 and IPv6; ours only.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn neighbours(&self, link: u32) -> Result<BTreeSet<Neighbour>> {
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let entries = self.entries(link, family).await?;
            found.extend(entries.iter().filter_map(|entry| {
                let permanent = entry.header.state == NeighbourState::Permanent;
                let (mac, address) = parts(entry).filter(|_| permanent)?;
                Some(Neighbour { address, mac })
            }));
        }
        Ok(found)
    }

    async fn entries(&self, link: u32, family: AddressFamily) -> Result<Vec<NeighbourMessage>> {
        let mut request = self.handle.neighbours().get().set_address_family(family);
        // The kernel filters by this attribute, where it is new enough to.
        let attributes = &mut request.message_mut().attributes;
        attributes.push(NeighbourAttribute::IfIndex(link));
        let result: std::result::Result<Vec<_>, _> = request.execute().try_collect().await;
        let mut entries = match result {
            Ok(entries) => entries,
            // IPv6 may be off altogether.
            Err(e) if matches!(errno_of(&e), Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)) => {
                Vec::new()
            }
            Err(e) => return Err(Error::new(|| "listing neighbours".to_owned(), e)),
        };
        entries.retain(|entry| entry.header.ifindex == link);
        Ok(entries)
    }

    /// The vxlan link with this index sends frames as the entry says.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_forwarding(&self, link: u32, entry: Forwarding) -> Result<Changed> {
        let Forwarding { mac, destination } = entry;
        let request = self.handle.neighbours().add_bridge(link, &mac.0);
        let request = request.flags(NeighbourFlags::Own).destination(destination);
        let result = request.replace().execute().await;
        result.map_err(|e| {
            Error::new(
                || format!("adding the forwarding of {mac} to {destination}"),
                e,
            )
        })?;
        Ok(Changed::Yes)
    }

    /// The vxlan link with this index has no such entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_forwarding(&self, link: u32, entry: Forwarding) -> Result<Changed> {
        let Forwarding { mac, destination } = entry;
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link;
        message.header.flags = NeighbourFlags::Own;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
            NeighbourAttribute::Destination(destination.into()),
        ];
        self.remove_entry(message, || {
            format!("removing the forwarding of {mac} to {destination}")
        })
        .await
    }

    /// The link with this index has this permanent neighbour; another Ethernet address of the same
    /// neighbour is replaced.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_neighbour(&self, link: u32, neighbour: Neighbour) -> Result<Changed> {
        let Neighbour { address, mac } = neighbour;
        let request = self.handle.neighbours().add(link, address);
        let request = request.link_layer_address(&mac.0).replace();
        let result = request.execute().await;
        result.map_err(|e| Error::new(|| format!("adding the neighbour {address}"), e))?;
        Ok(Changed::Yes)
    }

    /// The link with this index has no such neighbour.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_neighbour(&self, link: u32, neighbour: Neighbour) -> Result<Changed> {
        let address = neighbour.address;
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = link;
        message.attributes = vec![NeighbourAttribute::Destination(address.into())];
        self.remove_entry(message, || format!("removing the neighbour {address}"))
            .await
    }

    async fn remove_entry(
        &self,
        message: NeighbourMessage,
        action: impl FnOnce() -> String,
    ) -> Result<Changed> {
        match self.handle.neighbours().del(message).execute().await {
            Ok(()) => Ok(Changed::Yes),
            Err(e) if matches!(errno_of(&e), Some(Errno::ENOENT | Errno::ENODEV)) => {
                Ok(Changed::No)
            }
            Err(e) => Err(Error::new(action, e)),
        }
    }
}

/// Ethernet and IP address of an entry, if it is one of ours.
fn parts(message: &NeighbourMessage) -> Option<(MacAddress, IpAddr)> {
    let (mut mac, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddress);
            }
            NeighbourAttribute::Destination(destination) => address = ip(destination),
            _ => {}
        }
    }
    mac.filter(|mac| is_vtep(*mac)).zip(address)
}

/// Whether a neighbour message is about one of ours.
pub(super) fn concerns_us(message: &NeighbourMessage) -> bool {
    parts(message).is_some()
}

fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        NeighbourAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        // A forwarding entry's family is that of bridges; the length tells the address's.
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
                .ok()
        }
        _ => None,
    }
}
