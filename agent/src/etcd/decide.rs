//! How a member that is not running is started: as the document says, or into
//! the ring that the others form. Pure.
//!
//! Whoever has a log has been a member and goes on with it; nothing here
//! touches data. One without comes into a ring that has a majority, and takes
//! the place of the one that it was only where nothing else is missing. With
//! the data of most members gone the ring cannot be mended, only restored:
//! then it says so.

use super::config::Config;
use super::mark::Mark;
use crate::error::{Code, Error};
use crate::sys::etcd::Member;

/// What the other members say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The ring's members, if anybody answers: as one with a majority behind
    /// it knows them, if there is one.
    pub ring: Option<Vec<Member>>,
    /// The numbers of those that have a majority behind them.
    pub healthy: Vec<u64>,
}

/// What is done.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is started as the document says: with its data, or with the ring.
    Start,
    /// It is brought into the ring that is there.
    Join {
        /// The member that it was, whose data are gone.
        remove: Option<u64>,
        /// It is not in the ring's list, or will not be any more.
        add: bool,
    },
}

/// Decides; the error says what is in the way.
///
/// # Errors
///
/// [`Code::EtcdLost`], [`Code::EtcdQuorum`], [`Code::EtcdRejoin`],
/// [`Code::EtcdRemoved`]; [`Code::Etcd`]: it has to wait.
pub fn decide(
    config: &Config,
    has_data: bool,
    mark: &Mark,
    seen: &Seen,
) -> Result<Decision, Error> {
    let refuse = |code, story: String| Err(Error::new(code, story));
    let majority = !seen.healthy.is_empty();
    let name = &config.name;
    if has_data {
        let ring = seen.ring.as_ref().filter(|_| majority);
        if let (Some(ring), Some(own)) = (ring, mark.member)
            && !ring.iter().any(|member| member.id == own)
        {
            let own = super::hex(own);
            let story = format!("the ring has no member {own} any more, which {name} has been");
            return refuse(Code::EtcdRemoved, story);
        }
        return Ok(Decision::Start);
    }
    if mark.left {
        return refuse(Code::EtcdRemoved, format!("{name} has left its ring"));
    }
    let Some(ring) = &seen.ring else {
        return match (mark.member, config.existing) {
            (Some(_), _) => refuse(
                Code::EtcdLost,
                format!("the data of {name} are gone, and no other member answers"),
            ),
            (None, true) => refuse(
                Code::Etcd,
                format!("{name} is to come into a ring, and no member of it answers"),
            ),
            (None, false) => Ok(Decision::Start),
        };
    };
    let is_own =
        |member: &&Member| member.name == *name || member.peer_urls.contains(&config.peer_url);
    let own = ring.iter().find(is_own);
    // A ring of the document's members that has not begun everywhere yet: each
    // has its name from the beginning.
    if let Some(own) = own
        && own.client_urls.is_empty()
        && !own.name.is_empty()
        && mark.member.is_none()
        && same_members(config, ring)
    {
        return Ok(Decision::Start);
    }
    if !majority {
        let there = ring.iter().map(|member| member.name.as_str());
        let there: Vec<_> = there.filter(|one| !one.is_empty()).collect();
        let story = format!(
            "{name} has no data, and the ring of {} has no majority",
            there.join(", ")
        );
        return refuse(Code::EtcdQuorum, story);
    }
    let Some(own) = own else {
        return match ring.iter().find(|member| member.learner) {
            Some(other) => refuse(
                Code::Etcd,
                format!("waiting for {} to come into the ring", called(other)),
            ),
            None => Ok(Decision::Join {
                remove: None,
                add: true,
            }),
        };
    };
    // Added, and not started before something ended that.
    if own.name.is_empty() && own.peer_urls.contains(&config.peer_url) {
        return Ok(Decision::Join {
            remove: None,
            add: false,
        });
    }
    if seen.healthy.contains(&own.id) {
        let at = own.client_urls.join(", ");
        let story = format!("another machine is the ring's member {name}, at {at}");
        return refuse(Code::EtcdRejoin, story);
    }
    let missing = ring
        .iter()
        .filter(|other| other.id != own.id && !seen.healthy.contains(&other.id));
    let missing: Vec<_> = missing.map(called).collect();
    if !missing.is_empty() && !mark.asked {
        let story = format!(
            "the data of {name} are gone, and {} is missing as well",
            missing.join(", ")
        );
        return refuse(Code::EtcdRejoin, story);
    }
    Ok(Decision::Join {
        remove: Some(own.id),
        add: true,
    })
}

/// A member's name, or where it is before it has one.
fn called(member: &Member) -> String {
    match member.name.as_str() {
        "" => member.peer_urls.join(", "),
        name => name.to_owned(),
    }
}

/// The ring is the one that the document begins.
fn same_members(config: &Config, ring: &[Member]) -> bool {
    let listed = |url: &String| config.members.iter().any(|(_, known)| known == url);
    ring.len() == config.members.len()
        && ring
            .iter()
            .all(|member| member.peer_urls.iter().all(listed))
}

#[cfg(test)]
mod tests;
