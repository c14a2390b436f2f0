use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A service that is probed for as long as `answers` has outcomes; returns
/// when each restart was asked for.
fn live(policy: Policy, answers: impl Fn(Duration) -> bool, until: Duration) -> Vec<Duration> {
    let mut health = Health::new(policy, Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut restarts = Vec::new();
    while now < until {
        let asked = now;
        let verdict = if answers(asked) {
            health.answered(now)
        } else {
            now += policy.timeout;
            health.failed(asked, now)
        };
        if verdict == Verdict::Restart {
            restarts.push(now);
            health.restarted(now);
        }
        now += health.pace();
    }
    restarts
}

/// P34, F17: never on one failure, nor on a few in a short while.
#[test]
fn a_short_trouble_is_no_reason_to_restart() {
    for length in [1, 5, 10] {
        let trouble = SECOND * 100..SECOND * (100 + length);
        let restarts = live(NODE, |now| !trouble.contains(&now), SECOND * 600);
        assert!(restarts.is_empty(), "{length} s: {restarts:?}");
    }
}

/// R9: frozen at any moment, it is to be restarted within 30 seconds, which
/// leaves ten for the evidence.
#[test]
fn a_frozen_service_is_noticed_in_time() {
    for moment in 100..115 {
        let frozen = SECOND * moment;
        let restarts = live(NODE, |now| now < frozen, SECOND * 150);
        let noticed = restarts[0] - frozen;
        assert!(
            noticed >= NODE.span - NODE.timeout && noticed <= SECOND * 30,
            "{noticed:?}"
        );
    }
}

#[test]
fn one_that_never_answered_is_told_and_left_alone() {
    assert!(live(NODE, |_| false, SECOND * 3600).is_empty());
    let mut health = Health::new(NODE, Duration::ZERO);
    assert_eq!(health.failed(SECOND * 10, SECOND * 13), Verdict::Starting);
    for now in [60, 70] {
        assert_eq!(
            health.failed(SECOND * now, SECOND * (now + 3)),
            Verdict::Suspect
        );
    }
    assert_eq!(health.failed(SECOND * 80, SECOND * 83), Verdict::Unknown);
}

/// F17: the pause between restarts doubles, and is short again after a long
/// time without trouble.
#[test]
fn restarts_become_rarer_until_it_is_well_again() {
    let restarts = live(NODE, |now| now < SECOND * 60, SECOND * 3 * 3600);
    let pauses: Vec<u64> = restarts
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert!(pauses[0] >= 60 && pauses[0] < 100, "{pauses:?}");
    assert!(pauses.windows(2).take(3).all(|p| p[1] > p[0]), "{pauses:?}");
    assert!(
        pauses.iter().all(|pause| *pause < 15 * 60 + 90),
        "{pauses:?}"
    );

    let mut health = Health::new(NODE, Duration::ZERO);
    health.answered(SECOND);
    health.restarted(SECOND * 2);
    health.restarted(SECOND * 200);
    assert_eq!(health.restarts(), 2);
    health.answered(SECOND * 3600);
    assert_eq!(health.restarts(), 0);
}

#[test]
fn it_is_healthy_again_after_two_answers() {
    let mut health = Health::new(NODE, Duration::ZERO);
    assert_eq!(health.answered(SECOND), Verdict::Healthy);
    let mut last = Verdict::Healthy;
    for now in [10, 16, 25] {
        last = health.failed(SECOND * now, SECOND * (now + 3));
    }
    assert_eq!(last, Verdict::Restart);
    assert!(health.is_doubtful());
    health.restarted(SECOND * 29);
    assert_eq!(health.failed(SECOND * 30, SECOND * 30), Verdict::Starting);
    assert_eq!(health.answered(SECOND * 33), Verdict::Recovering);
    assert!(health.is_doubtful());
    assert_eq!(health.answered(SECOND * 36), Verdict::Healthy);
    assert!(!health.is_doubtful());
    assert_eq!(health.pace(), NODE.period);
}

/// What was another's fault is not held against it: it has all its time again.
#[test]
fn after_a_pardon_the_count_begins_anew() {
    let mut health = Health::new(NODE, Duration::ZERO);
    health.answered(SECOND);
    for now in [10, 20, 30] {
        health.failed(SECOND * now, SECOND * (now + 3));
        health.pardon();
    }
    assert_eq!(health.failed(SECOND * 40, SECOND * 43), Verdict::Suspect);
}

proptest! {
    /// Whatever happens, there are never two restarts within the pause, and
    /// none after fewer failures in a row than the policy wants.
    #[test]
    fn never_too_eager(outcomes in prop::collection::vec((any::<bool>(), 0u64..20), 1..400)) {
        let mut health = Health::new(NODE, Duration::ZERO);
        let (mut now, mut in_row, mut last) = (Duration::ZERO, 0, None::<Duration>);
        for (answers, delay) in outcomes {
            now += SECOND * u32::try_from(delay).unwrap();
            let asked = now;
            if answers {
                in_row = 0;
                health.answered(now);
                continue;
            }
            now += NODE.timeout;
            in_row += 1;
            if health.failed(asked, now) == Verdict::Restart {
                prop_assert!(in_row >= NODE.failures);
                prop_assert!(last.is_none_or(|last| now - last >= NODE.cooldown));
                health.restarted(now);
                last = Some(now);
                in_row = 0;
            }
        }
    }
}
