//! "Something happened", coalesced: a flood of events costs one wake-up and no memory.
//!
//! Kernel and bus deliver a message for every change. Whoever converges on a wanted state needs
//! only to know that it is time to look again, so the events are folded into a few bits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Shared between the task that hears events and the one that waits for them.
///
/// Meant for one waiter: with two, either may take the bits the other was waiting for.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bits: AtomicU8,
    notify: Notify,
}

impl Pulse {
    /// Adds `bits` to what the waiter will see.
    pub(super) fn raise(&self, bits: u8) {
        self.0.bits.fetch_or(bits, Ordering::AcqRel);
        // notify_one leaves a permit behind when nobody waits yet, so no event is lost.
        self.0.notify.notify_one();
    }

    /// Waits until at least one bit is raised, and takes all of them.
    pub(super) async fn take(&self) -> u8 {
        loop {
            match self.0.bits.swap(0, Ordering::AcqRel) {
                0 => self.0.notify.notified().await,
                bits => return bits,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pulse;

    #[tokio::test]
    async fn events_raised_before_and_between_waits_are_folded_and_not_lost() {
        let pulse = Pulse::default();
        pulse.raise(1);
        pulse.raise(4);
        assert_eq!(pulse.take().await, 5);

        let other = pulse.clone();
        let waiter = tokio::spawn(async move { other.take().await });
        tokio::task::yield_now().await;
        pulse.raise(2);
        assert_eq!(waiter.await.expect("the waiter ran"), 2);
    }
}
