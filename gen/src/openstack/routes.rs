//! Which routes to pods a router has, should have, and what to do about it.
//! Decided from what is known alone; nothing is asked for here. (P50)

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ranges::overlap;
use crate::report::{Finding, Report};

/// A route of a router's. Source: OpenStack Networking API, "extraroute".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// To where.
    pub destination: IpNet,
    /// By whom.
    pub nexthop: IpAddr,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.nexthop)
    }
}

/// A route that there has to be, and whose pods it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The Node.
    pub machine: String,
    /// The route to its pods.
    pub route: Route,
}

/// What the router is besides its routes.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// The subnets that it is on.
    pub subnets: Vec<IpNet>,
}

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is missing.
    Add,
    /// It leads to somebody else.
    Replace,
    /// It leads to pods of a machine that is no more.
    Remove,
    /// It is as it should be.
    Keep,
    /// It is none of the cluster's, and left alone.
    Foreign,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Remove => "remove",
            Self::Keep => "keep",
            Self::Foreign => "foreign",
        }
    }
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What becomes of it.
    pub action: Action,
    /// To where.
    pub destination: IpNet,
    /// By whom, when all is done; none where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nexthop: Option<IpAddr>,
    /// Whose pods are there, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The next hops that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub was: Vec<IpAddr>,
}

/// What there is to do, by destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Every route that there is or will be.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Plans. Ours are routes to somewhere within `pods`, the ranges of all
    /// pods; where not every range `is_known`, one that nobody wants may be a
    /// machine's, and stays.
    pub fn new(have: &[Route], want: &[Wanted], pods: &[IpNet], is_known: bool) -> Self {
        let destinations: BTreeSet<IpNet> = have
            .iter()
            .map(|route| route.destination)
            .chain(want.iter().map(|wanted| wanted.route.destination))
            .collect();
        let step = |destination: IpNet| {
            let hops: Vec<IpAddr> = have
                .iter()
                .filter(|route| route.destination == destination)
                .map(|route| route.nexthop)
                .collect();
            let step = |action, nexthop: Option<IpAddr>, machine, was| Step {
                action,
                destination,
                nexthop,
                machine,
                was,
            };
            if let Some(wanted) = want.iter().find(|w| w.route.destination == destination) {
                let next = wanted.route.nexthop;
                let machine = Some(wanted.machine.clone());
                let was: Vec<IpAddr> = hops.iter().copied().filter(|hop| *hop != next).collect();
                let action = match (hops.contains(&next), was.is_empty()) {
                    (true, true) => Action::Keep,
                    (false, true) => Action::Add,
                    (_, false) => Action::Replace,
                };
                return step(action, Some(next), machine, was);
            }
            let ours = pods.iter().any(|range| range.contains(&destination));
            if ours && is_known {
                return step(Action::Remove, None, None, hops);
            }
            let action = if ours { Action::Keep } else { Action::Foreign };
            step(action, hops.first().copied(), None, Vec::new())
        };
        Self {
            steps: destinations.into_iter().map(step).collect(),
        }
    }

    /// Routes that are missing.
    pub fn to_add(&self, have: &[Route]) -> Vec<Route> {
        let wanted = self.steps.iter().filter_map(|step| {
            let changes = matches!(step.action, Action::Add | Action::Replace);
            let route = Route {
                destination: step.destination,
                nexthop: step.nexthop?,
            };
            (changes && !have.contains(&route)).then_some(route)
        });
        wanted.collect()
    }

    /// Routes that are wrong.
    pub fn to_remove(&self) -> Vec<Route> {
        let of = |step: &Step| {
            let destination = step.destination;
            let routes = step.was.iter().map(move |nexthop| Route {
                destination,
                nexthop: *nexthop,
            });
            routes.collect::<Vec<_>>()
        };
        self.steps.iter().flat_map(of).collect()
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        let done = |step: &Step| matches!(step.action, Action::Keep | Action::Foreign);
        self.steps.iter().all(done)
    }

    /// Everything that the router is to have.
    pub fn result(&self, have: &[Route]) -> Vec<Route> {
        let gone = self.to_remove();
        let mut all: Vec<Route> = have.iter().filter(|r| !gone.contains(r)).cloned().collect();
        all.extend(self.to_add(have));
        all
    }
}

