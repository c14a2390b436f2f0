//! Does a service start, end, and start again, over and over? Decided from
//! systemd's counter of its own restarts.

use std::collections::VecDeque;
use std::time::Duration;

/// So many restarts by systemd…
const MANY: usize = 3;
/// …within this time are a loop.
const WITHIN: Duration = Duration::from_secs(10 * 60);
/// It is over when the service has stayed up for so long.
const CALM: Duration = Duration::from_secs(2 * 60);

/// What is known of one service's restarts. Times are since any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct Crashes {
    counter: Option<u32>,
    moments: VecDeque<Duration>,
}

impl Crashes {
    /// systemd's counter at `now`; whether it has risen. A job (ours, or an
    /// operator's) sets it back, which is no crash.
    pub fn count(&mut self, counter: u32, now: Duration) -> bool {
        let before = self.counter.replace(counter);
        // What was before knode began to look is the past.
        let new = match before {
            Some(before) if counter >= before => counter - before,
            Some(_) => counter,
            None => 0,
        };
        for _ in 0..new.min(MANY as u32) {
            self.moments.push_back(now);
        }
        while self.moments.len() > MANY {
            self.moments.pop_front();
        }
        new > 0
    }

    /// systemd's counter after knode ended the service itself.
    pub fn excuse(&mut self, counter: u32) {
        self.counter = Some(counter);
    }

    /// Whether it is in such a loop at `now`.
    pub fn looping(&self, now: Duration) -> bool {
        let (Some(first), Some(last)) = (self.moments.front(), self.moments.back()) else {
            return false;
        };
        self.moments.len() >= MANY
            && last.saturating_sub(*first) <= WITHIN
            && now.saturating_sub(*last) < CALM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_restarts_in_a_short_time_are_a_loop_until_it_stays_up() {
        let mut crashes = Crashes::default();
        assert!(!crashes.count(7, SECOND), "before we looked");
        assert!(crashes.count(8, SECOND * 10));
        assert!(crashes.count(9, SECOND * 12));
        assert!(!crashes.looping(SECOND * 12));
        assert!(crashes.count(10, SECOND * 14));
        assert!(!crashes.count(10, SECOND * 14));
        assert!(crashes.looping(SECOND * 14));
        assert!(!crashes.looping(SECOND * 14 + CALM));
    }

    #[test]
    fn restarts_that_are_far_apart_and_jobs_are_no_loop() {
        let mut crashes = Crashes::default();
        for counter in 0..20 {
            crashes.count(counter, SECOND * 600 * counter);
            assert!(!crashes.looping(SECOND * 600 * counter));
        }
        assert!(!crashes.count(0, SECOND * 12_000), "a job");
        assert!(crashes.count(4, SECOND * 12_001), "folded into one");
        assert!(crashes.looping(SECOND * 12_001));
    }
}
