//! The building blocks of rules, as the kernel's nf_tables virtual machine takes them. Pure.
//!
//! They are put together the way `nft` does it, so that `nft list` shows them as one would write
//! them. (nft(8); the kernel's include/uapi/linux/netfilter/nf_tables.h.)

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use crate::sys::netlink::LinkName;

/// One expression in a rule.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// Bytes that a link's name takes in a register (`IFNAMSIZ`).
const NAME_LEN: usize = 16;
/// Packet families (include/uapi/linux/netfilter.h).
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `NFTA_MASQ_FLAGS`.
const MASQ_FLAGS: u16 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const FULLY_RANDOM: u32 = 1 << 4;

/// Which address of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Source,
    Destination,
}

/// The packet's family is that of `ip`.
pub(super) fn family_of(ip: IpAddr) -> [Expression; 2] {
    let number = if ip.is_ipv4() {
        NFPROTO_IPV4
    } else {
        NFPROTO_IPV6
    };
    [
        load(MetaKey::Nfproto),
        compare(Operator::Equal, vec![number]),
    ]
}

/// The packet's address is in `net`. The family must have been checked before.
pub(super) fn address_in(side: Side, net: IpNet) -> Vec<Expression> {
    let (offset, address, mask) = match (net.trunc(), side) {
        (IpNet::V4(net), Side::Source) => (
            12,
            net.addr().octets().to_vec(),
            net.netmask().octets().to_vec(),
        ),
        (IpNet::V4(net), Side::Destination) => (
            16,
            net.addr().octets().to_vec(),
            net.netmask().octets().to_vec(),
        ),
        (IpNet::V6(net), Side::Source) => (
            8,
            net.addr().octets().to_vec(),
            net.netmask().octets().to_vec(),
        ),
        (IpNet::V6(net), Side::Destination) => (
            24,
            net.addr().octets().to_vec(),
            net.netmask().octets().to_vec(),
        ),
    };
    let len = u32::from(net.max_prefix_len() / 8);
    let mut expressions = Vec::with_capacity(3);
    if net.prefix_len() == 0 {
        return expressions; // Everything of this family.
    }
    expressions.push(
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(NETWORK_HEADER),
            Payload::Offset(offset),
            Payload::Len(len),
        ])
        .into(),
    );
    if net.prefix_len() < net.max_prefix_len() {
        expressions.push(
            Expressions::Bitwise(vec![
                Bitwise::SourceRegister(Register::Reg1),
                Bitwise::DestinationRegister(Register::Reg1),
                Bitwise::Length(len),
                Bitwise::Mask(DataAttribute::Value(mask)),
                Bitwise::Xor(DataAttribute::Value(vec![0; address.len()])),
            ])
            .into(),
        );
    }
    expressions.push(compare(Operator::Equal, address));
    expressions
}

/// The packet leaves by another link than this one.
pub(super) fn leaves_not_by(link: &LinkName) -> [Expression; 2] {
    // Compared to the end of the register: cbr0 is not cbr01.
    let mut name = link.as_str().as_bytes().to_vec();
    name.resize(NAME_LEN, 0);
    [load(MetaKey::Oifname), compare(Operator::NotEqual, name)]
}

/// Counts the packets and bytes that come this far.
pub(super) fn counter() -> Expression {
    Expressions::Other {
        expression_type: "counter".to_owned(),
        attributes: vec![],
    }
    .into()
}

/// Gives the packet the address of the link that it leaves by, and a random port: with the
/// default, two connections at the same time may be given the same port, and one is lost.
pub(super) fn masquerade() -> Expression {
    let flags = DefaultNla::new(MASQ_FLAGS, FULLY_RANDOM.to_be_bytes().to_vec());
    Expressions::Other {
        expression_type: "masq".to_owned(),
        attributes: vec![flags],
    }
    .into()
}

/// Ends the packet.
pub(super) fn drop() -> Expression {
    verdict(Verdict::Other(DROP))
}

/// Leaves the chain; in a base chain, with its policy.
pub(super) fn leave() -> Expression {
    verdict(Verdict::Return)
}

fn verdict(verdict: Verdict) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
            verdict,
        )])),
    ])
    .into()
}

fn load(key: MetaKey) -> Expression {
    Expressions::Meta(vec![
        Meta::Key(key),
        Meta::DestinationRegister(Register::Reg1),
    ])
    .into()
}

fn compare(operator: Operator, value: Vec<u8>) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
    .into()
}
