//! How long to wait between attempts: one rule for everything that repeats.

use std::time::Duration;

/// Exponential back-off with full jitter, for ever.
///
/// The n-th pause is random between half and the whole of
/// `first × 2ⁿ`, capped at `longest`. Machines that boot together so spread
/// out, and none gives up (failure mode F3).
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// A back-off whose first pause is about `first` and whose longest is
    /// about `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            attempts: 0,
        }
    }

    /// How many pauses were taken.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts from the first pause again, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.bound().mul_f64(0.5 + fastrand::f64() / 2.0);
        self.attempts = self.attempts.saturating_add(1);
        pause
    }

    /// The longest that the next pause can be.
    fn bound(&self) -> Duration {
        self.first
            .saturating_mul(2_u32.saturating_pow(self.attempts.min(30)))
            .min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_bounds() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        for attempt in 0..100_u32 {
            let bound = Duration::from_millis(100)
                .saturating_mul(2_u32.saturating_pow(attempt.min(20)))
                .min(Duration::from_secs(30));
            let pause = backoff.pause();
            assert!(pause <= bound && pause >= bound / 2, "{attempt}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
