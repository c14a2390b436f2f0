//! The small changes that a plan is made of. Each may be repeated, and says whether it did anything.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
};

use super::types::{Link, LinkName, MacAddress, OwnRoute, ROUTE_PROTOCOL, Route};
use super::{Error, Netlink, Result, errno_of};
use crate::sys::Changed;

impl Netlink {
    async fn existing_link(&self, name: &LinkName) -> Result<Link> {
        self.link(name)
            .await?
            .ok_or_else(|| Error::NoSuchLink(name.clone()))
    }

    async fn set_link(&self, name: &LinkName, message: LinkMessage) -> Result<Changed> {
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|e| Error::new(|| format!("changing the network interface {name}"), e))?;
        Ok(Changed::Yes)
    }

    /// A bridge of this name exists, is up, and has this MTU (bytes) and address where given.
    ///
    /// Give the address: a bridge without one of its own takes that of its lowest port, and
    /// changes it under everybody's feet as pods come and go.
    ///
    /// # Errors
    /// [`Error::NotABridge`], or when the kernel refuses.
    pub async fn ensure_bridge(
        &self,
        name: &LinkName,
        mtu: Option<u32>,
        mac: Option<MacAddress>,
    ) -> Result<Changed> {
        let mut changed = Changed::No;
        if self.link(name).await?.is_none() {
            let mut bridge = LinkMessageBuilder::<LinkBridge>::new(name.as_str());
            if let Some(MacAddress(bytes)) = mac {
                bridge = bridge.address(bytes.to_vec());
            }
            match self.handle.link().add(bridge.build()).execute().await {
                Ok(()) => changed = Changed::Yes,
                // Somebody was quicker; what is there now is looked at below.
                Err(e) if errno_of(&e) == Some(Errno::EEXIST) => {}
                Err(e) => return Err(Error::new(|| format!("making the bridge {name}"), e)),
            }
        }
        if self.existing_link(name).await?.kind.as_deref() != Some("bridge") {
            return Err(Error::NotABridge(name.clone()));
        }
        // Only an MTU that is set after the making stays: one given while making is replaced by
        // the smallest of the ports as they come (the kernel's br_mtu_auto_adjust).
        if let Some(mtu) = mtu {
            changed = changed.or(self.ensure_mtu(name, mtu).await?);
        }
        if let Some(mac) = mac {
            changed = changed.or(self.ensure_mac(name, mac).await?);
        }
        Ok(changed.or(self.ensure_up(name).await?))
    }

    /// The link is up.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`], or when the kernel refuses.
    pub async fn ensure_up(&self, name: &LinkName) -> Result<Changed> {
        let link = self.existing_link(name).await?;
        if link.up {
            return Ok(Changed::No);
        }
        self.set_link(name, LinkUnspec::new_with_index(link.index).up().build())
            .await
    }

    /// The link has this MTU, in bytes.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`], or when the kernel refuses (`EINVAL`: out of the link's range).
    pub async fn ensure_mtu(&self, name: &LinkName, mtu: u32) -> Result<Changed> {
        let link = self.existing_link(name).await?;
        if link.mtu == mtu {
            return Ok(Changed::No);
        }
        self.set_link(
            name,
            LinkUnspec::new_with_index(link.index).mtu(mtu).build(),
        )
        .await
    }

    /// The link has this Ethernet address.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`], or when the kernel refuses.
    pub async fn ensure_mac(&self, name: &LinkName, mac: MacAddress) -> Result<Changed> {
        let link = self.existing_link(name).await?;
        if link.mac == Some(mac) {
            return Ok(Changed::No);
        }
        self.set_link(
            name,
            LinkUnspec::new_with_index(link.index)
                .address(mac.0.to_vec())
                .build(),
        )
        .await
    }

    /// There is no link of this name.
    ///
    /// # Errors
    /// When the kernel refuses (`EOPNOTSUPP` for a physical device).
    pub async fn remove_link(&self, name: &LinkName) -> Result<Changed> {
        let Some(link) = self.link(name).await? else {
            return Ok(Changed::No);
        };
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(Changed::Yes),
            Err(e) if errno_of(&e) == Some(Errno::ENODEV) => Ok(Changed::No),
            Err(e) => Err(Error::new(
                || format!("removing the network interface {name}"),
                e,
            )),
        }
    }

    /// The link has this address with this prefix length; other addresses are left alone.
    ///
    /// IPv6 addresses skip duplicate address detection: on a bridge without ports it would never
    /// end, and the address is unique by construction.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`], or when the kernel refuses (`EEXIST`: the IPv6 address is there with
    /// another prefix length; remove it first).
    pub async fn ensure_address(&self, name: &LinkName, address: IpNet) -> Result<Changed> {
        let link = self.existing_link(name).await?;
        let found = self.addresses().await?;
        if found
            .iter()
            .any(|a| a.link == link.index && a.net == address)
        {
            return Ok(Changed::No);
        }
        let mut request =
            self.handle
                .address()
                .add(link.index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        let result = request.execute().await;
        result.map_err(|e| Error::new(|| format!("adding the address {address} to {name}"), e))?;
        Ok(Changed::Yes)
    }

    /// The link does not have this address with this prefix length, or is not there at all.
    ///
    /// With an IPv4 address the kernel also removes those of the same network that were added
    /// after it, unless `promote_secondaries` is set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_address(&self, name: &LinkName, address: IpNet) -> Result<Changed> {
        let Some(link) = self.link(name).await? else {
            return Ok(Changed::No);
        };
        let message: AddressMessage = match address {
            IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(link.index)
                .address(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(link.index)
                .address(net.addr(), net.prefix_len())
                .build(),
        };
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(Changed::Yes),
            Err(e) if matches!(errno_of(&e), Some(Errno::EADDRNOTAVAIL | Errno::ENODEV)) => {
                Ok(Changed::No)
            }
            Err(e) => Err(Error::new(
                || format!("removing the address {address} from {name}"),
                e,
            )),
        }
    }

    /// The main table has this route, marked as ours. One of ours with the same destination and
    /// metric is replaced in one step.
    ///
    /// # Errors
    /// [`Error::ForeignRoute`] when somebody else's is in its place, [`Error::NoSuchLink`], or when
    /// the kernel refuses (`ENETUNREACH`: the gateway is on no link).
    pub async fn ensure_route(&self, want: &OwnRoute) -> Result<Changed> {
        let routes = self.routes(None).await?;
        self.ensure_route_among(want, &routes).await
    }

    /// The same, knowing which routes there are: thousands of routes take one look.
    ///
    /// # Errors
    /// As [`Netlink::ensure_route`].
    pub async fn ensure_route_among(&self, want: &OwnRoute, routes: &[Route]) -> Result<Changed> {
        let index = match &want.link {
            Some(name) => Some(self.existing_link(name).await?.index),
            None => None,
        };
        let present: Vec<_> = routes.iter().filter(|route| want.same_key(route)).collect();
        if present.iter().any(|route| want.is(route, index)) {
            return Ok(Changed::No);
        }
        // The kernel would replace whatever it finds there, so look whose it is before.
        if let Some(foreign) = present.iter().find(|route| !route.is_own()) {
            return Err(Error::ForeignRoute {
                destination: foreign.destination,
                metric: foreign.metric,
                protocol: foreign.protocol,
            });
        }
        let mut request = self.handle.route().add(message(want, index));
        if !present.is_empty() {
            request = request.replace();
        }
        let result = request.execute().await;
        result
            .map_err(|e| Error::new(|| format!("adding the route to {}", want.destination), e))?;
        Ok(Changed::Yes)
    }

    /// The main table has no route of ours to this destination with this metric (0: with any).
    /// Others' stay.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_route(&self, destination: IpNet, metric: u32) -> Result<Changed> {
        let mut question = base(destination, metric);
        // Any scope: whether the route has a gateway is not asked.
        question.header.scope = RouteScope::NoWhere;
        question.header.kind = RouteType::Unspec;
        let mut changed = Changed::No;
        // One call removes one route; several metrics take several calls.
        loop {
            match self.handle.route().del(question.clone()).execute().await {
                Ok(()) => changed = Changed::Yes,
                // ENODEV as well: the routes went with their link.
                Err(e)
                    if matches!(
                        errno_of(&e),
                        Some(Errno::ESRCH | Errno::ENODEV | Errno::ENOENT)
                    ) =>
                {
                    return Ok(changed);
                }
                Err(e) => {
                    return Err(Error::new(
                        || format!("removing the route to {destination}"),
                        e,
                    ));
                }
            }
        }
    }
}

/// Destination, metric, table and our mark.
fn base(destination: IpNet, metric: u32) -> RouteMessage {
    let mut message = match destination.trunc() {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .build(),
    };
    message.header.protocol = ROUTE_PROTOCOL.into();
    if metric != 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    message
}

fn message(want: &OwnRoute, index: Option<u32>) -> RouteMessage {
    let mut message = base(want.destination, want.metric);
    message.header.scope = match want.gateway {
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    if let Some(gateway) = want.gateway {
        message
            .attributes
            .push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(index) = index {
        message.attributes.push(RouteAttribute::Oif(index));
    }
    if want.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    message
}
