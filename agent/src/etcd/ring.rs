//! Looks at the ring from this machine, and when a member may be restarted.

use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;

use super::config::Config;
use super::decide::Seen;
use crate::sys::etcd::{Gateway, LOCAL, Member};

/// How long one that may not be there is waited for.
const LOOK: Duration = Duration::from_secs(3);
/// How long each member's time for a restart is, and how much of it may have
/// passed, in seconds: clocks may differ by the rest.
const TURN: (u64, u64) = (15, 5);

/// What the other members say.
pub async fn look(gateway: &Gateway, config: &Config) -> Seen {
    let asked = config.others().map(|(_, url)| async move {
        let asked = tokio::time::timeout(LOOK, gateway.known_members(url)).await;
        asked.ok().and_then(Result::ok)
    });
    let lists: Vec<Vec<Member>> = join_all(asked).await.into_iter().flatten().collect();
    let Some(first) = lists.first().cloned() else {
        return Seen::default();
    };
    let mut all: Vec<Member> = Vec::new();
    for member in lists.into_iter().flatten() {
        if !all.iter().any(|known| known.id == member.id) {
            all.push(member);
        }
    }
    let well = healthy(gateway, &all).await;
    // As most know it, where there is a majority.
    for member in well.iter().filter(|member| !member.learner) {
        if let Ok(ring) = gateway.members(url(member)).await {
            return Seen {
                healthy: well.iter().map(|member| member.id).collect(),
                ring: Some(ring),
            };
        }
    }
    Seen {
        ring: Some(first),
        healthy: Vec::new(),
    }
}

/// Those that have a majority behind them.
pub async fn healthy<'m>(gateway: &Gateway, members: &'m [Member]) -> Vec<&'m Member> {
    let started = members.iter().filter(|one| !one.client_urls.is_empty());
    let asked = started.map(|member| async move {
        let well = gateway.healthy(url(member)).await;
        well.is_ok().then_some(member)
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Where clients reach a member that was started.
pub fn url(member: &Member) -> &str {
    member.client_urls.first().map_or("", String::as_str)
}

/// Why this machine's member may not be restarted now, if it may not: another
/// one is not healthy, or it is not its turn. Members that are given a new
/// configuration at one time so restart one after the other.
pub async fn not_now(gateway: &Gateway) -> Option<String> {
    // Without a majority there is nothing to lose.
    let members = gateway.members(LOCAL).await.ok()?;
    let own = gateway.status(LOCAL).await.ok()?.id;
    let mut voters: Vec<Member> = members.into_iter().filter(|one| !one.learner).collect();
    voters.sort_by_key(|member| member.id);
    if voters.len() < 2 {
        return None;
    }
    let well = healthy(gateway, &voters).await;
    let ill = voters.iter().find(|one| !well.contains(one));
    if let Some(ill) = ill {
        return Some(format!("{} is not healthy", ill.name));
    }
    let place = voters.iter().position(|member| member.id == own)?;
    let now = OffsetDateTime::now_utc().unix_timestamp().unsigned_abs();
    (!is_turn(now, place, voters.len())).then(|| "it is another member's turn".to_owned())
}

/// Whether the time belongs to the member at this place: each has a slot of
/// its own, by the clock, without a word between them.
fn is_turn(unix: u64, place: usize, count: usize) -> bool {
    let (slot, from) = (unix / TURN.0, unix % TURN.0);
    from < TURN.1 && slot % count.max(1) as u64 == place as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_two_members_at_once_and_each_in_its_turn() {
        for count in [1, 3, 5] {
            let mut turns = vec![0; count];
            for unix in 1_000_000..1_000_000 + TURN.0 * count as u64 {
                let whose: Vec<usize> = (0..count)
                    .filter(|place| is_turn(unix, *place, count))
                    .collect();
                assert!(whose.len() <= 1);
                whose.into_iter().for_each(|place| turns[place] += 1);
            }
            assert_eq!(turns, vec![TURN.1; count]);
        }
        // A clock that is 9 seconds late does not meet the next one's.
        for unix in 0..300 {
            assert!(!(is_turn(unix, 0, 3) && is_turn(unix.saturating_sub(9), 1, 3)));
        }
    }
}
