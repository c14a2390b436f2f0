//! Arithmetic on typed networks; nobody else splits addresses.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Whether two networks have an address in common.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether two addresses or networks are of one family.
pub fn same_family(a: &IpNet, b: &IpNet) -> bool {
    a.max_prefix_len() == b.max_prefix_len()
}

/// The `n`th address of a network, counted from the network's own; none if it
/// has not that many.
pub fn nth_address(net: &IpNet, n: u32) -> Option<IpAddr> {
    let address = match net {
        IpNet::V4(net) => IpAddr::V4(u32::from(net.network()).checked_add(n)?.into()),
        IpNet::V6(net) => IpAddr::V6(u128::from(net.network()).checked_add(n.into())?.into()),
    };
    net.contains(&address).then_some(address)
}

/// How many subnets of `prefix` a network has; none if it has none, and
/// `u64::MAX` for more than fit.
pub fn subnet_count(net: &IpNet, prefix: u8) -> Option<u64> {
    if prefix > net.max_prefix_len() {
        return None;
    }
    let bits = prefix.checked_sub(net.prefix_len())?;
    Some(1u64.checked_shl(bits.into()).unwrap_or(u64::MAX))
}

/// The subnets of a network, in order, without those that are taken.
#[derive(Debug)]
pub struct FreeSubnets<'t> {
    all: Subnets,
    taken: &'t [IpNet],
}

#[derive(Debug)]
enum Subnets {
    V4(Ipv4Subnets),
    V6(Ipv6Subnets),
    None,
}

impl<'t> FreeSubnets<'t> {
    /// Subnets of `prefix` in `net` that have nothing in common with `taken`.
    pub fn new(net: &IpNet, prefix: u8, taken: &'t [IpNet]) -> Self {
        let all = match net {
            IpNet::V4(net) => net.subnets(prefix).map_or(Subnets::None, Subnets::V4),
            IpNet::V6(net) => net.subnets(prefix).map_or(Subnets::None, Subnets::V6),
        };
        Self { all, taken }
    }
}

impl Iterator for FreeSubnets<'_> {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        loop {
            let net = match &mut self.all {
                Subnets::V4(nets) => nets.next()?.into(),
                Subnets::V6(nets) => nets.next()?.into(),
                Subnets::None => return None,
            };
            if !self.taken.iter().any(|taken| overlap(taken, &net)) {
                return Some(net);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_counted_within_the_network() {
        assert_eq!(
            nth_address(&net("10.96.0.0/16"), 10),
            Some("10.96.0.10".parse().unwrap())
        );
        assert_eq!(
            nth_address(&net("fd00::/112"), 10),
            Some("fd00::a".parse().unwrap())
        );
        assert_eq!(nth_address(&net("10.0.0.0/30"), 4), None);
        assert_eq!(nth_address(&net("255.255.255.255/32"), 1), None);
    }

    #[test]
    fn subnets_are_counted() {
        assert_eq!(subnet_count(&net("10.244.0.0/16"), 24), Some(256));
        assert_eq!(subnet_count(&net("10.244.0.0/16"), 15), None);
        assert_eq!(subnet_count(&net("10.244.0.0/16"), 33), None);
        assert_eq!(subnet_count(&net("fd00::/8"), 128), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn free_subnets_are_disjoint_and_inside(
            taken in proptest::collection::vec((0u8..=255, 20u8..=28), 0..6),
            prefix in 17u8..=26,
        ) {
            let range = net("10.244.0.0/16");
            let taken: Vec<IpNet> = taken
                .into_iter()
                .map(|(third, len)| {
                    IpNet::new(IpAddr::from([10, 244, third, 0]), len).unwrap().trunc()
                })
                .collect();
            let free: Vec<IpNet> = FreeSubnets::new(&range, prefix, &taken).take(40).collect();
            for (i, net) in free.iter().enumerate() {
                prop_assert!(range.contains(net));
                prop_assert_eq!(net.prefix_len(), prefix);
                prop_assert!(taken.iter().all(|t| !overlap(t, net)));
                prop_assert!(free[..i].iter().all(|other| !overlap(other, net)));
            }
        }
    }
}
