use super::*;
use crate::etcd::config::tests::{SAMPLE, sample};

fn member(id: u64, started: bool) -> Member {
    Member {
        id,
        name: format!("etcd-{id}"),
        peer_urls: vec![format!("https://10.0.0.1{id}:2380")],
        client_urls: match started {
            true => vec![format!("https://10.0.0.1{id}:2379")],
            false => Vec::new(),
        },
        learner: false,
    }
}

/// What member 1 is told: the ring, and who of it is healthy.
fn seen(ring: &[Member], healthy: &[u64]) -> Seen {
    Seen {
        ring: Some(ring.to_vec()),
        healthy: healthy.to_vec(),
    }
}

fn whole() -> [Member; 3] {
    [member(1, true), member(2, true), member(3, true)]
}

fn mark(member: u64) -> Mark {
    Mark {
        member: Some(member),
        ..Mark::default()
    }
}

fn of(has_data: bool, mark: &Mark, seen: &Seen) -> Result<Decision, Code> {
    decide(&sample(), has_data, mark, seen).map_err(|error| error.code())
}

const REJOIN: Decision = Decision::Join {
    remove: Some(1),
    add: true,
};
const GROW: Decision = Decision::Join {
    remove: None,
    add: true,
};

#[test]
fn who_has_data_goes_on_with_them() {
    for seen in [
        Seen::default(),
        seen(&whole(), &[]),
        seen(&whole(), &[2, 3]),
    ] {
        assert_eq!(of(true, &mark(1), &seen), Ok(Decision::Start));
        assert_eq!(of(true, &Mark::default(), &seen), Ok(Decision::Start));
    }
    // One of this name came after it.
    let seen = seen(&[member(2, true), member(3, true)], &[2, 3]);
    assert_eq!(of(true, &mark(1), &seen), Err(Code::EtcdRemoved));
}

#[test]
fn a_first_start_needs_nobody() {
    let none = Mark::default();
    assert_eq!(of(false, &none, &Seen::default()), Ok(Decision::Start));
    // The others have begun already.
    let ring = [member(1, false), member(2, true), member(3, true)];
    assert_eq!(of(false, &none, &seen(&ring, &[2, 3])), Ok(Decision::Start));
    assert_eq!(of(false, &none, &seen(&ring, &[])), Ok(Decision::Start));
}

#[test]
fn a_ring_that_is_there_is_never_begun_anew() {
    let text = SAMPLE.replace("state: new", "state: existing");
    let root = tempfile::tempdir().unwrap();
    let root = crate::sys::root::Root::new(root.path());
    root.create_dir("/etc/kubernetes", 0o755).unwrap();
    root.write_atomic(units::paths::ETCD_CONFIG, text.as_bytes(), 0o644)
        .unwrap();
    let config = Config::read(&root).unwrap();
    let outcome = decide(&config, false, &Mark::default(), &Seen::default());
    assert_eq!(outcome.unwrap_err().code(), Code::Etcd);
}

/// F28.
#[test]
fn one_whose_data_are_gone_takes_its_place_again() {
    for mark in [mark(1), Mark::default()] {
        assert_eq!(of(false, &mark, &seen(&whole(), &[2, 3])), Ok(REJOIN));
    }
    // It was cut after it was added.
    let mut ring = whole();
    ring[0] = Member {
        name: String::new(),
        learner: true,
        ..member(1, false)
    };
    let start = Decision::Join {
        remove: None,
        add: false,
    };
    assert_eq!(of(false, &mark(1), &seen(&ring, &[2, 3])), Ok(start));
    // It was cut before it was added.
    assert_eq!(of(false, &mark(1), &seen(&ring[1..], &[2, 3])), Ok(GROW));
}

#[test]
fn what_is_not_safe_is_told() {
    let five: Vec<Member> = (1..=5).map(|id| member(id, true)).collect();
    let two_missing = seen(&five, &[2, 3, 4]);
    assert_eq!(of(false, &mark(1), &two_missing), Err(Code::EtcdRejoin));
    let asked = Mark {
        asked: true,
        ..mark(1)
    };
    assert_eq!(of(false, &asked, &two_missing), Ok(REJOIN));
    // Nobody may ask for what cannot be.
    for mark in [&mark(1), &asked, &Mark::default()] {
        let alone = seen(&whole(), &[]);
        assert_eq!(of(false, mark, &alone), Err(Code::EtcdQuorum));
    }
    assert_eq!(of(false, &asked, &Seen::default()), Err(Code::EtcdLost));
    assert_eq!(of(false, &mark(1), &Seen::default()), Err(Code::EtcdLost));
    // A second machine with this one's document.
    let other = seen(&whole(), &[1, 2, 3]);
    assert_eq!(of(false, &Mark::default(), &other), Err(Code::EtcdRejoin));
}

#[test]
fn a_ring_grows_by_one_at_a_time() {
    let one = [member(3, true)];
    assert_eq!(of(false, &Mark::default(), &seen(&one, &[3])), Ok(GROW));
    let learner = Member {
        name: String::new(),
        learner: true,
        ..member(2, false)
    };
    let two = [learner, member(3, true)];
    assert_eq!(
        of(false, &Mark::default(), &seen(&two, &[3])),
        Err(Code::Etcd)
    );
    let waits = decide(&sample(), false, &Mark::default(), &seen(&two, &[3]));
    assert!(waits.unwrap_err().story().contains("10.0.0.12"));
}

#[test]
fn who_left_stays_away() {
    let left = Mark {
        left: true,
        ..Mark::default()
    };
    let ring = [member(2, true), member(3, true)];
    let seen = seen(&ring, &[2, 3]);
    assert_eq!(of(false, &left, &seen), Err(Code::EtcdRemoved));
}
