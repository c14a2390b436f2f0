//! When a member's database is written anew, so that its file gives back what
//! is no longer in use, and when an alarm may end. Pure.
//! Source: etcd documentation, "Maintenance".

use crate::sys::etcd::Status;

/// A database with less to give back is left alone: etcd uses the room again.
const WORTH: u64 = 64 << 20;
/// etcd's quota where none is set.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// The quota that counts.
pub fn quota(set: u64) -> u64 {
    match set {
        0 => DEFAULT_QUOTA,
        set => set,
    }
}

/// Whether it is worth that a member answers nobody for a moment: half of a
/// large file is unused, or the quota is near. With an alarm everything that
/// can be given back is.
pub fn is_worth(member: &Status, quota: u64, alarm: bool) -> bool {
    let unused = member.size.saturating_sub(member.in_use);
    if alarm {
        return unused > member.size / 10;
    }
    let near = member.size > quota / 4 * 3;
    unused >= WORTH.min(quota / 8) && (unused >= member.size / 2 || near && unused > quota / 10)
}

/// Whether it is this member's turn: one after the other, the leader last,
/// and nobody where a member is missing. Each member finds the same by itself,
/// as each asks all.
pub fn is_turn(own: u64, all: &[Status], quota: u64, alarm: bool) -> bool {
    let wanted = all.iter().filter(|one| is_worth(one, quota, alarm));
    let first = wanted.min_by_key(|one| (one.id == one.leader, one.id));
    first.is_some_and(|first| first.id == own)
}

/// Whether every member has room again, so that the alarm may end.
pub fn has_room(all: &[Status], quota: u64) -> bool {
    all.iter().all(|one| one.size < quota / 10 * 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: u64 = 4 << 30;
    const MIB: u64 = 1 << 20;

    fn member(id: u64, size: u64, in_use: u64) -> Status {
        Status {
            id,
            leader: 1,
            size,
            in_use,
            ..Status::default()
        }
    }

    #[test]
    fn a_file_is_written_anew_where_that_gives_much_back() {
        for (size, in_use, worth) in [
            (20, 1, false),
            (100, 30, true),
            (300, 200, false),
            (1000, 450, true),
            (3500, 3400, false),
            (3500, 2900, true),
        ] {
            let one = member(1, size * MIB, in_use * MIB);
            assert_eq!(is_worth(&one, QUOTA, false), worth, "{in_use} of {size}");
        }
        assert!(is_worth(&member(1, 16 * MIB, 2 * MIB), 16 * MIB, true));
        assert!(!is_worth(&member(1, 16 * MIB, 15 * MIB), 16 * MIB, true));
    }

    #[test]
    fn one_after_the_other_and_the_leader_last() {
        let waste = |id| member(id, 200 * MIB, 10 * MIB);
        let done = |id| member(id, 10 * MIB, 10 * MIB);
        let whose = |all: &[Status]| -> Vec<u64> {
            let turn = |one: &&Status| is_turn(one.id, all, QUOTA, false);
            all.iter().filter(turn).map(|one| one.id).collect()
        };
        assert_eq!(whose(&[waste(1), waste(2), waste(3)]), [2]);
        assert_eq!(whose(&[waste(1), done(2), waste(3)]), [3]);
        assert_eq!(whose(&[waste(1), done(2), done(3)]), [1]);
        assert!(whose(&[done(1), done(2), done(3)]).is_empty());
    }

    #[test]
    fn an_alarm_ends_when_all_have_room() {
        assert!(has_room(&[member(1, 10, 1), member(2, 80, 1)], 100));
        assert!(!has_room(&[member(1, 10, 1), member(2, 95, 1)], 100));
        assert_eq!(quota(0), 2 << 30);
    }
}
