//! How often attempts are made: soon after the first, then under five a second.

use std::time::Duration;

/// The pause after the first attempt.
const FIRST: Duration = Duration::from_millis(10);
/// Pauses in the long run are random between these, so that machines that wait
/// for the same server spread out.
const USUAL: (Duration, Duration) = (Duration::from_millis(220), Duration::from_millis(280));

/// The pauses between attempts at one target: 10, 40, 160 ms, then 220 to 280.
#[derive(Debug, Default)]
pub struct Pace {
    attempts: u32,
}

impl Pace {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let longer = FIRST.saturating_mul(1 << (2 * self.attempts.min(10)));
        self.attempts = self.attempts.saturating_add(1);
        if longer < USUAL.0 {
            return longer;
        }
        USUAL.0 + (USUAL.1 - USUAL.0).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R6: on average under five a second, from a few seconds on.
    #[test]
    fn r6_attempts_stay_under_five_a_second() {
        for seconds in [5_u32, 60, 3600] {
            let (mut pace, mut time, mut attempts) = (Pace::default(), Duration::ZERO, 1);
            loop {
                time += pace.pause();
                if time > Duration::from_secs(seconds.into()) {
                    break;
                }
                attempts += 1;
            }
            assert!(attempts < 5 * seconds, "{attempts} in {seconds} s");
            assert!(attempts > 3 * seconds, "{attempts} in {seconds} s");
        }
    }
}
