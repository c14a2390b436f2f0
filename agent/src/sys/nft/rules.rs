//! From what is wanted to chains of rules. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_core::Emitable as _;
use netlink_packet_netfilter::nftables::InetHookNumber;
use sha2::{Digest as _, Sha256};

use super::expressions::{
    Expression, Side, address_in, counter, drop, family_of, leave, leaves_not_by, masquerade,
};
use super::{Chain, Hook, Ruleset, Table};

/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// Hex digits of the digest in a comment: enough to notice a change, short enough for `nft list`.
const DIGEST_LEN: usize = 12;

/// A chain to be made.
#[derive(Debug)]
pub(super) struct NewChain {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    pub(super) rules: Vec<NewRule>,
}

/// A rule to be made.
#[derive(Debug)]
pub(super) struct NewRule {
    pub(super) comment: String,
    pub(super) expressions: Vec<Expression>,
}

impl NewRule {
    fn new(what: &str, expressions: Vec<Expression>) -> Self {
        let mut bytes = vec![0; expressions.as_slice().buffer_len()];
        expressions.as_slice().emit(&mut bytes);
        let digest = Sha256::digest(bytes);
        let digest: String = digest[..DIGEST_LEN / 2]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let comment = format!("{what} #{digest}");
        NewRule {
            comment,
            expressions,
        }
    }
}

/// The chains for this ruleset. A chain without rules is left out: an empty one costs every
/// connection a detour.
pub(super) fn chains(ruleset: &Ruleset) -> Vec<NewChain> {
    let pods = normal(&ruleset.pod_networks);
    let hook = |kind: &str, number: InetHookNumber, priority| Hook {
        kind: kind.to_owned(),
        number: number.into(),
        priority,
        policy: ACCEPT,
    };
    let mut chains = vec![
        NewChain {
            name: "postrouting",
            hook: hook("nat", InetHookNumber::PostRouting, 100),
            rules: masquerade_rules(ruleset, &pods),
        },
        NewChain {
            name: "forward",
            hook: hook("filter", InetHookNumber::Forward, 0),
            rules: guard_rules(ruleset, &pods),
        },
    ];
    chains.retain(|chain| !chain.rules.is_empty());
    chains
}

/// Networks without host bits, each once, in a fixed order.
fn normal(nets: &[IpNet]) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = nets.iter().map(IpNet::trunc).collect();
    nets.sort();
    nets.dedup();
    nets
}

fn same_family(a: &IpNet, b: &IpNet) -> bool {
    a.max_prefix_len() == b.max_prefix_len()
}

/// From a pod, into the cluster: leave. From a pod, to elsewhere: masquerade.
fn masquerade_rules(ruleset: &Ruleset, pods: &[IpNet]) -> Vec<NewRule> {
    let mut rules = Vec::new();
    if !ruleset.masquerade {
        return rules;
    }
    let inside = normal(&ruleset.no_masquerade);
    for pod in pods {
        let from_pod = || {
            let mut expressions = family_of(pod.addr()).to_vec();
            expressions.extend(address_in(Side::Source, *pod));
            expressions
        };
        for net in inside.iter().filter(|net| same_family(net, pod)) {
            let mut expressions = from_pod();
            expressions.extend(address_in(Side::Destination, *net));
            expressions.push(leave());
            rules.push(NewRule::new(&format!("keep {pod} to {net}"), expressions));
        }
        let mut expressions = from_pod();
        if let Some(bridge) = &ruleset.bridge {
            expressions.extend(leaves_not_by(bridge));
        }
        expressions.push(counter());
        expressions.push(masquerade());
        rules.push(NewRule::new(&format!("masquerade {pod}"), expressions));
    }
    rules
}

fn guard_rules(ruleset: &Ruleset, pods: &[IpNet]) -> Vec<NewRule> {
    let services: Vec<IpNet> = ruleset
        .metadata_guard
        .iter()
        .map(|ip| IpNet::from(*ip))
        .collect();
    let mut rules = Vec::new();
    for service in normal(&services) {
        for pod in pods.iter().filter(|pod| same_family(pod, &service)) {
            let mut expressions = family_of(pod.addr()).to_vec();
            expressions.extend(address_in(Side::Source, *pod));
            expressions.extend(address_in(Side::Destination, service));
            expressions.push(counter());
            expressions.push(drop());
            rules.push(NewRule::new(
                &format!("guard {} from {pod}", service.addr()),
                expressions,
            ));
        }
    }
    rules
}