/// What Neutron would refuse, or take and not carry, of what is wanted.
pub fn check(want: &[Wanted], around: &Surroundings) -> Result<(), Report> {
    let mut report = Report::default();
    for Wanted { machine, route } in want {
        if around.addresses.contains(&route.nexthop) {
            let message = format!("{machine}: {} is the router's own address", route.nexthop);
            let help = "give the machine another address, or the router: a packet for its pods \
                        would come back to the router";
            report.add(Finding::new(message).help(help));
            continue;
        }
        if !around
            .subnets
            .iter()
            .any(|net| net.contains(&route.nexthop))
        {
            let nets: Vec<String> = around.subnets.iter().map(ToString::to_string).collect();
            let nets = match nets.as_slice() {
                [] => "no subnet".to_owned(),
                nets => nets.join(", "),
            };
            let message = format!(
                "{machine}: {} is on no subnet of the router, which is on {nets}",
                route.nexthop
            );
            let help = "openstack router add subnet ROUTER SUBNET, or name the right router";
            report.add(Finding::new(message).help(help));
        }
        if let Some(net) = around
            .subnets
            .iter()
            .find(|n| overlap(n, &route.destination))
        {
            let message = format!(
                "{machine}: its pods' range {} overlaps with {net}, which the router is on",
                route.destination
            );
            let help = "the router hands packets for its subnets to these: take another \
                        network.podCIDR";
            report.add(Finding::new(message).help(help));
        }
    }
    report.into_result()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        let (destination, nexthop) = text.split_once(' ').unwrap();
        Route {
            destination: destination.parse().unwrap(),
            nexthop: nexthop.parse().unwrap(),
        }
    }

    fn routes(texts: &[&str]) -> Vec<Route> {
        texts.iter().map(|text| route(text)).collect()
    }

    fn wanted(texts: &[(&str, &str)]) -> Vec<Wanted> {
        let of = |(machine, text): &(&str, &str)| Wanted {
            machine: (*machine).to_owned(),
            route: route(text),
        };
        texts.iter().map(of).collect()
    }

    fn pods() -> Vec<IpNet> {
        vec!["10.244.0.0/16".parse().unwrap()]
    }

    const WANT: [(&str, &str); 2] = [
        ("m", "10.244.0.0/24 10.0.0.10"),
        ("n", "10.244.1.0/24 10.0.0.11"),
    ];

    #[test]
    fn missing_routes_are_added_and_foreign_ones_are_left_alone() {
        let have = routes(&["192.168.0.0/16 10.0.0.99", "10.244.0.0/24 10.0.0.10"]);
        let plan = Plan::new(&have, &wanted(&WANT), &pods(), true);
        let actions: Vec<&str> = plan.steps.iter().map(|s| s.action.as_str()).collect();
        assert_eq!(actions, ["keep", "add", "foreign"]);
        assert_eq!(plan.to_add(&have), routes(&["10.244.1.0/24 10.0.0.11"]));
        assert!(plan.to_remove().is_empty() && !plan.is_done());
        let after = plan.result(&have);
        assert_eq!(after[..2], have[..]);
        assert!(Plan::new(&after, &wanted(&WANT), &pods(), true).is_done());
    }

    #[test]
    fn wrong_next_hops_are_put_right() {
        let have = routes(&[
            "10.244.0.0/24 10.0.0.77",
            "10.244.1.0/24 10.0.0.11",
            "10.244.1.0/24 10.0.0.78",
        ]);
        let plan = Plan::new(&have, &wanted(&WANT), &pods(), true);
        assert!(plan.steps.iter().all(|s| s.action == Action::Replace));
        // That one of two was right is no reason to add it again.
        assert_eq!(plan.to_add(&have), routes(&["10.244.0.0/24 10.0.0.10"]));
        assert_eq!(
            plan.to_remove(),
            routes(&["10.244.0.0/24 10.0.0.77", "10.244.1.0/24 10.0.0.78"])
        );
        let after = plan.result(&have);
        assert!(Plan::new(&after, &wanted(&WANT), &pods(), true).is_done());
    }

    #[test]
    fn routes_of_machines_that_are_gone_go_if_all_are_known() {
        let have = routes(&["10.244.9.0/24 10.0.0.19"]);
        let gone = Plan::new(&have, &[], &pods(), true);
        assert_eq!(gone.steps[0].action, Action::Remove);
        assert_eq!(gone.to_remove(), have);
        assert!(gone.result(&have).is_empty());
        let unknown = Plan::new(&have, &[], &pods(), false);
        assert_eq!(unknown.steps[0].action, Action::Keep);
        assert!(unknown.is_done());
    }

    #[test]
    fn a_clash_with_the_router_is_told_with_the_machine() {
        let around = Surroundings {
            addresses: vec!["10.0.0.10".parse().unwrap()],
            subnets: vec!["10.0.0.0/24".parse().unwrap()],
        };
        let mut want = wanted(&WANT);
        want.extend(wanted(&[
            ("far", "10.244.2.0/24 10.9.0.1"),
            ("over", "10.0.0.0/25 10.0.0.12"),
        ]));
        let report = check(&want, &around).unwrap_err().to_string();
        for part in [
            "m: 10.0.0.10 is the router's own address",
            "far: 10.9.0.1 is on no subnet of the router, which is on 10.0.0.0/24",
            "over: its pods' range 10.0.0.0/25 overlaps with 10.0.0.0/24",
        ] {
            assert!(report.contains(part), "{part}\n{report}");
        }
        assert!(!report.contains("n: "), "{report}");
    }
}