/// What an observer will see when these chains are in place.
pub(super) fn state(chains: &[NewChain]) -> Table {
    let chains: BTreeMap<_, _> = chains
        .iter()
        .map(|chain| {
            let rules = chain
                .rules
                .iter()
                .map(|rule| rule.comment.clone())
                .collect();
            (
                chain.name.to_owned(),
                Chain {
                    hook: Some(chain.hook.clone()),
                    rules,
                },
            )
        })
        .collect();
    Table { flags: 0, chains }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::nft::{METADATA_V4, METADATA_V6};

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter()
            .map(|net| net.parse().expect("a network"))
            .collect()
    }

    fn dual_stack() -> Ruleset {
        Ruleset {
            pod_networks: nets(&["10.244.1.0/24", "fd00:1::/64"]),
            masquerade: true,
            no_masquerade: nets(&["10.244.0.0/16", "10.96.0.0/12", "fd00::/16"]),
            bridge: Some("cbr0".parse().expect("a name")),
            metadata_guard: vec![METADATA_V4, METADATA_V6],
        }
    }

    /// Comments without the digest.
    fn comments(ruleset: &Ruleset, chain: &str) -> Vec<String> {
        let table = ruleset.expected();
        let rules = table
            .chains
            .get(chain)
            .map(|chain| chain.rules.clone())
            .unwrap_or_default();
        rules
            .iter()
            .map(|c| c.split(" #").next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn each_family_has_its_own_rules_and_exceptions_come_first() {
        assert_eq!(
            comments(&dual_stack(), "postrouting"),
            [
                "keep 10.244.1.0/24 to 10.96.0.0/12",
                "keep 10.244.1.0/24 to 10.244.0.0/16",
                "masquerade 10.244.1.0/24",
                "keep fd00:1::/64 to fd00::/16",
                "masquerade fd00:1::/64",
            ]
        );
        assert_eq!(
            comments(&dual_stack(), "forward"),
            [
                "guard 169.254.169.254 from 10.244.1.0/24",
                "guard fd00:ec2::254 from fd00:1::/64"
            ]
        );
    }

    #[test]
    fn order_repetition_and_host_bits_make_no_difference() {
        let other = Ruleset {
            pod_networks: nets(&["fd00:1::7/64", "10.244.1.9/24", "10.244.1.0/24"]),
            no_masquerade: nets(&["fd00::/16", "10.96.0.0/12", "10.244.0.0/16"]),
            ..dual_stack()
        };
        assert_eq!(other.expected(), dual_stack().expected());
    }

    #[test]
    fn whatever_changes_a_rule_changes_its_comment() {
        let other = Ruleset {
            bridge: Some("cbr1".parse().expect("a name")),
            ..dual_stack()
        };
        assert_ne!(other.expected(), dual_stack().expected());
        assert_eq!(
            comments(&other, "postrouting"),
            comments(&dual_stack(), "postrouting")
        );
    }

    #[test]
    fn what_is_switched_off_has_no_chain() {
        let off = Ruleset {
            masquerade: false,
            metadata_guard: vec![],
            ..dual_stack()
        };
        assert_eq!(off.expected(), Table::default());
        assert_eq!(Ruleset::default().expected(), Table::default());
    }

    #[test]
    fn longest_comment_fits_what_nft_can_show() {
        let long = "1111:2222:3333:4444:5555:6666:7777:8888/128";
        let ruleset = Ruleset {
            pod_networks: nets(&[long]),
            masquerade: true,
            no_masquerade: nets(&[long]),
            ..Ruleset::default()
        };
        for chain in chains(&ruleset) {
            for rule in chain.rules {
                // NFTNL_UDATA_COMMENT_MAXLEN
                assert!(
                    rule.comment.len() <= 128,
                    "{} is {} bytes long",
                    rule.comment,
                    rule.comment.len()
                );
            }
        }
    }
}
